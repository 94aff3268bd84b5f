"""Pulls from Pub/Sub, and acknowledges only what the warehouse has committed."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from google.api_core.exceptions import (
    DeadlineExceeded,
    GoogleAPICallError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RetryError,
    Unauthenticated,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import PullResponse

from ingest.errors import UnavailableError, UserError
from ingest.message import NO_ATTRIBUTES, Batch, pubsub_table
from ingest.settings import Settings
from ingest.sources import LONGEST_FETCH_SECONDS
from ingest.streams import Stream

ANSWER_SECONDS = 10.0
"""How long Pub/Sub may take to answer a question before it counts as unreachable."""
PULL_SECONDS = 3.0
"""How long a pull waits for messages. Short, because `close` lets pulls end by themselves: the messages of a pull
that is cut off stay leased to nobody until their deadline."""
PULL_ROWS = 1_000
PULLERS_PER_STREAM = 4
LINGER_SECONDS = 0.05
"""A batch ends when nothing more arrived for this long."""
SILENCE_SECONDS = PULL_SECONDS + ANSWER_SECONDS + 1.0
"""After which a subscription that no pull and no question was answered for counts as unreachable."""
RETRY_SECONDS = 1.0
"""Between pulls after one that failed."""
LEASE_SECONDS = 60
"""By how much a message's deadline is extended while it waits for the commit."""
LEASE_MARGIN_SECONDS = 6.0
"""How long before its deadline a message is extended; the shortest deadline of a subscription is 10 seconds."""
LEASE_CHECK_SECONDS = 1.0
CHECK_SECONDS = 30.0
"""How often one thread of each stream looks at its subscription: whether its topic was deleted."""
DELETED_TOPIC = "_deleted-topic_"
"""Topic of a subscription whose topic was deleted."""
IDS_PER_REQUEST = 1_000
REQUESTS_AT_ONCE = 8

# A pull of large messages exceeds gRPC's own default of 4 MB.
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

log = structlog.get_logger()


def open_subscriber(settings: Settings) -> Any:
    """A client of Pub/Sub, or of the emulator.

    Raises:
        UserError: without credentials for Google Cloud.
    """
    if settings.pubsub_emulator_host is not None:
        # A channel of our own: the client library looks for the emulator in the environment only, not in `.env`.
        channel = grpc.insecure_channel(settings.pubsub_emulator_host, options=UNLIMITED)
        return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    try:
        return pubsub_v1.SubscriberClient()
    except GoogleAuthError as error:
        raise no_credentials(error) from error


def no_credentials(error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(
        f"no credentials for Pub/Sub: {reason}; for the emulator set PUBSUB_EMULATOR_HOST, "
        "then run `python -m ingest provision`"
    )


def unreachable(settings: Settings, error: Exception) -> UnavailableError:
    """Pub/Sub does not answer, or refuses: one line that says which server it is."""
    server = settings.pubsub_emulator_host or "pubsub.googleapis.com"
    reason = getattr(error, "message", None) or str(error)
    return UnavailableError(
        f"Pub/Sub at {server}, project {settings.pubsub_project}, failed: {reason.splitlines()[0]}; once it "
        "answers, `python -m ingest provision` creates what is missing"
    )


def topic_deleted(subscription: str) -> str:
    return (
        f"the topic of Pub/Sub {subscription} was deleted, so it receives nothing: delete the subscription, then create"
        " both again with `python -m ingest provision`"
    )


@dataclass(slots=True, eq=False)
class _Pulled:
    """What one pull brought: it waits in the buffer, then for its commit. Leased as a whole."""

    stream: str
    ack_ids: list[str]
    table: pa.Table
    expires: float
    """The monotonic time at which the deadline passes."""

    @property
    def rows(self) -> int:
        return len(self.ack_ids)


class PubSubSource:
    """Threads pull every subscription ahead of `fetch`, at most one batch ahead.

    While messages wait, in the buffer or for their commit, another thread extends their deadlines, so a slow commit
    does not make Pub/Sub deliver them again. A message that Pub/Sub delivers twice within one batch is landed once,
    and both deliveries are acknowledged.

    Pub/Sub does not tell whether anything is waiting: `fetch` returning None says that nothing arrived, and a caller
    that wants to drain a subscription gives it `idle_timeout_seconds`. A pull that brings nothing ends just as one
    that a hanging server leaves unanswered; so one thread of each stream then asks what has an answer at once.
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
        self._max_rows = settings.landing_max_rows
        self._max_bytes = settings.landing_max_bytes
        self._max_seconds = min(settings.landing_max_seconds, LONGEST_FETCH_SECONDS)

        self._changed = threading.Condition()
        """Guards everything below, and tells of messages, free space, errors and the end."""
        self._buffer: deque[_Pulled] = deque()
        self._buffered_rows = self._buffered_bytes = 0
        self._leased: set[_Pulled] = set()
        """All that is not acknowledged."""
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

        From `idle_timeout_seconds` on, None says too that every subscription has answered meanwhile. A single pull
        of more than LANDING_MAX_BYTES is not divided.

        Raises:
            UnavailableError: when none arrived because Pub/Sub does not answer.
            UserError: when a subscription is gone or refused.
        """
        started = time.monotonic()
        if not self._is_pulling:
            # not before, so that who only asks for `waiting` takes no messages from a loader that runs
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
        return self._batch(taken, is_end)

    def _wait_for_messages(self, started: float, timeout: float) -> bool:
        while self._error is None and not self._buffer:
            is_silent = timeout >= self.idle_timeout_seconds and not self._has_answered(started)
            wait = started + (max(timeout, SILENCE_SECONDS) if is_silent else timeout) - time.monotonic()
            if wait <= 0:
                if self._failing:
                    raise next(iter(self._failing.values()))
                if is_silent:
                    raise unreachable(self._settings, TimeoutError(f"no answer in {SILENCE_SECONDS:.0f} seconds"))
                return False
            self._changed.wait(wait)
        if self._error is not None:
            raise self._error
        return True

    def _take(self) -> list[_Pulled]:
        """Pulls for one batch."""
        taken: list[_Pulled] = []
        rows = size = 0
        until = time.monotonic() + self._max_seconds
        while True:
            while self._buffer:
                pulled = self._buffer[0]
                if taken and (rows + pulled.rows > self._max_rows or size + pulled.table.nbytes > self._max_bytes):
                    self._changed.notify_all()
                    return taken
                taken.append(self._buffer.popleft())
                rows += pulled.rows
                size += pulled.table.nbytes
                self._buffered_rows -= pulled.rows
                self._buffered_bytes -= pulled.table.nbytes
            self._changed.notify_all()  # there is space again
            wait = min(LINGER_SECONDS, until - time.monotonic())
            if rows == self._max_rows or wait <= 0 or not self._changed.wait_for(lambda: bool(self._buffer), wait):
                return taken

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledge every delivery of the batch; one that fails is delivered again."""
        with self._changed:
            self._leased.difference_update(batch.acknowledgement)
        self._request("acknowledge", batch.acknowledgement)

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
        self._request("modify_ack_deadline", self._leased, ack_deadline_seconds=0)
        self._requests.shutdown()
        self._client.close()

    def _ack_deadline(self, name: str) -> float:
        """Seconds until Pub/Sub delivers a message of this stream again."""
        subscription = self._subscriptions[name]
        try:
            found = self._client.get_subscription(subscription=subscription, timeout=ANSWER_SECONDS, retry=None)
        except NotFound as error:
            raise self._missing(subscription) from error
        except PermissionDenied:
            # A subscriber need not be allowed to look at the subscription; pulling shows whether it exists.
            return 10.0
        except InvalidArgument as error:
            raise UserError(str(unreachable(self._settings, error))) from error
        except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
            raise unreachable(self._settings, error) from error
        if found.topic == DELETED_TOPIC:
            if subscription not in self._orphans:
                log.error(topic_deleted(subscription), stream=name)
            self._orphans.add(subscription)
        return float(found.ack_deadline_seconds)

    def _missing(self, subscription: str) -> UserError:
        return UserError(f"Pub/Sub has no {subscription}; create it with `python -m ingest provision`")

    def _pull_forever(self, name: str, ack_deadline: float, asks: bool) -> None:
        """Fill the buffer with one stream's messages until `close`, or an error that waiting does not mend."""
        rows = min(PULL_ROWS, self._max_rows)
        checked_at = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._is_closed
                        or (self._buffered_rows + rows <= self._max_rows and self._buffered_bytes < self._max_bytes)
                    )
                )
                if self._is_closed:
                    return
            asked_at = time.monotonic()
            try:
                received = self._pull(name, rows)
                if asks and (received is None or time.monotonic() >= checked_at + CHECK_SECONDS):
                    self._ack_deadline(name)
                    checked_at = time.monotonic()
                pulled = None
                if received:
                    # Counted from the question: the deadline runs from when Pub/Sub sends.
                    expires = max(asked_at, time.monotonic() - PULL_SECONDS) + ack_deadline
                    ack_ids = [one.ack_id for one in received]
                    pulled = _Pulled(
                        name, ack_ids, _table(self._topics[name], [one.message for one in received]), expires
                    )
            except UnavailableError as error:
                with self._changed:
                    if name not in self._failing:
                        log.warning("pubsub pull failed, trying again", stream=name, error=str(error))
                    self._failing[name] = error
                    self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
                continue
            except UserError as error:
                return self._fail(error)
            except Exception as error:  # noqa: BLE001  without its thread, a stream would wait for ever
                return self._fail(_unexpected(f"pulling {self._subscriptions[name]}", error))
            with self._changed:
                if received is not None or asks:
                    self._heard_at[name] = time.monotonic()
                    self._failing.pop(name, None)
                if pulled is not None:
                    if pc.min(pulled.table["published_at"]).cast("int64").as_py() < self._opened_at:
                        self._old_arrived_at = time.monotonic()
                    self._leased.add(pulled)
                    self._buffer.append(pulled)
                    self._buffered_rows += pulled.rows
                    self._buffered_bytes += pulled.table.nbytes
                self._changed.notify_all()

    def _pull(self, name: str, rows: int) -> Sequence[Any] | None:
        """Received messages, plain protobuf: proto-plus wrappers cost more than everything else here. None when there
        was no answer in PULL_SECONDS, as when nothing waits."""
        subscription = self._subscriptions[name]
        try:
            response = self._client.pull(subscription=subscription, max_messages=rows, timeout=PULL_SECONDS, retry=None)
        except DeadlineExceeded:
            return None
        except NotFound as error:
            raise self._missing(subscription) from error
        except (PermissionDenied, Unauthenticated, InvalidArgument, GoogleAuthError) as error:
            raise UserError(str(unreachable(self._settings, error))) from error
        except (GoogleAPICallError, RetryError) as error:
            raise unreachable(self._settings, error) from error
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
                    now = time.monotonic()
                    expiring = [pulled for pulled in self._leased if pulled.expires < now + LEASE_MARGIN_SECONDS]
                    for pulled in expiring:
                        pulled.expires = now + LEASE_SECONDS
                self._request("modify_ack_deadline", expiring, ack_deadline_seconds=LEASE_SECONDS)
        except Exception as error:  # noqa: BLE001  without its thread, slow commits would land everything twice
            self._fail(_unexpected("extending the leases of Pub/Sub", error))

    def _request(self, method: str, pulls: Iterable[_Pulled], **arguments: int) -> None:
        """Call a method of the client for the ack ids, in parallel requests; failures are logged."""

        def call(name: str, chunk: Sequence[str]) -> None:
            try:
                getattr(self._client, method)(
                    subscription=self._subscriptions[name], ack_ids=chunk, timeout=ANSWER_SECONDS, **arguments
                )
            except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
                log.warning("pubsub will deliver messages again", stream=name, request=method, error=str(error))

        ack_ids: dict[str, list[str]] = defaultdict(list)
        for pulled in pulls:
            ack_ids[pulled.stream] += pulled.ack_ids
        chunks = [
            (name, ids[start : start + IDS_PER_REQUEST])
            for name, ids in ack_ids.items()
            for start in range(0, len(ids), IDS_PER_REQUEST)
        ]
        list(self._requests.map(lambda chunk: call(*chunk), chunks))

    def _batch(self, taken: list[_Pulled], is_end: bool = False) -> Batch:
        tables: dict[str, list[pa.Table]] = defaultdict(list)
        for pulled in taken:
            tables[pulled.stream].append(pulled.table)
        return Batch(
            {name: _each_once(pa.concat_tables(parts)) for name, parts in tables.items()},
            acknowledgement=taken,
            is_end=is_end,
        )


def _unexpected(what: str, error: Exception) -> UserError:
    return UserError(f"{what} failed: {type(error).__name__}: {error}")


def _each_once(table: pa.Table) -> pa.Table:
    """Without the repetitions of a message id."""
    if pc.count_distinct(table["message_id"]).as_py() == table.num_rows:
        return table
    first: dict[str, int] = {}
    for place, message_id in enumerate(table["message_id"].to_pylist()):
        first.setdefault(message_id, place)
    return table.take(list(first.values()))


def _table(topic: str, messages: Sequence[Any]) -> pa.Table:
    # Column by column: an object a message would cost as much as reading it.
    times = [message.publish_time for message in messages]
    attributes: list[Mapping[str, str]] = [message.attributes for message in messages]
    return pubsub_table(
        topic,
        [message.message_id for message in messages],
        [message.ordering_key for message in messages],
        # An empty map of a protobuf is slow to read.
        [dict(some) if some else NO_ATTRIBUTES for some in attributes],
        [time.seconds * 1_000_000 + time.nanos // 1000 for time in times],
        [message.data for message in messages],
    )
