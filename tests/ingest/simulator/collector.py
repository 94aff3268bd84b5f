"""Runs the simulator and keeps the messages in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

from common.settings import Settings
from common.streams import STREAMS, Stream
from ingest.message import Message
from ingest.simulator import Faults, simulate

START = date(2026, 1, 1)
DAY = 86_400_000_000
FIRST = 1_767_225_600_000_000
"""2026-01-01 in microseconds since the epoch."""
EVENT_STREAMS = ["web_events", "page_views", "clicks", "checkouts", "ecom_events", "post_events"]
CLEAN = Faults.none()
EVENTS = 2_000


@dataclass
class Collector:
    """A producer that keeps its messages in memory, and can raise an error after a number of them."""

    messages: dict[str, list[Message]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    batches: list[tuple[str, list[Message]]] = field(default_factory=list)
    dies_after: int | None = None

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        batch: list[Message] = []
        self.batches.append((stream.name, batch))
        for message in messages:
            if self.dies_after is not None and sum(map(len, self.messages.values())) >= self.dies_after:
                raise KeyboardInterrupt
            batch.append(message)
            self.messages[stream.name].append(message)
        return len(batch)

    def bodies(self, stream: str) -> list[dict[str, Any]]:
        return [orjson.loads(message.payload) for message in self.messages[stream] if message.payload is not None]


def run(folder: Path, producer: Any = None, **changes: Any) -> Collector:
    producer = Collector() if producer is None else producer
    options = {"days": 1, "seed": 7, "events_per_day": EVENTS, "start": START, "faults": CLEAN} | changes
    simulate(Settings(spool_path=folder), producer, **options)
    return producer


def at(text: str) -> int:
    """Parse a time as in the bodies; returns microseconds since the epoch."""
    moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1_000_000)
