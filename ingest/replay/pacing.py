"""Divides the messages of a replay into batches, without pauses or at the pace at which the events happened."""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from ingest.message import Message

MESSAGES_PER_PUBLISH = 1_000
"""Messages per batch, few enough for the CPU cache: with 10,000, the spool loses a third of its throughput."""


def batches(messages: Iterator[Message], stop: threading.Event) -> Iterator[Iterable[Message]]:
    """Yield batches as lazy iterators. Consume each batch before you ask for the next."""
    for message in messages:
        if stop.is_set():
            return
        yield chain((message,), islice(messages, MESSAGES_PER_PUBLISH - 1))


def paced_batches(messages: Iterator[Message], speed: float, stop: threading.Event) -> Iterator[Iterable[Message]]:
    """Yield the messages that are due, then pause until the next one is due.

    Args:
        speed: how many times faster than the events happened; 1 for their own pace.
    """
    started = time.monotonic()
    first: int | None = None
    batch: list[Message] = []
    for message in messages:
        if message.published_at is not None:
            first = message.published_at if first is None else first
            due = started + (message.published_at - first) / 1_000_000 / speed
            if due > time.monotonic():
                if batch:
                    yield batch
                    batch = []
                # The caller spent part of the pause on producing the batch.
                stop.wait(max(0.0, due - time.monotonic()))
        if stop.is_set():
            return
        batch.append(message)
        if len(batch) >= MESSAGES_PER_PUBLISH:
            yield batch
            batch = []
    if batch:
        yield batch
