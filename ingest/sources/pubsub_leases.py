"""Extends the deadlines of unacknowledged Pub/Sub messages, so that they are not delivered again."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from ingest.brokers.pubsub import GOOGLE_ERRORS, REQUEST_TIMEOUT_SECONDS
from ingest.sources.pubsub_batch import Pull

LEASE_SECONDS = 60
"""Seconds by which a deadline is extended."""
LEASE_MARGIN_SECONDS = 6.0
"""Seconds before a deadline at which it is extended; the shortest deadline of a subscription is 10 seconds."""
IDS_PER_REQUEST = 1_000

log = structlog.get_logger()


class Leases:
    """The pulls that are not acknowledged yet. Thread-safe.

    Args:
        client: a google.cloud.pubsub_v1.SubscriberClient.
        subscriptions: maps a stream name to the full resource name of its subscription.
        requests: the pool that runs requests in parallel.
    """

    def __init__(self, client: Any, subscriptions: Mapping[str, str], requests: ThreadPoolExecutor) -> None:
        self._client = client
        self._subscriptions = subscriptions
        self._requests = requests
        self._lock = threading.Lock()
        self._pulls: set[Pull] = set()

    def __len__(self) -> int:
        return len(self._pulls)

    def add(self, pull: Pull) -> None:
        with self._lock:
            self._pulls.add(pull)

    def acknowledge(self, pulls: Collection[Pull]) -> None:
        """Acknowledge every delivery of these pulls. If this fails, Pub/Sub delivers the messages again."""
        with self._lock:
            self._pulls.difference_update(pulls)
        self._request("acknowledge", pulls)

    def extend(self) -> None:
        """Extend the deadlines that pass within LEASE_MARGIN_SECONDS."""
        with self._lock:
            now = time.monotonic()
            expiring = [pull for pull in self._pulls if pull.expires < now + LEASE_MARGIN_SECONDS]
            for pull in expiring:
                pull.expires = now + LEASE_SECONDS
        self._request("modify_ack_deadline", expiring, ack_deadline_seconds=LEASE_SECONDS)

    def hand_back(self) -> None:
        """Release all pulls, so that Pub/Sub delivers their messages again at once."""
        self._request("modify_ack_deadline", self._pulls, ack_deadline_seconds=0)

    def _request(self, method: str, pulls: Iterable[Pull], **arguments: int) -> None:
        """Call a method of the client with the ack ids of these pulls, in parallel requests; log failures."""

        def call(name: str, chunk: Sequence[str]) -> None:
            try:
                getattr(self._client, method)(
                    subscription=self._subscriptions[name], ack_ids=chunk, timeout=REQUEST_TIMEOUT_SECONDS, **arguments
                )
            except GOOGLE_ERRORS as error:
                log.warning(
                    "pubsub request failed; its messages may be delivered again",
                    stream=name,
                    request=method,
                    error=str(error),
                )

        ack_ids: dict[str, list[str]] = defaultdict(list)
        for pull in pulls:
            ack_ids[pull.stream] += pull.ack_ids
        chunks = [
            (name, ids[start : start + IDS_PER_REQUEST])
            for name, ids in ack_ids.items()
            for start in range(0, len(ids), IDS_PER_REQUEST)
        ]
        list(self._requests.map(lambda chunk: call(*chunk), chunks))
