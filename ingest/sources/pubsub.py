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
from engines.batch import Batch
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
from ingest.sources.pubsub_batch import Pull, pulled_table, to_batch
from ingest.sources.pubsub_leases import Leases

PULL_SECONDS = 3.0
"""Seconds that a pull waits for messages. `close` waits for running pulls, as the messages of an aborted pull would not
be delivered again before their deadline; so this is short."""
PULL_ROWS = 1_000
PULLERS_PER_STREAM = 4
CAUGHT_UP_ROWS = 100
CAUGHT_UP_SECONDS = 2.0
"""A pull with fewer messages than CAUGHT_UP_ROWS, none of them older than this, leaves no others waiting."""
PULL_PAUSE_SECONDS = 0.2
"""Pause of a thread after such a pull. Otherwise each thread would pull one or two messages at a time, which takes more
processor time than all other steps of landing."""
LINGER_SECONDS = 0.05
"""A batch ends when no message arrived for this many seconds."""
SILENCE_TIMEOUT_SECONDS = PULL_SECONDS + REQUEST_TIMEOUT_SECONDS + 1.0
"""Seconds without an answer to a pull or a request after which a subscription counts as unreachable."""
RETRY_SECONDS = 1.0
"""Seconds between a failed pull and the next one."""
LEASE_CHECK_SECONDS = 1.0
CHECK_SECONDS = 30.0
"""Seconds between two checks whether the topic of a subscription was deleted."""
REQUESTS_AT_ONCE = 8

log = structlog.get_logger()


class PubSubSource:
    """Pulls subscriptions with several threads each, which fill a buffer of at most one batch for `fetch`.

    Another thread extends the deadlines of messages until they are committed, so that Pub/Sub does not deliver them
    again during a slow commit. A message that is delivered twice within one batch is landed once, and both deliveries
    are acknowledged.

    Pub/Sub does not report whether messages are waiting. A caller that wants to drain a subscription fetches until
    nothing arrives for `idle_timeout_seconds`. An empty pull looks like a hung server, so one thread per stream sends a
    cheap probe after it.

    Failed pulls are retried in a loop, without tenacity: the error is also reported to `fetch`, and `close` interrupts
    the pause.
    """

    idle_timeout_seconds = 5.0

    def __init__(self, settings: Settings, streams: Sequence[Stream]) -> None:
        """Check that the subscriptions exist. Pulling begins with the first fetch.

        Raises:
            UserError: if Pub/Sub does not answer, or a subscription is missing.
        """
        self._settings = settings
        self._topics = {stream.name: settings.topic(stream) for stream in streams}
        self._subscriptions = {stream.name: settings.subscription(stream) for stream in streams}
        self._orphans: set[str] = set()
        """Subscriptions whose topic was deleted."""
        self._bounds = BatchBounds.for_fetch(settings)

        self._changed = threading.Condition()
        """Lock of the attributes below; notified of new messages, free space in the buffer, errors and `close`."""
        self._buffer: deque[Pull] = deque()
        self._buffered = BatchSize(self._bounds)
        self._answered_at = dict.fromkeys(self._topics, 0.0)
        """Maps a stream name to the monotonic time, in seconds, of Pub/Sub's last answer."""
        self._failing: dict[str, UnavailableError] = {}
        """Maps the name of a stream whose last pull failed to the error."""
        self._opened_at = time.time() * 1_000_000
        """Time at which the source was opened, in microseconds since the epoch."""
        self._backlog_arrived_at = time.monotonic()
        """Monotonic time, in seconds, at which the last message arrived that was published before `_opened_at`."""
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
        """One line per subscription whose topic was deleted: its remaining messages land, but no others will arrive."""
        return [topic_deleted(subscription) for subscription in sorted(self._orphans)]

    def fetch(self, timeout: float) -> Batch | None:
        """Return the next messages; None if none arrived for `timeout` seconds.

        With a timeout of at least `idle_timeout_seconds`, None also means that every subscription has answered
        meanwhile. A single pull above LANDING_MAX_BYTES is not divided.

        Raises:
            UnavailableError: if no message arrived because Pub/Sub does not answer.
            UserError: if a subscription was deleted, or this client may not pull it.
        """
        started = time.monotonic()
        if not self._is_pulling:
            # Pulling starts here, so that `status` does not take messages from a running loader.
            self._is_pulling = True
            self._backlog_arrived_at = started
            for thread in self._threads:
                thread.start()
        with self._changed:
            if not self._wait_for_messages(started, timeout):
                return None
            pulls = self._take_batch()
            is_end = (
                not (self._buffer or self._failing)
                and time.monotonic() - self._backlog_arrived_at >= self.idle_timeout_seconds
                and self._has_answered(self._backlog_arrived_at)
            )
        return to_batch(pulls, is_end=is_end)

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

    def _take_batch(self) -> list[Pull]:
        """Remove the pulls of one batch from the buffer, and return them."""
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
            self._changed.notify_all()  # the buffer has free space
            wait = min(LINGER_SECONDS, size.seconds_left)
            if size.is_full or wait <= 0 or not self._changed.wait_for(lambda: bool(self._buffer), wait):
                return taken

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledge every delivery of the batch. If this fails, Pub/Sub delivers the messages again."""
        self._leases.acknowledge(batch.acknowledgement)

    def waiting(self) -> dict[str, int | None]:
        """Return None for each stream: only Cloud Monitoring has the number, with a delay of minutes."""
        return dict.fromkeys(self._topics)

    def oldest_waiting(self) -> dict[str, datetime | None]:
        return dict.fromkeys(self._topics)

    def close(self) -> None:
        """Release unacknowledged messages for immediate redelivery. Takes up to PULL_SECONDS."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads if self._is_pulling else ():
            thread.join()
        self._leases.hand_back()
        self._requests.shutdown()
        self._client.close()

    def _ack_deadline(self, name: str) -> float:
        """Return the ack deadline of a stream's subscription, in seconds; log it if its topic was deleted."""
        subscription = self._subscriptions[name]
        with translate_errors(self._settings, permanent=(InvalidArgument,)):
            try:
                found = self._client.get_subscription(
                    subscription=subscription, timeout=REQUEST_TIMEOUT_SECONDS, retry=None
                )
            except NotFound as error:
                raise not_found(subscription) from error
            except PermissionDenied:
                # Reading a subscription's settings needs another permission than pulling; without it, assume the
                # shortest deadline.
                return 10.0
        if found.topic == DELETED_TOPIC:
            if subscription not in self._orphans:
                log.error(topic_deleted(subscription), stream=name)
            self._orphans.add(subscription)
        return float(found.ack_deadline_seconds)

    def _pull_forever(self, name: str, ack_deadline: float, probes: bool) -> None:
        """Pull one stream into the buffer until `close`, or until an error that a retry cannot fix.

        Args:
            probes: whether this thread sends the probes of the stream.
        """
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
                    # Pub/Sub counts the deadline from when it sends the messages, which may be as early as the request.
                    expires = max(asked_at, time.monotonic() - PULL_SECONDS) + ack_deadline
                    ack_ids = [one.ack_id for one in received]
                    table = pulled_table(self._topics[name], [one.message for one in received])
                    pulled = Pull(name, ack_ids, table, expires)
            except UnavailableError as error:
                with self._changed:
                    if name not in self._failing:
                        log.warning("pubsub pull failed; retrying", stream=name, error=str(error))
                    self._failing[name] = error
                    self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
                continue
            except UserError as error:
                return self._fail(error)
            except Exception as error:  # noqa: BLE001  `fetch` would wait forever for a thread that died silently
                return self._fail(_unexpected(f"pulling {self._subscriptions[name]}", error))
            is_caught_up = False
            with self._changed:
                if received is not None or probes:
                    self._answered_at[name] = time.monotonic()
                    self._failing.pop(name, None)
                if pulled is not None:
                    oldest = pc.min(pulled.table["published_at"]).cast("int64").as_py()
                    if oldest < self._opened_at:
                        self._backlog_arrived_at = time.monotonic()
                    is_new = oldest >= (time.time() - CAUGHT_UP_SECONDS) * 1_000_000
                    is_caught_up = pulled.rows < CAUGHT_UP_ROWS and is_new
                    self._leases.add(pulled)
                    self._buffer.append(pulled)
                    self._buffered.add(pulled.rows, pulled.table.nbytes)
                self._changed.notify_all()
            if is_caught_up:
                time.sleep(PULL_PAUSE_SECONDS)

    def _pull(self, name: str, rows: int) -> Sequence[Any] | None:
        """Pull messages; None if Pub/Sub does not answer within PULL_SECONDS, as when no message is waiting.

        They are plain protobuf, since proto-plus wrappers would cost more than all other steps together.
        """
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
        return min(self._answered_at.values()) >= since

    def _fail(self, error: UserError) -> None:
        with self._changed:
            if self._error is None:
                log.error("pubsub source failed", reason=str(error))
            self._error = error
            self._changed.notify_all()

    def _extend_forever(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closed, LEASE_CHECK_SECONDS):
                        return
                self._leases.extend()
        except Exception as error:  # noqa: BLE001  without this thread, Pub/Sub would redeliver during slow commits
            self._fail(_unexpected("extending the deadlines of Pub/Sub messages", error))


def _unexpected(what: str, error: Exception) -> UserError:
    return UserError(f"{what} failed: {type(error).__name__}: {error}")
