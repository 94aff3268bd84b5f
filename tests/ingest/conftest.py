"""Fixtures: a spool and a warehouse per test, and `python -m ingest` as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.settings import Settings

PROJECT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, spool_path=tmp_path / "spool", warehouse_path=tmp_path / "warehouse.duckdb")


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m ingest ARGUMENTS` with the settings of the test; keywords are environment variables. Processes
    that still run after the test are killed."""
    started: list[subprocess.Popen[str]] = []
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(PROJECT),
        "SPOOL_PATH": str(settings.spool_path),
        "WAREHOUSE_PATH": str(settings.warehouse_path),
    }

    def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest", *arguments],
            cwd=tmp_path,  # a folder without a .env file
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
