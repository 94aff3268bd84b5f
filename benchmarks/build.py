"""How long builds take: a first one against the same marts by hand and in chDB, and a day more onto a history."""

import json
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import shop
from benchmarks.measure import ROOT, Figure, Run, apart, peer_python, run, short_rounds
from benchmarks.report import Plot, Ratio, Section, Table
from tests.dbt_project.test_cost import costs

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
WITHOUT_TESTS = ("--exclude-resource-type", "test", "unit_test", "snapshot")
LESS_MEMORY = "2GiB"
"""The largest first build is done once more with this WAREHOUSE_MEMORY_LIMIT."""


@dataclass(frozen=True, slots=True)
class Built:
    """A build by dbt."""

    run: Run
    starting_seconds: float
    """Until the first node."""
    node_seconds: float
    """From the first node's start to the last one's end."""
    nodes: int

    @property
    def ending_seconds(self) -> float:
        """Behind the last node: publishing, and the table of the marts."""
        return self.run.seconds - self.starting_seconds - self.node_seconds


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A DuckDB file in a folder of its own, with all that builds leave beside it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def copy_of(self, landed: Path) -> "Warehouse":
        """Begin anew with these raw tables."""
        self.remove()
        self.folder.mkdir(parents=True)
        shutil.copy(landed, self.path)
        return self

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def build(self, *options: str, **settings: str) -> Built:
        """`python -m dbt_project build`, to its end."""
        environment = {
            "WAREHOUSE_PATH": str(self.path),
            "SPOOL_PATH": str(self.folder / "spool"),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(self.folder / "logs"),
        }
        results = self.target / "run_results.json"
        results.unlink(missing_ok=True)
        done = run("-m", "dbt_project", "build", *options, environment=environment | settings)
        if not results.exists():  # nothing was new
            return Built(done, done.seconds, 0.0, 0)
        times = [
            _seconds_since_epoch(step[end])
            for one in json.loads(results.read_text())["results"]
            for step in one["timing"]
            for end in ("started_at", "completed_at")
        ]
        nodes = len(json.loads(results.read_text())["results"])
        return Built(done, min(times) - done.started_at, max(times) - min(times), nodes)


def _seconds_since_epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


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


def in_millions(messages: int) -> str:
    return f"{messages / 1e6:.0f}M" if messages >= 1e6 else f"{messages / 1e6:.1f}M"


@dataclass(frozen=True, slots=True)
class Timed:
    """From raw to all marts, once."""

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
    return Timed(done.said["staging and facts"], done.said["marts"], done.cpu_seconds, done.peak_mib)


def by_dbt(build: FirstModels) -> Timed:
    cpu = build.facts.run.cpu_seconds + build.marts.run.cpu_seconds
    return Timed(build.facts.node_seconds, build.marts.node_seconds, cpu, build.peak_mib)


def by_chdb(python: Path, days: int, database: Path) -> tuple[Timed, dict[str, Any]]:
    """And what the script said: its version, the rows of its marts."""
    done = run(ROOT / "benchmarks/peers/chdb_marts.py", shop.FOLDER, str(days), database, python=python)
    said = done.said
    timed = Timed(said["staging_and_facts_seconds"], said["marts_seconds"], said["cpu_seconds"], done.peak_mib)
    return timed, said


def first_builds(sizes: list[int], rounds: int, folder: Path) -> Section:
    """Builds of the first so many days, from raw to all marts, by hand, by dbt and in chDB."""
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
        messages = apart(shop.land, landed, range(days))
        size = in_millions(messages)
        done: dict[str, list[Timed]] = {"by hand, DuckDB": [], "dbt, DuckDB": [], "chDB": []}
        is_largest = days == max(sizes)
        for _ in range(rounds if is_largest else short_rounds(rounds)):
            done["by hand, DuckDB"].append(by_hand(landed, floor))
            models = first_models(warehouse.copy_of(landed))
            done["dbt, DuckDB"].append(by_dbt(models))
            timed, said = by_chdb(python, days, folder / "chdb")
            done["chDB"].append(timed)
            apart(see_same_rows, floor, warehouse.path, said["rows"])
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
        "The first days of the shop, from raw to all marts. By hand: benchmarks/floor.sql, the same marts as one would"
        " write them in SQL for one run, without tests, accounting and anything incremental, in one process; what leads"
        " to the facts is temporary there. The time of dbt's models is that from the first node's start to the last"
        " one's end, tests and snapshots left out; the rest of a `make build`, start-up, tests of all rows, snapshots"
        " and publishing, stands below, as measured once. CPU includes dbt's start, twice. The numbers of rows are"
        " compared in each round.",
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


def see_same_rows(floor: Path, warehouse: Path, others: dict[str, int]) -> None:
    """Whoever makes other marts is no contender."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute(f"attach '{floor}' as floor (read_only)")
        for mart in SAME_ROWS:
            counts = connection.sql(
                f"select (select count(*) from analytics.{mart}), (select count(*) from floor.{mart})"  # noqa: S608
            ).fetchall()[0]
            if len({*counts, others[mart]}) > 1:
                raise ValueError(f"{mart}: rows by dbt and by hand {counts}, by the peer {others}")


@dataclass(slots=True)
class History:
    """A warehouse of so many days, and what was built onto it."""

    days: int
    warehouse: Warehouse
    messages: int
    first: list[float]
    """Seconds of a `make build` of all of it."""
    next_day: list[tuple[int, Built]] = field(default_factory=list)
    """Messages, and their build."""
    late: list[tuple[int, Built]] = field(default_factory=list)
    rows: tuple[int, int] = (0, 0)
    """Read and rewritten by the models of a next day's build."""

    @property
    def size(self) -> str:
        return in_millions(self.messages)


def increments(sizes: list[int], rounds: int, folder: Path) -> tuple[Section, Warehouse]:
    """One more day onto histories of so many days, then as many messages that are up to 90 days late.

    Returns the warehouse of the shortest history too.
    """
    histories: list[History] = []
    landed = folder / "landed.duckdb"
    for days in sizes:
        warehouse = Warehouse(folder / f"history-{days}")
        warehouse.remove()
        warehouse.folder.mkdir(parents=True)
        has_late = days >= shop.LATE_DAYS
        messages = apart(shop.land, warehouse.path, range(days), but_late_parts=1 if has_late else 0)
        if days == sizes[1]:
            shutil.copy(warehouse.path, landed)
        histories.append(History(days, warehouse, messages, [warehouse.build().run.seconds]))
    shortest, middle, longest = histories[0], histories[1], histories[-1]
    more_days = short_rounds(rounds)
    for number in range(more_days):
        if number and len(middle.first) < rounds:  # a ratio divides by it, which one build would leave to chance
            anew = Warehouse(folder / "anew").copy_of(landed)
            middle.first.append(anew.build().run.seconds)
            anew.remove()
        for history in histories:
            day = history.days + number
            messages = apart(shop.land, history.warehouse.path, range(day, day + 1))
            history.next_day.append((messages, history.warehouse.build()))
            if number == more_days - 1:
                touched = apart(costs, history.warehouse.target, history.warehouse.path).values()
                history.rows = sum(read for read, _ in touched), sum(rewritten for _, rewritten in touched)
    for history in histories:
        if history.days >= shop.LATE_DAYS:
            messages = apart(shop.land_late, history.warehouse.path, history.days, 0, history.days + more_days)
            history.late.append((messages, history.warehouse.build()))

    table = Table(
        [
            *("history", "what comes", "messages", "build, s", "of it start-up", "models and tests", "publishing"),
            *("rows read", "rewritten", "peak MiB"),
        ],
        [],
    )
    bars: dict[str, dict[str, float]] = {}
    for history in histories:
        for name, built, rows in (
            ("the next day", history.next_day, history.rows),
            ("90 days late", history.late, None),
        ):
            if not built:
                continue
            parts = {
                "start-up": Figure([one.starting_seconds for _, one in built]),
                "models and tests": Figure([one.node_seconds for _, one in built]),
                "publishing": Figure([one.ending_seconds for _, one in built]),
            }
            rewritten: list[str | int | Figure] = [*rows] if rows else ["", ""]
            table.rows.append(
                [
                    *(history.size, name, built[-1][0], Figure([one.run.seconds for _, one in built])),
                    *parts.values(),
                    *rewritten,
                    max(one.run.peak_mib for _, one in built),
                ]
            )
            bars[f"{history.size}, {name}"] = {part: figure.median for part, figure in parts.items()}
    ratios = [
        Ratio(
            f"a day more on {longest.size} / on {shortest.size}: models and tests",
            _paired(longest, shortest, lambda one: one.node_seconds),
            at_most=1.3,
        ),
        Ratio(
            f"a day more on {longest.size} / on {shortest.size}: whole build",
            _paired(longest, shortest, lambda one: one.run.seconds),
            at_most=1.3,
        ),
        Ratio(
            f"a day more on {middle.size} / first build of {middle.size}",
            [one.run.seconds / Figure(middle.first).median for _, one in middle.next_day],
            at_most=0.1,
        ),
    ]
    first = Table(
        ["history", "messages", "first `make build`, s"],
        [[one.size, one.messages, Figure(one.first)] for one in histories],
    )
    section = Section(
        "A day more",
        "A day of messages is landed and built onto histories of several lengths, one after the other; then a day's"
        " worth of messages of the last 90 days of the history. A build runs all tests and publishes: at once on a file"
        " system that shares blocks between copies (XFS, btrfs, APFS), otherwise by copying the warehouse. Rows read"
        " and rewritten are those of all incremental models, as DuckDB's EXPLAIN ANALYZE counts them. A day more is"
        " divided by the median first build.",
        [table, first],
        ratios,
        [Plot("increment", "A build of one more day, by history", "seconds", bars)],
    )
    return section, shortest.warehouse


def _paired(one: History, other: History, of: Any) -> list[float]:
    return [of(a) / of(b) for (_, a), (_, b) in zip(one.next_day, other.next_day, strict=True)]
