"""A DuckDB warehouse in a folder, used through commands in other processes, as a user does.

Builds use the build server, which is faster; `run("dbt_project", ...)` starts a build as a user does.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from tools import ROOT
from tools.warehouses import build_server

SETTINGS = (
    *("KAFKA_", "PUBSUB_", "EMIT_", "WAREHOUSE", "SPOOL_", "LANDING_", "DBT_", "BUILD_PREFIX"),
    *("LIVE_", "SERVE_", "STREAMS", "TOPICS", "SUBSCRIPTIONS", "UMASK"),
)
"""Prefixes of the environment variables that are not inherited."""
MARTS_NOT_COMPARED = ("dim_countries", "dim_dates", "stream_freshness")
"""Marts that are not made from messages."""


@dataclass(frozen=True)
class Warehouse:
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    """More environment variables than the paths."""

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        return {
            **inherited,
            "WAREHOUSE_PATH": str(self.path),
            "SPOOL_PATH": str(self.folder / "spool"),
            "DBT_TARGET_PATH": str(self.folder / "target"),
            "DBT_LOG_PATH": str(self.folder / "logs"),
            **self.settings,
        }

    def copy_to(self, folder: Path) -> "Warehouse":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Warehouse(folder, self.settings)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", *arguments]

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        return _as_expected(done, expect)

    def simulate(self, days: int, events_per_day: int = 2_000, *options: str) -> None:
        self.run("ingest", "simulate", "--days", str(days), "--events-per-day", str(events_per_day), *options)

    def land(self) -> None:
        self.run("ingest", "land")

    def build(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Build, test and publish everything."""
        return self.dbt("build", *arguments, expect=expect)

    def run_models(self, *arguments: str) -> None:
        """Build seeds and models only, in half the time of `build`."""
        self.dbt("build", "--exclude-resource-type", "test", "unit_test", "snapshot", *arguments)

    def dbt(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return _as_expected(build_server.run([*arguments], self.environment), expect)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            return connection.sql(sql).fetchall()

    def change(self, sql: str) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)

    def marts(self) -> dict[str, int]:
        """Rows of every table and view of the schema analytics."""
        names = self.query("select table_name from information_schema.tables where table_schema = 'analytics'")
        return {str(name): int(str(self.query(f"select count(*) from analytics.{name}")[0][0])) for (name,) in names}

    def differences(self, other: "Warehouse") -> dict[str, tuple[int, int]]:
        """Mart to its numbers of rows only here and only in the other warehouse, for marts that differ."""
        differences = {}
        marts = [mart for mart in self.marts() if mart not in MARTS_NOT_COMPARED]
        with duckdb.connect() as connection:
            connection.execute(f"attach '{self.path}' as here (read_only)")
            connection.execute(f"attach '{other.path}' as there (read_only)")
            for mart in marts:
                only = [
                    connection.sql(
                        f"select count(*) from (from {one}.analytics.{mart} except all from {two}.analytics.{mart})"
                    ).fetchall()[0][0]
                    for one, two in (("here", "there"), ("there", "here"))
                ]
                if any(only):
                    differences[mart] = (only[0], only[1])
        return differences


def _as_expected(done: subprocess.CompletedProcess[str], returncode: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == returncode, f"{done.args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
