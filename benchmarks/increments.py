"""How long a build of one more day takes, on histories of several lengths."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import shop
from benchmarks.build import Built, Warehouse, in_millions
from benchmarks.measure import Figure, in_process, short_rounds
from benchmarks.report import Plot, Ratio, Section, Table
from tools.warehouses.query_costs import costs


@dataclass(slots=True)
class History:
    """A warehouse with this many days, and the builds of later messages."""

    days: int
    warehouse: Warehouse
    messages: int
    first: list[float]
    """Seconds of a first `make build`."""
    next_day: list[tuple[int, Built]] = field(default_factory=list)
    """Messages and their build."""
    late: list[tuple[int, Built]] = field(default_factory=list)
    rows: tuple[int, int] = (0, 0)
    """Rows read and rewritten by the models when one more day is built."""

    @property
    def size(self) -> str:
        return in_millions(self.messages)


def increments(sizes: list[int], rounds: int, folder: Path) -> tuple[Section, Warehouse]:
    """Build one more day onto histories of these numbers of days, then as many messages that are up to 90 days late.

    Also returns the warehouse of the shortest history.
    """
    histories: list[History] = []
    landed = folder / "landed.duckdb"
    for days in sizes:
        warehouse = Warehouse(folder / f"history-{days}")
        warehouse.remove()
        warehouse.folder.mkdir(parents=True)
        has_late = days >= shop.LATE_DAYS
        messages = in_process(shop.land, warehouse.path, range(days), but_late_parts=1 if has_late else 0)
        if days == sizes[1]:
            shutil.copy(warehouse.path, landed)
        histories.append(History(days, warehouse, messages, [warehouse.build().run.seconds]))
    shortest, middle, longest = histories[0], histories[1], histories[-1]
    more_days = short_rounds(rounds)
    for number in range(more_days):
        if number and len(middle.first) < rounds:  # a ratio divides by this time, for which one build is too few
            anew = Warehouse(folder / "anew").copy_of(landed)
            middle.first.append(anew.build().run.seconds)
            anew.remove()
        for history in histories:
            day = history.days + number
            messages = in_process(shop.land, history.warehouse.path, range(day, day + 1))
            history.next_day.append((messages, history.warehouse.build()))
            if number == more_days - 1:
                touched = in_process(costs, history.warehouse.target, history.warehouse.path).values()
                history.rows = sum(read for read, _ in touched), sum(rewritten for _, rewritten in touched)
    for history in histories:
        if history.days >= shop.LATE_DAYS:
            messages = in_process(shop.land_late, history.warehouse.path, history.days, 0, history.days + more_days)
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
        "A day of messages is landed and built onto histories of several lengths in turn; then as many messages of the"
        " last 90 days of the history. A build runs all tests and publishes: immediately on a file system that shares"
        " blocks between copies (XFS, btrfs, APFS), otherwise by copying the warehouse. Rows read"
        " and rewritten are those of all incremental models, as DuckDB's EXPLAIN ANALYZE counts them. A day more is"
        " divided by the median first build.",
        [table, first],
        ratios,
        [Plot("increment", "A build of one more day, by history", "seconds", bars)],
    )
    return section, shortest.warehouse


def _paired(one: History, other: History, of: Any) -> list[float]:
    return [of(a) / of(b) for (_, a), (_, b) in zip(one.next_day, other.next_day, strict=True)]
