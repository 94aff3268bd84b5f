"""The input of the benchmarks: days of the simulated shop as raw messages, drawn by seed, kept as Parquet in .cache.

A day is 100,000 events and their faults; a history of N days is the first N of them, so that warehouses of 1 million and
of 30 million messages differ in their length only. Every contender reads the same files.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from ingest.message import Message
from ingest.settings import Settings
from ingest.simulator import DEFAULT_START, simulate, simulated_days
from ingest.sinks.duckdb import DuckDBSink
from ingest.streams import STREAMS, Stream

SEED = 1
EVENTS_PER_DAY = 100_000
FOLDER = Path(__file__).parents[1] / ".cache" / "benchmarks" / f"shop-{SEED}-{EVENTS_PER_DAY}"
LATE_DAYS = 90
"""Late messages are of this many days."""

COLUMNS = pa.schema(
    [
        ("message_id", pa.string()),
        ("key", pa.binary()),
        ("attributes", pa.string()),
        ("published_at", pa.timestamp("us")),
        ("payload", pa.binary()),
    ]
)


def path(stream: str, day: int) -> Path:
    """The messages of a day, counted from 0, in COLUMNS."""
    return FOLDER / stream / f"{day:05}.parquet"


def draw(days: int) -> None:
    """Draw the first `days` days of the shop, as far as they are not there yet."""
    settings = Settings(_env_file=None, spool_path=FOLDER)
    known = simulated_days(settings)
    if known >= days:
        return
    with Progress() as progress:
        task = progress.add_task(f"drawing days {known + 1} to {days} of the shop", total=days - known)
        simulate(
            settings,
            _ParquetPublisher(known),
            days=days - known,
            seed=SEED,
            events_per_day=EVENTS_PER_DAY,
            on_progress=lambda done, _: progress.update(task, completed=done),
        )


def land(warehouse: Path, first_day: int, last_day: int) -> int:
    """Put the messages of these days into a warehouse as landing would, a commit a day; returns how many."""
    return _land(warehouse, range(first_day, last_day + 1), "true", _noon_after(last_day))


def land_but_late(warehouse: Path, days: int) -> int:
    """The first `days` days, but for a hundredth of the messages of the last LATE_DAYS of them."""
    return _land(warehouse, range(days), f"not ({_is_late(days)})", _noon_after(days - 1))


def land_late(warehouse: Path, days: int) -> int:
    """What `land_but_late` has left out, in one commit a day later; returns how many messages."""
    return _land(warehouse, range(max(0, days - LATE_DAYS), days), _is_late(days), _noon_after(days), one_commit=True)


def _is_late(days: int) -> str:
    first = DEFAULT_START + timedelta(days=max(0, days - LATE_DAYS))
    return f"published_at >= timestamp '{first}' and hash(message_id) % 90 = 0"


def _noon_after(day: int) -> datetime:
    return datetime(DEFAULT_START.year, DEFAULT_START.month, DEFAULT_START.day, 12) + timedelta(days=day + 1)  # noqa: DTZ001  UTC without a zone


def _land(warehouse: Path, days: range, where: str, newest: datetime, *, one_commit: bool = False) -> int:
    draw(days.stop)
    DuckDBSink(warehouse).create_tables()
    landed = 0
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("set preserve_insertion_order = true")
        for stream in STREAMS:
            for day in days:
                landed_at = newest if one_commit else newest - timedelta(days=days.stop - 1 - day)
                landed += connection.execute(
                    f"""
                    insert into raw.{stream} by name
                    select '{stream}' as stream, 'spool' as source, '{stream}' as topic, 0 as "partition",
                        cast(split_part(message_id, '/', 3) as bigint) as "offset", *, $landed_at as landed_at
                    from read_parquet($path)
                    where {where}
                    """,  # noqa: S608  names of ours
                    {"landed_at": landed_at, "path": str(path(stream, day))},
                ).fetchall()[0][0]
    return landed


class _ParquetPublisher:
    """Writes what is published, a file a stream and day."""

    def __init__(self, day: int) -> None:
        self._day = day
        self._offsets = {
            stream: sum(pq.read_metadata(path(stream, earlier)).num_rows for earlier in range(day))
            for stream in STREAMS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        rows = list(messages)
        offset = self._offsets[stream.name]
        self._offsets[stream.name] += len(rows)
        table = pa.Table.from_pydict(
            {
                "message_id": [f"{stream.name}/0/{offset + number}" for number in range(len(rows))],
                "key": [row.key for row in rows],
                "attributes": [orjson.dumps(row.attributes).decode() if row.attributes else None for row in rows],
                "published_at": [row.published_at for row in rows],
                "payload": [row.payload for row in rows],
            },
            COLUMNS,
        )
        file = path(stream.name, self._day)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, compression="zstd")
        return len(rows)

    def flush(self) -> None:
        self._day += 1


if __name__ == "__main__":
    import sys

    draw(int(sys.argv[1]))
