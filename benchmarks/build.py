"""A timed `python -m dbt_project build` of a warehouse in a folder of its own."""

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.measure import Run, run

WITHOUT_TESTS = ("--exclude-resource-type", "test", "unit_test", "snapshot")


@dataclass(frozen=True, slots=True)
class Built:
    """A build by dbt."""

    run: Run
    starting_seconds: float
    """Until the first node."""
    node_seconds: float
    """From the first node's start to the last one's end."""
    nodes: int

    @property
    def ending_seconds(self) -> float:
        """After the last node: publishing, and the table of the marts."""
        return self.run.seconds - self.starting_seconds - self.node_seconds


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A DuckDB file in a folder, with the files that builds write next to it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def copy_of(self, landed: Path) -> "Warehouse":
        """Replace the warehouse by a copy of one that has only raw tables."""
        self.remove()
        self.folder.mkdir(parents=True)
        shutil.copy(landed, self.path)
        return self

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def build(self, *options: str, **settings: str) -> Built:
        """Run `python -m dbt_project build` and measure it."""
        environment = {
            "WAREHOUSE_PATH": str(self.path),
            "SPOOL_PATH": str(self.folder / "spool"),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(self.folder / "logs"),
        }
        results = self.target / "run_results.json"
        results.unlink(missing_ok=True)
        done = run("-m", "dbt_project", "build", *options, environment=environment | settings)
        if not results.exists():  # there were no new messages
            return Built(done, done.seconds, 0.0, 0)
        times = [
            _seconds_since_epoch(step[end])
            for one in json.loads(results.read_text())["results"]
            for step in one["timing"]
            for end in ("started_at", "completed_at")
        ]
        nodes = len(json.loads(results.read_text())["results"])
        return Built(done, min(times) - done.started_at, max(times) - min(times), nodes)


def _seconds_since_epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def in_millions(messages: int) -> str:
    return f"{messages / 1e6:.0f}M" if messages >= 1e6 else f"{messages / 1e6:.1f}M"
