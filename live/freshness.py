"""How long messages take from their publication until they are in the answers, per stream and step."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from engines.warehouse import Arrivals, FreshnessRow
from live.telemetry import FRESHNESS

STEPS = ("landing", "waiting", "building", "publishing", "total")


@dataclass(frozen=True, slots=True)
class Published:
    """The times of one published version, in Unix seconds."""

    build_started_at: float
    build_ended_at: float
    visible_at: float


class Freshness:
    """Measures the messages of each version, and sums them up per minute."""

    def __init__(self) -> None:
        self._minute: datetime | None = None
        self._measured: dict[str, list[npt.NDArray[np.float64]]] = {}

    def add(self, arrivals: Mapping[str, Arrivals], times: Published) -> list[FreshnessRow]:
        """Measure the messages that a version is the first to have.

        Args:
            arrivals: by stream, when these messages were published and when they landed.

        Returns:
            The rows of the minute that has ended, if one has.
        """
        ended: list[FreshnessRow] = []
        minute = datetime.fromtimestamp(times.visible_at, UTC).replace(second=0, microsecond=0, tzinfo=None)
        if minute != self._minute:
            if self._minute is not None:
                ended = self._rows(self._minute)
            self._minute, self._measured = minute, {}
        for stream, (published_at, landed_at) in arrivals.items():
            steps = np.empty((len(STEPS), len(published_at)))
            steps[0] = landed_at - published_at
            steps[1] = times.build_started_at - landed_at
            steps[2] = times.build_ended_at - times.build_started_at
            steps[3] = times.visible_at - times.build_ended_at
            steps[4] = times.visible_at - published_at
            steps = np.maximum(steps, 0)  # the clocks of a broker and of this machine may differ
            for step, seconds in zip(STEPS, steps, strict=True):
                histogram = FRESHNESS.labels(stream, step)
                for one in seconds:
                    histogram.observe(one)
            self._measured.setdefault(stream, []).append(steps)
        return ended

    def _rows(self, minute: datetime) -> list[FreshnessRow]:
        rows = []
        for stream, parts in self._measured.items():
            steps = np.concatenate(parts, axis=1)
            p95 = dict(zip(STEPS, np.quantile(steps, 0.95, axis=1).round(3).tolist(), strict=True))
            rows.append(
                FreshnessRow(
                    stream=stream,
                    minute_at=minute,
                    messages=steps.shape[1],
                    p50_seconds=round(float(np.median(steps[-1])), 3),
                    p95_seconds=p95["total"],
                    max_seconds=round(float(steps[-1].max()), 3),
                    p95_landing_seconds=p95["landing"],
                    p95_waiting_seconds=p95["waiting"],
                    p95_building_seconds=p95["building"],
                    p95_publishing_seconds=p95["publishing"],
                )
            )
        return rows
