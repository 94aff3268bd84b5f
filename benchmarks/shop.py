"""The input of the benchmarks: raw messages of the simulated shop, drawn by seed and kept as Parquet in .cache.

A day has 100,000 events and their faults. A history of N days is the first N days, so that warehouses of 1 and of 30
million messages differ only in length. All contenders read the same files.
"""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Self

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from common.settings import Settings
from common.streams import STREAMS, Stream
from engines.duckdb.sink import DuckDBSink
from ingest.message import Message
from ingest.simulator import DEFAULT_START, simulate, simulated_days

SEED = 1
EVENTS_PER_DAY = 100_000
FOLDER = Path(__file__).parents[1] / ".cache" / "benchmarks" / f"shop-{SEED}-{EVENTS_PER_DAY}"
LATE_DAYS = 90
"""Late messages are from this many days."""
OFFSET = "cast(split_part(message_id, '/', 3) as bigint)"

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
    """Draw the first `days` days of the shop, except those already drawn."""
    settings = Settings(_env_file=None, spool_path=FOLDER)
    known = simulated_days(settings)
    if known >= days:
        return
    with Progress() as progress:
        task = progress.add_task(f"drawing days {known + 1} to {days} of the shop", total=days - known)
        simulate(
            settings,
            _ParquetProducer(known),
            days=days - known,
            seed=SEED,
            events_per_day=EVENTS_PER_DAY,
            on_progress=lambda done, _: progress.update(task, completed=done),
        )


def land(warehouse: Path, days: range, *, but_late_parts: int = 0) -> int:
    """Insert the messages of these days into a warehouse as landing would, one commit per day; returns how many.

    Args:
        but_late_parts: number of parts to leave out for `land_late`.
    """
    where = f"not ({_is_late(days.stop, range(but_late_parts))})" if but_late_parts else "true"
    return _land(warehouse, days, where, "day + 1")


def land_late(warehouse: Path, days: int, part: int, on_day: int) -> int:
    """Insert a part that was left out of the first `days` days, in one commit on a later day; returns how many."""
    where = _is_late(days, range(part, part + 1))
    return _land(warehouse, range(max(0, days - LATE_DAYS), days), where, f"{on_day} + 1")


def land_part(warehouse: Path, day: int, part: int) -> int:
    """Insert a ninetieth of the messages of a day, in one commit on a later day; returns how many."""
    return _land(warehouse, range(day, day + 1), f"{OFFSET} % {LATE_DAYS} = {part}", f"day + 1 + {part}")


def _is_late(days: int, parts: range) -> str:
    """Condition for the messages of these parts. A part is as large as a day, and from the last LATE_DAYS days."""
    first = DEFAULT_START + timedelta(days=max(0, days - LATE_DAYS))
    numbers = f"{parts.start} and {parts.stop - 1}"
    return f"published_at >= timestamp '{first}' and {OFFSET} % {LATE_DAYS} between {numbers}"


def _land(warehouse: Path, days: range, where: str, landed_at: str) -> int:
    """Insert messages of these days in their order; returns how many.

    Args:
        where: SQL condition on COLUMNS.
        landed_at: SQL expression with `day`, the day of the file.
    """
    draw(days.stop)
    DuckDBSink(warehouse).create_tables()
    landed = 0
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("set enable_progress_bar = false")
        for stream in STREAMS:
            landed += connection.execute(
                f"""
                insert into raw.{stream} by name
                select '{stream}' as stream, 'spool' as source, '{stream}' as topic, 0 as "partition",
                    {OFFSET} as "offset", message_id, key, attributes, published_at, payload,
                    timestamp '{DEFAULT_START} 12:00:00' + to_days({landed_at}) as landed_at
                from (
                    select *, cast(parse_filename(filename, true) as integer) as day
                    from read_parquet($paths, filename = true)
                )
                where {where}
                """,  # noqa: S608  names of ours
                {"paths": [str(path(stream, day)) for day in days]},
            ).fetchall()[0][0]
    return landed


class _ParquetProducer:
    """Writes what is produced: one file per stream and day."""

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

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
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
