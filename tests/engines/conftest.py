"""Fixtures in separate virtual environments: bqemulator, which pins another version of DuckDB, and an old DuckDB."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tools.brokers import free_port
from tools.environments import environment

PINS = (
    "bqemulator==1.4.0",
    "duckdb==1.5.5",
    "duckdb-extensions==1.5.5",
    "duckdb-extension-spatial==1.5.5",
    "numpy==2.4.6",
)
LOAD_EXTENSION = "import duckdb, duckdb_extensions; duckdb_extensions.import_extension('spatial', con=duckdb.connect())"
OLDER_DUCKDB = "duckdb==1.2.0"
"""The oldest version that can read the files created by landing."""
START_SECONDS = 60.0


@pytest.fixture(scope="session")
def older_duckdb() -> Path:
    """Path of a Python with an old DuckDB."""
    return environment(OLDER_DUCKDB.replace("==", "-"), [OLDER_DUCKDB], "import duckdb") / "bin" / "python"


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the emulator; each test uses its own prefix of datasets."""
    folder = environment("bqemulator-1.4.0", PINS, LOAD_EXTENSION)
    log = tmp_path_factory.mktemp("bigquery") / "log"
    port = free_port()
    grpc_port = port + 10  # the sink expects the gRPC port there
    url = f"http://127.0.0.1:{port}"
    emulator = [folder / "bin" / "python", Path(__file__).with_name("emulator.py")]
    command = [*emulator, "start", "--rest-port", str(port), "--grpc-port", str(grpc_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, "HOME": str(folder)}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(f"{url}/bigquery/v2/projects/test-project/datasets"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, f"not ready within {START_SECONDS:.0f} s: {log.read_text()[-2000:]}"
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
