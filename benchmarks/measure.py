"""Runs contenders as processes of their own, and puts what they took in numbers."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any, TypeVar

from tools import ROOT

CACHE = ROOT / ".cache"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command."""

    seconds: float
    """Of wall time, from start to end."""
    cpu_seconds: float
    peak_mib: int
    """The most memory that the process, or one that it waited for, had resident."""
    output: str
    started_at: float
    """Seconds since the epoch."""

    @property
    def said(self) -> Any:
        """What it printed as JSON, in its last line."""
        return json.loads(self.output.strip().rpartition("\n")[2])


def run(*command: str | Path, environment: dict[str, str] | None = None, python: Path | None = None) -> Run:
    """Run Python (this one unless another is given) with these arguments to its end, in the project's folder.

    What others have left to write is written before, so that nobody waits for it but they.

    Raises:
        subprocess.CalledProcessError: when it fails; what it printed last is printed.
    """
    os.sync()
    started, started_at = time.monotonic(), time.time()
    arguments = [str(python or sys.executable), *map(str, command)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "WAREHOUSE"))}
    with TemporaryFile("w+") as printed, TemporaryFile("w+") as logged:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=inherited | (environment or {}), stdout=printed, stderr=logged, text=True
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        printed.seek(0)
        logged.seek(0)
        output = printed.read()
        if process.returncode:
            print(output[-2000:], logged.read()[-2000:], sep="\n", file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, arguments, output)
    peak = used.ru_maxrss // (1024 if sys.platform == "linux" else 1024 * 1024)
    return Run(seconds, used.ru_utime + used.ru_stime, peak, output, started_at)


def processor_times() -> tuple[int, int] | None:
    """For how long processes of this machine had something to run, and for how much of it the host let them wait
    (steal), in ticks since it started. Source: proc_stat(5). None where the system does not tell.
    """
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return user + nice + system + irq + softirq + steal, steal


def short_rounds(rounds: int, times: int = 2) -> int:
    """Of what takes seconds, so many times the `rounds` of what takes minutes, since little is enough to disturb it; a
    single round stays one.
    """
    return rounds * times if rounds > 1 else 1


def apart(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Do it in a process of its own: a process that is large would lend its size to the peak memory of those it
    starts."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments, options)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contender took of one thing, over the rounds."""

    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return _short(self.values[0])
        return f"{_short(self.median)} ({_short(min(self.values))}-{_short(max(self.values))})"


def _short(value: float) -> str:
    """Three digits, or all of a whole number."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def peer_python(name: str) -> Path:
    """The Python of a peer's own virtual environment, which is made of its pins the first time."""
    requirements = Path(__file__).parent / "peers" / f"requirements-{name}.txt"
    folder = CACHE / "peers" / name
    ready = folder / "ready"
    python = folder / "bin" / "python"
    if not ready.exists() or ready.read_text() != requirements.read_text():
        print(f"setting up {folder.relative_to(ROOT)} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install: list[str | Path] = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            requirements,
        ]
        subprocess.run([python, *install], check=True)
        ready.write_text(requirements.read_text())
    return python
