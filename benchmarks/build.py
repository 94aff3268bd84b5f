"""How long a build takes, against the same marts written by hand: `python -m benchmarks.build [MESSAGES]...`.

For each number of messages (1,000,000 unless given): a simulated shop of ten days is landed once; then, alternating and
each in a process of its own, the marts are made by benchmarks/floor.sql (the floor: hand-written SQL for DuckDB, no
tests, nothing incremental) and by a first `dbt_project build`; then one hundredth more messages are landed and built
onto it, and then nothing more. Prints a table in Markdown: seconds of wall time, of CPU, and peak memory; of dbt also
the seconds that its models took, since it starts, tests and unit-tests besides.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROUNDS = 3
DAYS = 10
ROOT = Path(__file__).parents[1]
FLOOR = """
import duckdb, sys
connection = duckdb.connect(sys.argv[2])
connection.execute(f"attach '{sys.argv[1]}' as raw (read_only)")
connection.execute(open(sys.argv[3]).read())
"""
SAME_ROWS = ("fct_events", "fct_page_views", "agg_product_events_hourly", "agg_user_metrics_daily")


@dataclass
class Run:
    seconds: float
    cpu_seconds: float
    peak_mib: int
    model_seconds: float | None = None


def run(*command: str | Path, environment: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(map(str, command)))
    peak = used.ru_maxrss // (1024 if sys.platform == "linux" else 1024 * 1024)
    return Run(time.monotonic() - started, used.ru_utime + used.ru_stime, peak)


def build(environment: dict[str, str]) -> Run:
    """One build by dbt, and how long its models took."""
    done = run("-m", "dbt_project", "build", environment=environment)
    results = json.loads((ROOT / "dbt_project/target/run_results.json").read_text())["results"]
    done.model_seconds = sum(one["execution_time"] for one in results if one["unique_id"].startswith("model."))
    return done


def row(name: str, messages: int, runs: list[Run]) -> None:
    seconds = [one.seconds for one in runs]
    models = [one.model_seconds for one in runs if one.model_seconds is not None]
    print(
        f"| {messages:,} | {name} | {median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f}) "
        f"| {median(one.cpu_seconds for one in runs):.1f} | {f'{median(models):.1f}' if models else ''} "
        f"| {max(one.peak_mib for one in runs):,} |",
        flush=True,
    )


def measure(messages: int, folder: Path) -> None:
    landed, warehouse, floor = folder / "landed.duckdb", folder / "built/landed.duckdb", folder / "floor.duckdb"
    environment = {"WAREHOUSE_PATH": str(landed), "SPOOL_PATH": str(folder / "spool")}

    def land(days: int, count: int) -> None:
        simulate = ("-m", "ingest", "simulate", "--days", str(days), "--events-per-day", str(count))
        run(*simulate, environment=environment)
        run("-m", "ingest", "land", environment=environment)

    land(DAYS, messages // DAYS)
    floors: list[Run] = []
    builds: list[Run] = []
    for _ in range(ROUNDS):
        floor.unlink(missing_ok=True)
        floors.append(run("-c", FLOOR, landed, floor, ROOT / "benchmarks/floor.sql"))
        shutil.rmtree(warehouse.parent, ignore_errors=True)
        warehouse.parent.mkdir()
        shutil.copy(landed, warehouse)
        builds.append(build(environment | {"WAREHOUSE_PATH": str(warehouse)}))
    row("floor", messages, floors)
    row("dbt, first build", messages, builds)
    check_same_rows(floor, warehouse)

    environment["WAREHOUSE_PATH"] = str(warehouse)
    land(1, messages // 100)
    row("dbt, 1 % more", messages, [build(environment)])
    nothing_new = [run("-m", "dbt_project", "build", environment=environment) for _ in range(ROUNDS)]
    row("dbt, nothing new", messages, nothing_new)


def check_same_rows(floor: Path, warehouse: Path) -> None:
    """The floor is no floor if it makes other marts."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute(f"attach '{floor}' as floor (read_only)")
        for mart in SAME_ROWS:
            counts = connection.sql(
                f"select (select count(*) from analytics.{mart}), (select count(*) from floor.{mart})"  # noqa: S608
            ).fetchall()[0]
            if counts[0] != counts[1]:
                raise ValueError(f"{mart}: {counts[0]:,} rows by dbt, {counts[1]:,} by hand")


def main() -> None:
    print("| messages | | seconds, median (range) | CPU | models | peak MiB |\n|--:|---|--:|--:|--:|--:|")
    for messages in map(int, sys.argv[1:] or ["1000000"]):
        with TemporaryDirectory(prefix="benchmark-build-") as folder:
            measure(messages, Path(folder))


if __name__ == "__main__":
    main()
