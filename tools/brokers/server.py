"""A server process on a loopback port: start it, wait until it answers, pause it, end it."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

START_SECONDS = 180.0
STOP_SECONDS = 30.0
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Less optimization by the JIT: the servers run for seconds to minutes, and start faster so."""


class BrokerError(Exception):
    """A server cannot be started."""


class MissingError(BrokerError):
    """Something that a server needs is not installed; the message says how to install it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def java() -> str:
    """The path of Java.

    Raises:
        MissingError: if it is not installed.
    """
    path = shutil.which("java")
    if path is None:
        raise MissingError("Java 17 is missing (Debian: apt-get install openjdk-17-jre-headless)")
    return path


class Server:
    """One process that serves a port, with its output in `log`. `stop` and `end` affect no other process."""

    def __init__(self, folder: Path, name: str, port: int | None) -> None:
        """Prepare a server; without a port, on a free one."""
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.port = free_port() if port is None else port
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            BrokerError: if the port is taken, or the process ends or does not answer in time.
        """
        raise NotImplementedError

    def _launch(self, command: list[str]) -> None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise BrokerError(f"port {self.port} is taken by another process")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise BrokerError(f"{command[0]} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        """Kill the process, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """Ask the process to end, and kill it if it takes longer than STOP_SECONDS."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.stop()

    def pause(self) -> None:
        """Stop the process without ending it, like a machine that hangs; `resume` continues it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


AnyServer = TypeVar("AnyServer", bound=Server)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Start the server, and kill it at the end of the block."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
