"""How long a first build takes, compared with the same marts in plain SQL on DuckDB and in chDB."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import shop
from benchmarks.build import WITHOUT_TESTS, Built, Warehouse, in_millions
from benchmarks.measure import Figure, in_process, peer_python, run, short_rounds
from benchmarks.report import Plot, Ratio, Section, Table
from tools import ROOT

FLOOR = """
import duckdb, json, re, sys, time
connection = duckdb.connect(sys.argv[2])
connection.execute(f"attach '{sys.argv[1]}' as raw (read_only)")
seconds = {"staging and facts": 0.0, "marts": 0.0}
part = "staging and facts"
for statement in duckdb.extract_statements(open(sys.argv[3]).read()):
    started = time.perf_counter()
    connection.execute(statement)
    seconds[part] += time.perf_counter() - started
    if "create table fct_events " in statement.query:
        part = "marts"
connection.close()
print(json.dumps(seconds))
"""
SAME_ROWS = ("fct_events", "fct_page_views", "agg_product_events_hourly", "agg_user_metrics_daily")
LESS_MEMORY = "2GiB"
"""WAREHOUSE_MEMORY_LIMIT of one more build of the largest size."""


@dataclass(slots=True)
class FirstModels:
    """The first build of all models, in two steps."""

    facts: Built
    marts: Built

    @property
    def models_seconds(self) -> float:
        return self.facts.node_seconds + self.marts.node_seconds

    @property
    def peak_mib(self) -> int:
        return max(self.facts.run.peak_mib, self.marts.run.peak_mib)


def first_models(warehouse: Warehouse, **settings: str) -> FirstModels:
    return FirstModels(
        warehouse.build("--select", "+fct_events", *WITHOUT_TESTS, **settings),
        warehouse.build("--exclude", "+fct_events", *WITHOUT_TESTS, **settings),
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """One build from raw to all marts."""

    facts: float
    """Seconds for staging and fct_events."""
    marts: float
    """Seconds for the rest."""
    cpu: float
    peak_mib: int

    @property
    def both(self) -> float:
        return self.facts + self.marts


def by_hand(landed: Path, made: Path) -> Timed:
    made.unlink(missing_ok=True)
    done = run("-c", FLOOR, landed, made, ROOT / "benchmarks/floor.sql")
    return Timed(done.reported["staging and facts"], done.reported["marts"], done.cpu_seconds, done.peak_mib)


def by_dbt(build: FirstModels) -> Timed:
    cpu = build.facts.run.cpu_seconds + build.marts.run.cpu_seconds
    return Timed(build.facts.node_seconds, build.marts.node_seconds, cpu, build.peak_mib)


def by_chdb(python: Path, days: int, database: Path) -> tuple[Timed, dict[str, Any]]:
    """Times of chDB, and the output of its script: version and rows of each mart."""
    done = run(ROOT / "benchmarks/peers/chdb_marts.py", shop.FOLDER, str(days), database, python=python)
    said = done.reported
    timed = Timed(said["staging_and_facts_seconds"], said["marts_seconds"], said["cpu_seconds"], done.peak_mib)
    return timed, said


def first_builds(sizes: list[int], rounds: int, folder: Path) -> Section:
    """Build the first days of each size from raw to all marts: by hand, by dbt and in chDB."""
    python = peer_python("chdb")
    table = Table(["contender", "messages", "staging and facts, s", "marts, s", "both, s", "CPU, s", "peak MiB"], [])
    whole = Table(
        ["dbt, messages", "start-up, s", "models, s", "the rest, s", "one `make build`, s", "peak MiB of the rest"], []
    )
    ratios: list[Ratio] = []
    seconds: dict[str, dict[str, float]] = {}
    throughput: dict[str, dict[str, float]] = {}
    said: dict[str, Any] = {}
    for days in sizes:
        landed, floor, warehouse = folder / "landed.duckdb", folder / "floor.duckdb", Warehouse(folder / "built")
        messages = in_process(shop.land, landed, range(days))
        size = in_millions(messages)
        done: dict[str, list[Timed]] = {"by hand, DuckDB": [], "dbt, DuckDB": [], "chDB": []}
        is_largest = days == max(sizes)
        for _ in range(rounds if is_largest else short_rounds(rounds)):
            done["by hand, DuckDB"].append(by_hand(landed, floor))
            models = first_models(warehouse.copy_of(landed))
            done["dbt, DuckDB"].append(by_dbt(models))
            timed, said = by_chdb(python, days, folder / "chdb")
            done["chDB"].append(timed)
            in_process(check_same_rows, floor, warehouse.path, said["rows"])
        rest = warehouse.build()
        for name, timings in done.items():
            facts, marts = Figure([one.facts for one in timings]), Figure([one.marts for one in timings])
            seconds[f"{size}, {name}"] = {"staging and facts": facts.median, "marts": marts.median}
            throughput[f"{size}, {name}"] = {"": messages / Figure([one.both for one in timings]).median}
        ratios += [
            Ratio(
                f"build of {size}: dbt's models / by hand",
                [
                    one.both / other.both
                    for one, other in zip(done["dbt, DuckDB"], done["by hand, DuckDB"], strict=True)
                ],
                at_most=1.3 if is_largest else None,
            ),
            Ratio(
                f"build of {size}: dbt's models / chDB",
                [one.both / other.both for one, other in zip(done["dbt, DuckDB"], done["chDB"], strict=True)],
            ),
            Ratio(
                f"staging and facts of {size}: dbt's models / chDB",
                [one.facts / other.facts for one, other in zip(done["dbt, DuckDB"], done["chDB"], strict=True)],
                at_most=1.0 if is_largest else None,
            ),
        ]
        if is_largest:
            with_less = by_dbt(first_models(warehouse.copy_of(landed), WAREHOUSE_MEMORY_LIMIT=LESS_MEMORY))
            done[f"dbt, WAREHOUSE_MEMORY_LIMIT={LESS_MEMORY}"] = [with_less]
            ratios.append(
                Ratio(
                    f"build of {size} with {LESS_MEMORY} for DuckDB: peak GiB", [with_less.peak_mib / 1024], at_most=4.0
                )
            )
        table.rows.extend(
            [
                name,
                messages,
                Figure([one.facts for one in timings]),
                Figure([one.marts for one in timings]),
                Figure([one.both for one in timings]),
                Figure([one.cpu for one in timings]),
                max(one.peak_mib for one in timings),
            ]
            for name, timings in done.items()
        )
        whole.rows.append(
            [
                size,
                Figure([models.facts.starting_seconds]),
                Figure([models.models_seconds]),
                Figure([rest.run.seconds]),
                Figure([models.models_seconds + rest.run.seconds]),
                rest.run.peak_mib,
            ]
        )
        warehouse.remove()
        landed.unlink()
        floor.unlink()
        shutil.rmtree(folder / "chdb")
    return Section(
        "A first build",
        "The first days of the shop, from raw to all marts. By hand: benchmarks/floor.sql, the same marts in SQL for"
        " one run, in one process, without tests, accounting or increments, and with temporary tables before the facts."
        " The time of dbt's models is from the start of the first node to the end of the last, without tests and"
        " snapshots. The second table has the rest of a `make build`, measured once: start-up, tests of all rows,"
        " snapshots and publishing. CPU includes dbt's start, twice. The numbers of rows are compared in each round.",
        [table, whole],
        ratios,
        [
            Plot("build", "From raw to all marts", "seconds", seconds),
            Plot("build_throughput", "Messages built a second", "messages a second", throughput),
        ],
        {
            "chDB": f"ClickHouse {said['version']}, MergeTree tables, benchmarks/peers/chdb_marts.sql: parses and"
            " deduplicates in one statement a stream, so that nothing is staged. Loading raw, in the order of landing,"
            " is not counted"
        },
    )


def check_same_rows(floor: Path, warehouse: Path, others: dict[str, int]) -> None:
    """Check that all contenders built the same numbers of rows.

    Raises:
        ValueError: if a mart has other rows in one of them.
    """
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute(f"attach '{floor}' as floor (read_only)")
        for mart in SAME_ROWS:
            counts = connection.sql(
                f"select (select count(*) from analytics.{mart}), (select count(*) from floor.{mart})"  # noqa: S608
            ).fetchall()[0]
            if len({*counts, others[mart]}) > 1:
                raise ValueError(f"{mart}: rows by dbt and by hand {counts}, by the peer {others}")
