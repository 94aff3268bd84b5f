"""The marts of benchmarks/floor.sql in chDB, ClickHouse in a process: `python chdb_marts.py SHOP DAYS DATABASE`.

SHOP is a folder of benchmarks/shop.py's raw messages. The first DAYS days of them are loaded into MergeTree tables of
the database in the folder DATABASE, unless they are there, and chdb_marts.sql is run on these. Prints the seconds that
it took, and how many rows each mart has. Needs no more than requirements-chdb.txt.
"""

import json
import re
import sys
import time
from pathlib import Path

from chdb.session import Session

START = "2026-01-01"
"""The day of the first file: DEFAULT_START of ingest.simulator, which is not installed here."""
LAST_FACT = "fct_events"

# Sorted by landing, as DuckDB keeps the rows of a table.
RAW_TABLE = """
create table raw_{stream} (
    stream LowCardinality(String),
    source LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    message_id String,
    key Nullable(String),
    attributes Nullable(String),
    published_at Nullable(DateTime64(6, 'UTC')),
    landed_at DateTime64(6, 'UTC'),
    payload Nullable(String)
)
engine = MergeTree
order by (landed_at, message_id)
"""

# As in benchmarks.shop.land: the messages of a day land at noon of the next day.
LOAD = """
insert into raw_{stream}
select
    '{stream}', 'spool', '{stream}', 0, toInt64(splitByChar('/', assumeNotNull(message_id))[3]), message_id, key,
    attributes, published_at,
    toDateTime64('{start} 12:00:00', 6, 'UTC') + toIntervalDay(toUInt32(substring(_file, 1, 5)) + 1), payload
from file('{folder}/{{00000..{last_day:05}}}.parquet', Parquet)
"""


def load(session: Session, shop: Path, days: int) -> None:
    """Load the raw messages.

    Raises:
        FileNotFoundError: when a day has not been drawn.
    """
    for folder in sorted(path for path in shop.resolve().iterdir() if path.is_dir()):
        for day in range(days):
            if not (folder / f"{day:05}.parquet").exists():
                raise FileNotFoundError(f"{folder} has no day {day}")
        stream = folder.name
        session.query(RAW_TABLE.format(stream=stream))
        session.query(LOAD.format(stream=stream, start=START, folder=folder, last_day=days - 1))
        # otherwise ClickHouse would merge parts while the marts are measured
        session.query(f"optimize table raw_{stream} final")


def statements(script: str) -> list[str]:
    """The statements of a script, which has semicolons only at their ends."""
    script = re.sub(r"^\s*--.*$", "", script, flags=re.MULTILINE)
    return [statement.strip() for statement in script.split(";") if statement.strip()]


def main() -> None:
    shop, days, database = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    session = Session(str(database))
    if b"raw_clicks" not in session.query("show tables", "TSV").bytes():
        load(session, shop, days)
    script = statements(Path(__file__).with_suffix(".sql").read_text())
    marts = [created[1] for statement in script if (created := re.match(r"create table (\w+)", statement))]
    for mart in marts:
        session.query(f"drop table if exists {mart} sync")

    seconds = {"staging_and_facts_seconds": 0.0, "marts_seconds": 0.0}
    part = "staging_and_facts_seconds"
    cpu_started = time.process_time()
    for statement in script:
        if statement.startswith("create table") and not statement.startswith(f"create table {LAST_FACT} "):
            part = "marts_seconds"
        started = time.monotonic()
        session.query(statement)
        seconds[part] += time.monotonic() - started

    seconds["cpu_seconds"] = time.process_time() - cpu_started

    def count(mart: str) -> int:
        return int(session.query(f"select count() from {mart}", "TSV").bytes())  # noqa: S608  names of ours

    version = session.query("select version()", "TSV").bytes().decode().strip()
    print(json.dumps({"version": version, **seconds, "rows": {mart: count(mart) for mart in marts}}))


if __name__ == "__main__":
    main()
