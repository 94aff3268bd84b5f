"""How long a build takes to start, and how long a build without new messages takes."""

import shutil
from pathlib import Path

from benchmarks import shop
from benchmarks.build import Built, Warehouse
from benchmarks.measure import Figure, Run, in_process, run, short_rounds
from benchmarks.report import Ratio, Section, Table

EMPTY_PROJECT = {
    "dbt_project.yml": "name: nothing\nversion: '1.0'\nprofile: nothing\nflags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": "nothing: {target: dev, outputs: {dev: {type: duckdb, path: nothing.duckdb}}}\n",
}
DBT = "from dbt.cli.main import cli; cli()"
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9"}
"""Without this, `dbt --version` queries PyPI for newer versions."""


def startup(rounds: int, warehouse: Warehouse, day: int, folder: Path) -> Section:
    """Builds of a warehouse whose last build was successful, compared with dbt itself.

    Args:
        rounds: rounds of the parts that take minutes.
        day: a day that has not landed; a small part of it lands before each build.
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
    with_new: list[Built] = []
    in_empty = ("--project-dir", empty, "--profiles-dir", empty)
    environment = {"DBT_LOG_PATH": str(empty / "logs")}
    run("-c", DBT, "build", *in_empty, environment=environment)  # so that the project is parsed
    for number in range(short_rounds(rounds)):
        versions.append(run("-c", DBT, "--version", environment=environment | NO_NETWORK))
        empties.append(run("-c", DBT, "build", *in_empty, environment=environment))
        nothings.append(warehouse.build().run)
        messages = in_process(shop.land_part, warehouse.path, day, number)
        with_new.append(warehouse.build())
    rows = {
        "`dbt --version`, without a network": [one.seconds for one in versions],
        "`dbt build` of a project without nodes": [one.seconds for one in empties],
        "`make build`, nothing new": [one.seconds for one in nothings],
        "`make build` with new messages, until its first node": [one.starting_seconds for one in with_new],
        "`make build` with new messages, whole": [one.run.seconds for one in with_new],
    }
    return Section(
        "Start-up",
        f"The shortest history, after a successful build. About {messages:,} messages are new, for which"
        f" {with_new[-1].nodes} nodes and hooks run. Unit tests do not run, since the code is that of the last"
        " successful build.",
        [Table(["", "seconds"], [[name, Figure(values)] for name, values in rows.items()])],
        [
            Ratio(
                "`make build`, nothing new / `dbt --version`",
                [a.seconds / b.seconds for a, b in zip(nothings, versions, strict=True)],
            ),
            Ratio(
                "`make build` until its first node / `dbt build` of nothing",
                [a.starting_seconds / b.seconds for a, b in zip(with_new, empties, strict=True)],
            ),
        ],
    )
