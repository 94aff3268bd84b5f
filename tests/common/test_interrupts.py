"""Ctrl-C ends every command without a traceback: while its modules are imported, and afterwards."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import ROOT
from tools.warehouses.commands import Warehouse

SCRIPT = """
import runpy, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == interrupted:
            signal.raise_signal(signal.SIGINT)

interrupted = sys.argv.pop(1)
sys.argv.pop(0)
sys.meta_path.insert(0, Finder)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Ctrl-C is pressed when the module of this name is first imported."""


def interrupted_at(module: str, *command: str, warehouse: Warehouse) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, module, *command],
        cwd=ROOT,
        env=warehouse.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", ["pathlib", "rich.console", "common.settings", "pydantic_settings", "duckdb"])
@pytest.mark.parametrize("command", [["ingest", "land"], ["serve", "query"], ["dbt_project", "build"]])
def test_while_modules_are_imported_it_ends_the_process(tmp_path: Path, module: str, command: list[str]) -> None:
    done = interrupted_at(module, *command, warehouse=Warehouse(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("ingest.landing", ["ingest", "land"]),
        ("ingest.sources.spool", ["ingest", "land"]),
        ("ingest.push", ["ingest", "push", "--port", "0"]),
        ("uvicorn", ["serve", "--port", "0"]),
        ("dbt.artifacts.schemas.run", ["dbt_project", "build"]),
        ("dbt.adapters.duckdb", ["dbt_project", "build"]),
    ],
)
def test_in_a_command_it_is_exit_code_130(shop: Warehouse, tmp_path: Path, module: str, command: list[str]) -> None:
    done = interrupted_at(module, *command, warehouse=shop.copy_to(tmp_path / "copy"))
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
