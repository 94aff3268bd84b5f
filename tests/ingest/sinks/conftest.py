"""bqemulator in a virtual environment of its own, since it pins another DuckDB than ours."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.brokers import free_port

CACHE = Path(__file__).parents[3] / ".cache"
PINS = (
    "bqemulator==1.4.0",
    "duckdb==1.5.5",
    "duckdb-extensions==1.5.5",
    "duckdb-extension-spatial==1.5.5",
    "numpy==2.4.6",
)
START_SECONDS = 60.0


def _environment() -> Path:
    """The virtual environment, made the first time."""
    folder = CACHE / "bqemulator-1.4.0"
    environment = {**os.environ, "HOME": str(folder)}  # where DuckDB looks for its extensions
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / "bin" / "python"
        load_extension = (
            "import duckdb, duckdb_extensions; duckdb_extensions.import_extension('spatial', con=duckdb.connect())"
        )
        for command in (
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS],
            [python, "-c", load_extension],
        ):
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
            assert result.returncode == 0, result.stderr[-2000:]
        (folder / "ready").touch()
    return folder


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL; tests use datasets of their own prefix."""
    folder = _environment()
    log = tmp_path_factory.mktemp("bigquery") / "log"
    port = free_port()
    grpc_port = port + 10  # where the sink looks for it
    url = f"http://127.0.0.1:{port}"
    command = [folder / "bin" / "bqemulator", "start", "--rest-port", str(port), "--grpc-port", str(grpc_port)]
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
