"""`python -m live` on a warehouse, as a process: start it, ask it over HTTP, kill it, end it."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from common.live_status import LiveStatus, read_live_status
from tools import ROOT
from tools.brokers import free_port
from tools.warehouses.commands import Warehouse

START_SECONDS = 300.0
"""A first build on a busy machine takes two minutes."""
STOP_SECONDS = 60.0


def wait_for(condition: Callable[[], object], seconds: float = START_SECONDS, what: str = "it") -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.1)


class LiveProcess:
    """The live process of a warehouse, on free ports.

    Args:
        options: of the command line, such as `--rate`.
    """

    def __init__(self, warehouse: Warehouse, *options: str) -> None:
        self._warehouse = warehouse
        self.port, self.dashboard_port, self.metrics_port = free_port(), free_port(), free_port()
        self.command = warehouse.command("live", "--port", str(self.port))
        self.command += ["--dashboard-port", str(self.dashboard_port), "--metrics-port", str(self.metrics_port)]
        self.command += options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The log of all its processes."""
        return self._warehouse.folder / "live.log"

    @property
    def log_events(self) -> list[str]:
        """What the log says happened."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{") and line.endswith("}")]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self._warehouse.environment, stdout=subprocess.DEVNULL, stderr=log
            )

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        assert self.process is not None, "it was not started"
        return self.process

    def kill(self) -> None:
        """Kill the process, as a crash would, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        """Ask the process to end, which it must do with exit code 0."""
        self.running.terminate()
        try:
            code = self.running.wait(STOP_SECONDS)
        finally:
            self.kill()
        assert code == 0, f"it ended with {code}: {self.last_lines}"

    @property
    def last_lines(self) -> str:
        return self.log.read_text()[-3000:]

    def get(self, path: str, port: int | None = None) -> tuple[int, bytes]:
        """The status and body of a page of the endpoints, or of another port.

        Raises:
            OSError: if nothing answers.
        """
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    @property
    def version(self) -> str:
        """The version that the endpoints answer from; empty while there is none, or nothing answers."""
        with suppress(OSError, HTTPException):
            status, body = self.get("/healthz")
            if status == 200:
                return str(json.loads(body)["version"])
        return ""

    @property
    def status(self) -> LiveStatus | None:
        """What the process reports; None while it does not run."""
        return read_live_status(self._warehouse.path.with_name(f"{self._warehouse.path.name}.published"))

    def ask(self, query: str, **arguments: object) -> list[dict[str, Any]]:
        """The rows that a query answers."""
        status, body = self.get(f"/v0/pipes/{query}.json?{urlencode(arguments)}")
        assert status == 200, body
        rows: list[dict[str, Any]] = json.loads(body)["data"]
        return rows

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        body = self.get("/metrics", self.metrics_port)[1].decode()
        found = re.search(rf"^{name} (\S+)$", body, re.MULTILINE)
        assert found, f"there is no metric {name}"
        return float(found[1])

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
        """Wait for a condition while the process runs."""

        def holds() -> bool:
            assert self.running.poll() is None, f"it ended: {self.last_lines}"
            return bool(condition())

        try:
            wait_for(holds, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.last_lines}") from None

    def wait_for_versions(self, count: int, seconds: float = START_SECONDS) -> None:
        """Wait until the endpoints have answered from this many new versions."""
        seen = {self.version}

        def have_come() -> bool:
            seen.add(self.version)
            return len(seen) > count

        self.wait_for(have_come, f"publishing {count} versions", seconds)
