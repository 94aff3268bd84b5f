"""Pulls from Pub/Sub, and acknowledges only what the warehouse has committed."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pyarrow.compute as pc
import structlog
from google.api_core.exceptions import DeadlineExceeded, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1.types import PullResponse

from common.errors import UnavailableError, UserError
from common.settings import Settings
from common.streams import Stream
from ingest.batching import BatchBounds, BatchSize
from ingest.brokers.pubsub import (
    DELETED_TOPIC,
    REQUEST_TIMEOUT_SECONDS,
    not_found,
    open_subscriber,
    topic_deleted,
    translate_errors,
    unreachable,
)
from ingest.message import Batch
from ingest.sources.pubsub_batch import Pull, pulled_table, to_batch
from ingest.sources.pubsub_leases import Leases

PULL_SECONDS = 3.0
"""How long a pull waits for messages. Short, because `close` lets pulls end by themselves: the messages of a pull
that is cut off stay leased to nobody until their deadline."""
PULL_ROWS = 1_000
PULLERS_PER_STREAM = 4
LINGER_SECONDS = 0.05
"""A batch ends when nothing more arrived for this long."""
SILENCE_TIMEOUT_SECONDS = PULL_SECONDS + REQUEST_TIMEOUT_SECONDS + 1.0
"""A subscription for which no pull and no request was answered for this long counts as unreachable."""
RETRY_SECONDS = 1.0
"""Time to the next pull after one that failed."""
LEASE_CHECK_SECONDS = 1.0
CHECK_SECONDS = 30.0
"""How often one thread of each stream checks whether the topic of its subscription was deleted."""
REQUESTS_AT_ONCE = 8

log = structlog.get_logger()


class PubSubSource:
    """Threads pull every subscription ahead of `fetch`, at most one batch ahead.

    While messages wait, in the buffer or for their commit, another thread extends their deadlines, so a slow commit
    does not make Pub/Sub deliver them again. A message that Pub/Sub delivers twice within one batch is landed once,
    and both deliveries are acknowledged.

    Pub/Sub does not report whether anything is waiting: `fetch` returns None when nothing arrived, and a caller that
    wants to drain a subscription passes `idle_timeout_seconds`. An empty pull looks like a hung server, so one thread
    per stream sends a cheap probe after it.
    """

    idle_timeout_seconds = 5.0

    def __init__(self, settings: Settings, streams: Sequence[Stream]) -> None:
        """Check the subscriptions; pulling begins with the first fetch.

        Raises:
            UserError: when Pub/Sub does not answer, or does not have a subscription.
        """
        self._settings = settings
        self._topics = {stream.name: settings.topic(stream) for stream in streams}
        self._subscriptions = {stream.name: settings.subscription(stream) for stream in streams}
        self._orphans: set[str] = set()
        """Subscriptions whose topic was deleted."""
        self._bounds = BatchBounds.for_fetch(settings)

        self._changed = threading.Condition()
        """Guards everything below, and signals messages, free space, errors and the end."""
        self._buffer: deque[Pull] = deque()
        self._buffered = BatchSize(self._bounds)
        self._heard_at = dict.fromkeys(self._topics, 0.0)
        """Stream to the monotonic time of its last answer."""
        self._failing: dict[str, UnavailableError] = {}
        """Streams whose last pull failed, and how."""
        self._opened_at = time.time() * 1_000_000
        """In microseconds since the epoch."""
        self._old_arrived_at = time.monotonic()
        """When a message that was published before the source was opened arrived last."""
        self._error: UserError | None = None
        self._is_closed = False

        self._client = open_subscriber(settings)
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, "pubsub-request")
        self._leases = Leases(self._client, self._subscriptions, self._requests)
        try:
            deadlines = dict(zip(self._topics, self._requests.map(self._ack_deadline, self._topics), strict=True))
        except UserError:
            self._requests.shutdown()
            self._client.close()
            raise
        self._threads = [
            threading.Thread(
                target=self._pull_forever,
                args=(name, deadlines[name], number == 0),
                name=f"pubsub-{name}",
                daemon=True,
            )
            for name in self._topics
            for number in range(PULLERS_PER_STREAM)
        ]
        self._threads.append(threading.Thread(target=self._extend_forever, name="pubsub-leases", daemon=True))
        self._is_pulling = False

    @property
    def problems(self) -> list[str]:
        """One line per subscription whose topic was deleted: what it holds is landed, and nothing else will come."""
        return [topic_deleted(subscription) for subscription in sorted(self._orphans)]

    def fetch(self, timeout: float) -> Batch | None:
        """The next messages; None when none arrived for `timeout` seconds.

        From `idle_timeout_seconds` on, None means too that every subscription has answered meanwhile. A single pull
        of more than LANDING_MAX_BYTES is not divided.

        Raises:
            UnavailableError: when none arrived because Pub/Sub does not answer.
            UserError: when a subscription is gone or refused.
        """
        started = time.monotonic()
        if not self._is_pulling:
            # Not before, so that `status` does not take messages from a running loader.
            self._is_pulling = True
            self._old_arrived_at = started
            for thread in self._threads:
                thread.start()
        with self._changed:
            if not self._wait_for_messages(started, timeout):
                return None
            taken = self._take()
            is_end = (
                not (self._buffer or self._failing)
                and time.monotonic() - self._old_arrived_at >= self.idle_timeout_seconds
                and self._has_answered(self._old_arrived_at)
            )
        return to_batch(taken, is_end=is_end)

    def _wait_for_messages(self, started: float, timeout: float) -> bool:
        while self._error is None and not self._buffer:
            is_silent = timeout >= self.idle_timeout_seconds and not self._has_answered(started)
            wait = started + (max(timeout, SILENCE_TIMEOUT_SECONDS) if is_silent else timeout) - time.monotonic()
            if wait <= 0:
                if self._failing:
                    raise next(iter(self._failing.values()))
                if is_silent:
                    raise unreachable(
                        self._settings, TimeoutError(f"no answer in {SILENCE_TIMEOUT_SECONDS:.0f} seconds")
                    )
                return False
            self._changed.wait(wait)
        if self._error is not None:
            raise self._error
        return True

    def _take(self) -> list[Pull]:
        """Take the pulls of one batch out of the buffer."""
        taken: list[Pull] = []
        size = BatchSize(self._bounds)
        while True:
            while self._buffer:
                pull = self._buffer[0]
                if not size.fits(pull.rows, pull.table.nbytes):
                    self._changed.notify_all()
                    return taken
                taken.append(self._buffer.popleft())
                size.add(pull.rows, pull.table.nbytes)
                self._buffered.remove(pull.rows, pull.table.nbytes)
            self._changed.notify_all()  # there is space again
            wait = min(LINGER_SECONDS, size.seconds_left)
            if size.is_full or wait <= 0 or not self._changed.wait_for(lambda: bool(self._buffer), wait):
                return taken

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledge every delivery of the batch; one that fails is delivered again."""
        self._leases.acknowledge(batch.acknowledgement)

    def waiting(self) -> dict[str, int | None]:
        """None for each stream: only Cloud Monitoring knows, minutes late."""
        return dict.fromkeys(self._topics)

    def oldest_waiting(self) -> dict[str, datetime | None]:
        return dict.fromkeys(self._topics)

    def close(self) -> None:
        """Hand back what was not acknowledged, for immediate redelivery. Takes up to PULL_SECONDS."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads if self._is_pulling else ():
            thread.join()
        self._leases.hand_back()
        self._requests.shutdown()
        self._client.close()

    def _ack_deadline(self, name: str) -> float:
        """Seconds until Pub/Sub delivers a message of this stream again."""
        subscription = self._subscriptions[name]
        with translate_errors(self._settings, permanent=(InvalidArgument,)):
            try:
                found = self._client.get_subscription(
                    subscription=subscription, timeout=REQUEST_TIMEOUT_SECONDS, retry=None
                )
            except NotFound as error:
                raise not_found(subscription) from error
            except PermissionDenied:
                # A subscriber need not be allowed to look at the subscription; pulling shows whether it exists.
                return 10.0
        if found.topic == DELETED_TOPIC:
            if subscription not in self._orphans:
                log.error(topic_deleted(subscription), stream=name)
            self._orphans.add(subscription)
        return float(found.ack_deadline_seconds)

    def _pull_forever(self, name: str, ack_deadline: float, probes: bool) -> None:
        """Fill the buffer with one stream's messages until `close`, or an error that waiting does not mend."""
        rows = min(PULL_ROWS, self._bounds.rows)
        checked_at = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or (self._buffered.rows_left >= rows and self._buffered.bytes_left > 0)
                )
                if self._is_closed:
                    return
            asked_at = time.monotonic()
            try:
                received = self._pull(name, rows)
                if probes and (received is None or time.monotonic() >= checked_at + CHECK_SECONDS):
                    self._ack_deadline(name)
                    checked_at = time.monotonic()
                pulled = None
                if received:
                    # Counted from the request: the deadline runs from when Pub/Sub sends.
                    expires = max(asked_at, time.monotonic() - PULL_SECONDS) + ack_deadline
                    ack_ids = [one.ack_id for one in received]
                    table = pulled_table(self._topics[name], [one.message for one in received])
                    pulled = Pull(name, ack_ids, table, expires)
            except UnavailableError as error:
                with self._changed:
                    if name not in self._failing:
                        log.warning("pubsub pull failed, trying again", stream=name, error=str(error))
                    self._failing[name] = error
                    self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
                continue
            except UserError as error:
                return self._fail(error)
            except Exception as error:  # noqa: BLE001  without its thread, a stream would wait forever
                return self._fail(_unexpected(f"pulling {self._subscriptions[name]}", error))
            with self._changed:
                if received is not None or probes:
                    self._heard_at[name] = time.monotonic()
                    self._failing.pop(name, None)
                if pulled is not None:
                    if pc.min(pulled.table["published_at"]).cast("int64").as_py() < self._opened_at:
                        self._old_arrived_at = time.monotonic()
                    self._leases.add(pulled)
                    self._buffer.append(pulled)
                    self._buffered.add(pulled.rows, pulled.table.nbytes)
                self._changed.notify_all()

    def _pull(self, name: str, rows: int) -> Sequence[Any] | None:
        """Received messages, plain protobuf: proto-plus wrappers cost more than everything else here. None when there
        was no answer in PULL_SECONDS, as when nothing waits."""
        subscription = self._subscriptions[name]
        permanent = PermissionDenied, Unauthenticated, InvalidArgument, GoogleAuthError
        with translate_errors(self._settings, permanent):
            try:
                response = self._client.pull(
                    subscription=subscription, max_messages=rows, timeout=PULL_SECONDS, retry=None
                )
            except DeadlineExceeded:
                return None
            except NotFound as error:
                raise not_found(subscription) from error
        received: Sequence[Any] = PullResponse.pb(response).received_messages
        return received

    def _has_answered(self, since: float) -> bool:
        return min(self._heard_at.values()) >= since

    def _fail(self, error: UserError) -> None:
        with self._changed:
            if self._error is None:
                log.error("pubsub stream ends", reason=str(error))
            self._error = error
            self._changed.notify_all()

    def _extend_forever(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closed, LEASE_CHECK_SECONDS):
                        return
                self._leases.extend()
        except Exception as error:  # noqa: BLE001  without its thread, slow commits would land everything twice
            self._fail(_unexpected("extending the leases of Pub/Sub", error))


def _unexpected(what: str, error: Exception) -> UserError:
    return UserError(f"{what} failed: {type(error).__name__}: {error}")
