"""Runs contenders as separate processes, and measures their time and memory."""

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
    """Wall time from start to end."""
    cpu_seconds: float
    peak_mib: int
    """Maximum resident memory of the process, or of one that it waited for."""
    output: str
    started_at: float
    """Seconds since the epoch."""

    @property
    def reported(self) -> Any:
        """The JSON in the last line of its output."""
        return json.loads(self.output.strip().rpartition("\n")[2])


def run(*command: str | Path, environment: dict[str, str] | None = None, python: Path | None = None) -> Run:
    """Run Python (this one unless another is given) with these arguments in the project's folder.

    Pending writes of earlier processes are flushed first, so that this one does not wait for them.

    Raises:
        subprocess.CalledProcessError: if it fails; the end of its output is printed.
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
    """Processor time of this machine since its start, and the part that its host took away (steal), in ticks.

    Source: proc_stat(5). None on systems without /proc.
    """
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return user + nice + system + irq + softirq + steal, steal


def short_rounds(rounds: int, times: int = 2) -> int:
    """Rounds of a part that takes seconds: more than of one that takes minutes, as it is easily disturbed.

    A single round stays one.
    """
    return rounds * times if rounds > 1 else 1


def in_process(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function in another process.

    Otherwise the memory of this process would count in the peak memory of the processes that it starts.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments, options)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a contender in each round."""

    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return _short(self.values[0])
        return f"{_short(self.median)} ({_short(min(self.values))}-{_short(max(self.values))})"


def _short(value: float) -> str:
    """Three significant digits, or an integer with all digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def peer_python(name: str) -> Path:
    """The Python of a peer's virtual environment, which is created from its pins the first time."""
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
