"""RESULTS.md shows the results, and the next run compares its ratios with results.json."""

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measure import Figure, processor_times
from benchmarks.report import Plot, Ratio, Section, Table


@pytest.mark.parametrize(
    ("ratio", "reach", "holds"),
    [
        (Ratio("a", [1.0, 9.0, 1.2], at_most=1.3), "at most 1.3", "yes"),
        (Ratio("a", [1.4], at_most=1.3), "at most 1.3", "**no**"),
        (Ratio("a", [0.5, 0.6, 0.1], at_least=0.55), "at least 0.55", "**no**"),
        (Ratio("a", [0.55], at_least=0.55), "at least 0.55", "yes"),
        (Ratio("a", [7.0]), "", ""),
    ],
)
def test_a_ratio_holds_by_its_median(ratio: Ratio, reach: str, holds: str) -> None:
    assert (ratio.reach, ratio.holds) == (reach, holds)


def test_figures_have_three_digits() -> None:
    assert str(Figure([0.123456])) == "0.12"
    assert str(Figure([12.34, 11.11, 99.9])) == "12.3 (11.1-99.9)"
    assert str(Figure([123456.7])) == "123,457"


def test_the_machine_shows_the_time_that_its_host_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "processor_times", lambda: (500, 30))
    assert report.machine(tmp_path, (100, 10)).endswith("; the host kept its processors waiting for 5.0% of their work")
    assert "the host" not in report.machine(tmp_path, None), "where the system has no counts"
    if times := processor_times():
        assert times[0] > times[1] >= 0


def test_the_next_run_compares_its_ratios_with_results_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("RESULTS", "RESULTS.md"), ("FIGURES", "results.json"), ("PLOTS", "plots")):
        monkeypatch.setattr(report, name, tmp_path / file)
    monkeypatch.setattr(report, "draw", lambda plot: f"{plot.name}.svg")
    first = [Ratio("build / floor", [1.0, 1.2, 1.1], at_most=1.3), Ratio("gone", [1.0])]
    assert report.compare(first, report.known_ratios()).rows == [], "there is nothing to compare with"
    table = Table(["", "seconds", "rows"], [["dbt", Figure([2.0]), 1_000_000]])
    plot = Plot("build", "Build", "seconds", {"dbt": {"": 2.0}})
    report.write([Section("A build", "Of much.", [table], first, [plot], {"peer": "1.0"})], "make bench", "2 cores")
    written = report.RESULTS.read_text()
    for expected in (
        "`make bench` on ",
        ": 2 cores. Python ",
        "| build / floor | 1.10 (1.00-1.20) | at most 1.3 | yes |",
        "## A build\n\n`make bench` on ",
        "\n\nOf much.",
        "| dbt | 2.00 | 1,000,000 |",
        "![Build](plots/build.svg)",
        "- **peer**: 1.0",
    ):
        assert expected in written
    [row] = report.compare([Ratio("build / floor", [1.21]), Ratio("new", [1.0])], report.known_ratios()).rows
    assert row == ["build / floor", Figure([1.0, 1.2, 1.1]), Figure([1.21]), "+10%"]


def test_a_run_of_one_part_keeps_the_sections_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("RESULTS", "RESULTS.md"), ("FIGURES", "results.json")):
        monkeypatch.setattr(report, name, tmp_path / file)
    both = [Section(title, "Old.", [], [Ratio(title, [1.0])]) for title in ("A build", "Live")]
    report.write(both, "all", "2 cores")
    report.write([Section("A build", "New.", [], [Ratio("A build", [2.0])])], "one", "4 cores")
    written = report.RESULTS.read_text()
    assert written.index("New.") < written.index("Old."), "sections keep their places"
    assert written.count("Old.") == 1
    assert "`one` on" in written and "4 cores" in written and "`all` on" in written
    assert report.known_ratios() == {"A build": Figure([2.0]), "Live": Figure([1.0])}
