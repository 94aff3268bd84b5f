"""How long it takes until a build begins, and how long one takes that has nothing to do."""

import shutil
from pathlib import Path

from benchmarks import shop
from benchmarks.build import Built, Warehouse
from benchmarks.measure import Figure, Run, apart, run, short_rounds
from benchmarks.report import Ratio, Section, Table

EMPTY_PROJECT = {
    "dbt_project.yml": "name: nothing\nversion: '1.0'\nprofile: nothing\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": "nothing: {target: dev, outputs: {dev: {type: duckdb, path: nothing.duckdb}}}\n",
}
DBT = "from dbt.cli.main import cli; cli()"
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9"}
"""`dbt --version` would ask PyPI for newer ones."""


def startup(rounds: int, warehouse: Warehouse, day: int, folder: Path) -> Section:
    """Builds of a warehouse whose last build is green, against dbt itself.

    Args:
        rounds: of what takes minutes.
        day: not landed yet; it is now, in small parts.
    """
    empty = folder / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir(parents=True)
    for name, text in EMPTY_PROJECT.items():
        (empty / name).write_text(text)
    messages = 0
    versions: list[Run] = []
    empties: list[Run] = []
    nothings: list[Run] = []
    news: list[Built] = []
    in_empty = ("--project-dir", empty, "--profiles-dir", empty)
    environment = {"DBT_LOG_PATH": str(empty / "logs")}
    run("-c", DBT, "build", *in_empty, environment=environment)  # parsed once
    for number in range(short_rounds(rounds)):
        versions.append(run("-c", DBT, "--version", environment=environment | NO_NETWORK))
        empties.append(run("-c", DBT, "build", *in_empty, environment=environment))
        nothings.append(warehouse.build().run)
        messages = apart(shop.land_part, warehouse.path, day, number)
        news.append(warehouse.build())
    rows = {
        "`dbt --version`, without a network": [one.seconds for one in versions],
        "`dbt build` of a project without nodes": [one.seconds for one in empties],
        "`make build`, nothing new": [one.seconds for one in nothings],
        "`make build` with news, until its first node": [one.starting_seconds for one in news],
        "`make build` with news, whole": [one.run.seconds for one in news],
    }
    return Section(
        "Start-up",
        f"The shortest history, its last build green. News are some {messages:,} messages, for which {news[-1].nodes}"
        " nodes and hooks run; the unit tests, which test the code alone, are left out where the code is that of the"
        " last green build.",
        [Table(["", "seconds"], [[name, Figure(values)] for name, values in rows.items()])],
        [
            Ratio(
                "`make build`, nothing new / `dbt --version`",
                [a.seconds / b.seconds for a, b in zip(nothings, versions, strict=True)],
            ),
            Ratio(
                "`make build` until its first node / `dbt build` of nothing",
                [a.starting_seconds / b.seconds for a, b in zip(news, empties, strict=True)],
            ),
        ],
    )
