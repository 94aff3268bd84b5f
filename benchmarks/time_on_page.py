"""Time on page and first clicks: dbt's models compared with Apache Beam's DirectRunner on the same raw messages."""

import shutil
from pathlib import Path

import duckdb

from benchmarks import shop
from benchmarks.build import WITHOUT_TESTS, Built, Warehouse
from benchmarks.measure import Figure, Run, in_process, peer_python, run, short_rounds
from benchmarks.report import Ratio, Section, Table
from tools import ROOT

RESULTS = {
    "fct_page_views": (
        "session_key, event_id, event_at, page_title, sequence_number, time_on_page_seconds",
        "time_on_page*",
    ),
    "fct_checkout_attribution": ("checkout_id, checkout_at, first_click_id", "first_clicks*"),
}
"""Mart to its columns that Beam computes too, and the names of Beam's files."""


def time_on_page(days: int, rounds: int, folder: Path) -> Section:
    """Compute both results of the first `days` days from raw, with dbt and with Beam."""
    python = peer_python("beam")
    landed, warehouse, output = folder / "landed.duckdb", Warehouse(folder / "built"), folder / "beam"
    in_process(shop.land, landed, range(days))
    with duckdb.connect(str(landed), read_only=True) as connection:
        messages = sum(
            connection.sql(f"select count(*) from raw.{stream}").fetchall()[0][0]  # noqa: S608  names of ours
            for stream in ("page_views", "clicks", "checkouts")
        )
    beams: list[Run] = []
    builds: list[Built] = []
    for _ in range(short_rounds(rounds)):
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        script = ROOT / "benchmarks/peers/beam_time_on_page.py"
        beams.append(run(script, shop.FOLDER, str(days), output, python=python))
        selection = ("--select", *(f"+{mart}" for mart in RESULTS))
        builds.append(warehouse.copy_of(landed).build(*selection, *WITHOUT_TESTS))
        if differing := in_process(differing_rows, warehouse.path, output):
            raise ValueError(f"{differing:,} rows are only dbt's or only Beam's")
    warehouse.remove()
    landed.unlink()
    rows = {
        "dbt, DuckDB": ([one.run for one in builds], [one.node_seconds for one in builds]),
        "Beam, DirectRunner": (beams, [one.reported["seconds"] for one in beams]),
    }
    return Section(
        "Time on page and first click",
        f"The first {days} days, {messages:,} page views, clicks and checkouts, to sessionized time on page and"
        " first-click attribution: the same rows, compared in each round. dbt also builds what these models read of the"
        " other streams (fct_events holds all of them), Beam reads these three alone.",
        [
            Table(
                ["contender", "command, s", "without start-up, s", "CPU, s", "peak MiB"],
                [
                    [
                        name,
                        Figure([one.seconds for one in runs]),
                        Figure(inner),
                        Figure([one.cpu_seconds for one in runs]),
                        max(one.peak_mib for one in runs),
                    ]
                    for name, (runs, inner) in rows.items()
                ],
            )
        ],
        [
            Ratio(
                "time on page and first click: dbt / Beam, whole command",
                [build.run.seconds / beam.seconds for build, beam in zip(builds, beams, strict=True)],
            )
        ],
        peers={
            "Apache Beam": f"{beams[-1].reported['version']}, DirectRunner, multi_processing on all cores: Sessions and"
            " GroupByKey, CoGroupByKey (benchmarks/peers/beam_time_on_page.py)"
        },
    )


def differing_rows(warehouse: Path, output: Path) -> int:
    """How many rows of both results are only in the warehouse or only in Beam's output folder."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return sum(
            connection.execute(
                f"""
                with here as (select {columns} from analytics.{mart}),
                there as (select {columns} from read_parquet($files))
                select (select count(*) from (from here except all from there))
                    + (select count(*) from (from there except all from here))
                """,  # noqa: S608  names of ours
                {"files": str(output / files)},
            ).fetchall()[0][0]
            for mart, (columns, files) in RESULTS.items()
        )
