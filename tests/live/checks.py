"""What must hold after anything that happens to the live process, and readers that check it meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import duckdb
import orjson

from common.settings import Settings
from common.streams import STREAMS
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tools.warehouses.commands import Warehouse
from tools.warehouses.live import LiveProcess

SUMS = """
select
    (select count(*) from analytics.fct_events),
    (select sum(events) from analytics.agg_events_daily),
    (select sum(events) from analytics.agg_events_hourly)
"""
"""Three numbers that are equal within one build."""


def produce_view(warehouse: Warehouse, brand: str, event_time: str) -> None:
    """Append a view of a product, at a time such as 2026-01-05 12:00:00 UTC, to the spool."""
    event = {"event_time": event_time, "event_type": "view", "product_id": "1", "brand": brand}
    message = Message(orjson.dumps(event), published_at=time.time_ns() // 1000)
    settings = Settings(_env_file=None, spool_path=warehouse.folder / "spool")
    SpoolProducer(settings).produce(STREAMS["ecom_events"], [message])


def events(live: LiveProcess, **arguments: object) -> int:
    """The number of events that the endpoints answer."""
    return sum(row["events"] for row in live.ask("event_counts", **arguments))


def check_landed_once(warehouse: Warehouse) -> None:
    """Check that each line of the spool is landed, at its offset, and none twice."""
    for stream in STREAMS:
        lines = (warehouse.folder / "spool" / stream / "0.ndjson").read_bytes().splitlines(keepends=True)
        offsets = [0, *accumulate(map(len, lines))][:-1]
        landed = warehouse.query(f'select "offset" from raw.{stream} order by "offset"')
        assert landed == [(offset,) for offset in offsets], stream


def check_marts(warehouse: Warehouse, folder: Path) -> None:
    """Build what has landed last, and check that the marts equal those of a full refresh in another folder."""
    warehouse.build()
    anew = warehouse.copy_to(folder)
    anew.run_models("--full-refresh")
    differences = warehouse.differences(anew)
    assert not differences, differences


@contextmanager
def repeated(check: Callable[[], None], errors: list[str], pause_seconds: float = 0.0) -> Iterator[None]:
    """Call a check in a thread, again and again; what it raises is added to `errors`."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause_seconds):
            try:
                check()
            except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
                errors.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def check_current(warehouse: Warehouse) -> None:
    """Open the version that the link names, read-only, and check that it is of one build."""
    link = warehouse.path.with_name(f"{warehouse.path.name}.published") / "current"
    before = link.readlink()
    try:
        with duckdb.connect(str(link.resolve(strict=True) / warehouse.path.name), read_only=True) as connection:
            [sums] = connection.execute(SUMS).fetchall()
    except (OSError, duckdb.Error):
        if link.readlink() == before:
            raise
        return  # two versions were published between reading the link and opening the file
    assert len({*sums}) == 1, sums
