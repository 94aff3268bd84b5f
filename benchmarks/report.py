"""Writes RESULTS.md with its plots, and results.json, which keeps the sections of other runs and their ratios."""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Figure, processor_times

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
FIGURES = FOLDER / "results.json"
PLOTS = FOLDER / "plots"
PACKAGES = ("dbt-core", "dbt-duckdb", "duckdb", "confluent-kafka", "google-cloud-pubsub", "pyarrow")
INTRODUCTION = """\
# Benchmark results

Written by `make bench`, which measures everything again, or one part with `--only`: each section begins with the
command that measured it. Two cores are enough; an idle machine gives steadier figures. The input is drawn by seed.
Contenders take turns, each in its own process. A figure is the median of the rounds, with minimum and maximum in
brackets; a ratio is the median of the ratios of each round. Peers are installed in their own environments in the
versions below, and are used as their documentation recommends.
"""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure divided by another of the same round."""

    name: str
    values: list[float]
    """One per round."""
    at_most: float | None = None
    at_least: float | None = None
    """The limit to reach, if any."""

    @property
    def figure(self) -> Figure:
        return Figure(self.values)

    @property
    def reach(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""

    @property
    def holds(self) -> str:
        if not self.reach:
            return ""
        above = self.at_most is None or self.figure.median <= self.at_most
        below = self.at_least is None or self.figure.median >= self.at_least
        return "yes" if above and below else "**no**"


@dataclass(frozen=True, slots=True)
class Table:
    columns: list[str]
    rows: list[list[str | int | Figure]]

    def __str__(self) -> str:
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)]]
        lines += [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True, slots=True)
class Plot:
    """A bar chart; bars with several parts are stacked."""

    name: str
    title: str
    unit: str
    bars: dict[str, dict[str, float]]
    """Label of a bar to its parts, by name."""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    text: str
    tables: list[Table]
    ratios: list[Ratio] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    peers: dict[str, str] = field(default_factory=dict)
    """Peer to its version and settings."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A section in results.json."""

    title: str
    text: str
    """Markdown, with the tables and plots."""
    ratios: list[Ratio]
    peers: dict[str, str]


def write(sections: list[Section], command: str, machine: str) -> None:
    """Write plots, RESULTS.md and results.json; sections of earlier runs with other titles stay as they are."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    measured = (
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine}. Python {platform.python_version()}, {packages}."
    )
    written = {one.title: one for one in _known()}
    for section in sections:
        parts = [measured, section.text, *map(str, section.tables)]
        parts += [f"![{plot.title}](plots/{draw(plot)})" for plot in section.plots]
        written[section.title] = _Written(section.title, "\n\n".join(parts), section.ratios, section.peers)
    FIGURES.write_text(json.dumps([asdict(one) for one in written.values()], indent=1) + "\n")
    peers = {name: described for one in written.values() for name, described in one.peers.items()}
    ratios = [ratio for one in written.values() for ratio in one.ratios]
    parts = [
        INTRODUCTION,
        "\n".join(f"- **{name}**: {described}" for name, described in sorted(peers.items())) + "\n",
        "## Ratios\n",
        f"{ratio_table(ratios)}\n",
        *(f"## {one.title}\n\n{one.text}\n" for one in written.values()),
    ]
    RESULTS.write_text("\n".join(parts))


def _known() -> list[_Written]:
    """The sections in results.json."""
    if not FIGURES.exists():
        return []
    known = json.loads(FIGURES.read_text())
    return [_Written(**{**one, "ratios": [Ratio(**ratio) for ratio in one["ratios"]]}) for one in known]


def ratio_table(ratios: list[Ratio]) -> Table:
    """The ratios with their limits."""
    return Table(
        ["ratio", "measured", "to reach", "holds"],
        [[ratio.name, ratio.figure, ratio.reach, ratio.holds] for ratio in ratios],
    )


def known_ratios() -> dict[str, Figure]:
    """The ratios in results.json."""
    return {ratio.name: ratio.figure for one in _known() for ratio in one.ratios}


def compare(ratios: list[Ratio], before: dict[str, Figure]) -> Table:
    """The ratios next to those of an earlier run."""
    rows: list[list[str | int | Figure]] = []
    for ratio in ratios:
        if ratio.name not in before:
            continue
        known = before[ratio.name]
        rows.append([ratio.name, known, ratio.figure, f"{ratio.figure.median / known.median - 1:+.0%}"])
    return Table(["ratio", "as in results.json", "now", "off by"], rows)


def machine(folder: Path, before: tuple[int, int] | None) -> str:
    """Cores, processor, memory, system, file system, and how much processor time the host took away.

    Args:
        folder: the folder of the warehouses.
        before: `processor_times` at the start of the run.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else [platform.processor()]
    )
    system = f"{platform.system()} {platform.release()}"
    described = f"{os.cpu_count()} cores of {names[0]}, {memory:.0f} GiB, {system}, warehouses on {file_system(folder)}"
    if before and (now := processor_times()):
        busy, steal = (later - earlier for earlier, later in zip(before, now, strict=True))
        described += f"; the host kept its processors waiting for {steal / busy:.1%} of their work"
    return described


def file_system(folder: Path) -> str:
    """The type of the file system of a folder, as findmnt reports it."""
    if not (findmnt := shutil.which("findmnt")):
        return "a file system of unknown type"
    command: list[str | Path] = [findmnt, "--noheadings", "--output", "FSTYPE", "--target", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def draw(plot: Plot) -> str:
    """Draw a plot; returns the name of its file."""
    import altair

    rows = [
        {"bar": bar, "part": part, "value": value, "order": order}
        for bar, parts in plot.bars.items()
        for order, (part, value) in enumerate(parts.items())
    ]
    parts = list(dict.fromkeys(part for bar in plot.bars.values() for part in bar))
    bars = altair.Y("bar:N", sort=list(plot.bars), title=None, axis=altair.Axis(labelLimit=300))
    base = altair.Chart(altair.InlineData(values=rows), title=altair.Title(plot.title, anchor="start"))
    colour = altair.Color("part:N", sort=parts, title=None, legend=altair.Legend(orient="bottom"))
    chart = base.mark_bar().encode(y=bars, x=altair.X("sum(value):Q", title=plot.unit), order="order:Q")
    totals = base.mark_text(align="left", dx=4).encode(
        y=bars, x="sum(value):Q", text=altair.Text("sum(value):Q", format=",.3~r")
    )
    PLOTS.mkdir(exist_ok=True)
    if len(parts) > 1:
        chart = chart.encode(color=colour)
    (chart + totals).properties(width=420, background="white").save(PLOTS / f"{plot.name}.svg")
    return f"{plot.name}.svg"
