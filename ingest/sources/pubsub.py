"""Pulls from Pub/Sub, and acknowledges only what the warehouse has committed."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc  # type: ignore[import-untyped]
import pyarrow as pa
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
from ingest.message import Batch, PubSubMessage, pubsub_table
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
RETRY_SECONDS = 1.0
"""Between pulls after one that failed."""
LEASE_SECONDS = 60
"""By how much a message's deadline is extended while it waits for the commit."""
LEASE_MARGIN_SECONDS = 6.0
"""How long before its deadline a message is extended; the shortest deadline of a subscription is 10 seconds."""
LEASE_CHECK_SECONDS = 1.0
IDS_PER_REQUEST = 1_000
NO_ATTRIBUTES: dict[str, str] = {}
"""To read an empty map of a protobuf takes longer than the rest of a message."""
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


@dataclass(slots=True)
class _Pulled:
    """A message that waits in the buffer."""

    stream: str
    ack_id: str
    message: Any
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.message.data)


class PubSubSource:
    """Threads pull every subscription ahead of `fetch`, at most one batch ahead.

    While messages wait, in the buffer or for their commit, another thread extends their deadlines, so a slow commit
    does not make Pub/Sub deliver them again. A message that Pub/Sub delivers twice within one batch is landed once,
    and both deliveries are acknowledged.

    Pub/Sub does not tell whether anything is waiting: `fetch` returning None says that nothing arrived, and a caller
    that wants to drain a subscription gives it some seconds.
    """

    drained_after_seconds = 5.0

    def __init__(self, settings: Settings, streams: Sequence[Stream]) -> None:
        """Check the subscriptions; pulling begins with the first fetch.

        Raises:
            UserError: when Pub/Sub does not answer, or does not have a subscription.
        """
        self._settings = settings
        self._topics = {stream.name: settings.topic(stream) for stream in streams}
        self._subscriptions = {
            stream.name: f"projects/{settings.pubsub_project}/subscriptions/{settings.subscription(stream)}"
            for stream in streams
        }
        self._max_rows = settings.landing_max_rows
        self._max_bytes = settings.landing_max_bytes
        self._max_seconds = min(settings.landing_max_seconds, LONGEST_FETCH_SECONDS)

        self._changed = threading.Condition()
        """Guards everything below, and tells of messages, free space, errors and the end."""
        self._buffer: deque[_Pulled] = deque()
        self._buffered_bytes = 0
        self._leases: dict[str, dict[str, float]] = {name: {} for name in self._topics}
        """Stream to ack id to the monotonic time at which its deadline passes; all that is not acknowledged."""
        self._unheard = set(self._topics)
        """Streams that no pull has answered for yet."""
        self._failing: dict[str, UserError] = {}
        """Streams whose last pull failed, and how."""
        self._opened_at = time.time()
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
                target=self._pull_forever, args=(name, deadlines[name]), name=f"pubsub-{name}", daemon=True
            )
            for name in self._topics
            for _ in range(PULLERS_PER_STREAM)
        ]
        self._threads.append(threading.Thread(target=self._extend_forever, name="pubsub-leases", daemon=True))
        self._is_pulling = False

    def fetch(self, timeout: float) -> Batch | None:
        """The next messages; None when none arrived for `timeout` seconds.

        The first call waits at least until every subscription has answered a pull (PULL_SECONDS at most).

        Raises:
            UnavailableError: when none arrived because Pub/Sub does not answer.
            UserError: when a subscription is gone or refused.
        """
        if not self._is_pulling:
            # not before, so that who only asks for `waiting` takes no messages from a loader that runs
            self._is_pulling = True
            self._old_arrived_at = time.monotonic()
            for thread in self._threads:
                thread.start()
        started = time.monotonic()
        with self._changed:
            if self._error is not None:
                raise self._error
            while not self._buffer:
                if self._error is not None:
                    raise self._error
                patience = max(timeout, PULL_SECONDS) if self._unheard else timeout
                wait = started + patience - time.monotonic()
                if wait <= 0:
                    self._unheard.clear()
                    if self._failing:
                        raise next(iter(self._failing.values()))
                    return None
                self._changed.wait(wait)
            taken: list[_Pulled] = []
            size = 0
            until = time.monotonic() + self._max_seconds
            while True:
                is_full = False
                while self._buffer and not is_full:
                    is_full = len(taken) == self._max_rows or bool(
                        taken and size + self._buffer[0].size > self._max_bytes
                    )
                    if not is_full:
                        pulled = self._buffer.popleft()
                        self._buffered_bytes -= pulled.size
                        size += pulled.size
                        taken.append(pulled)
                self._changed.notify_all()  # there is space again
                wait = min(LINGER_SECONDS, until - time.monotonic())
                if is_full or len(taken) == self._max_rows or wait <= 0:
                    break
                if not self._changed.wait_for(lambda: bool(self._buffer), wait):
                    break
            is_end = (
                not (self._buffer or self._failing)
                and time.monotonic() - self._old_arrived_at >= self.drained_after_seconds
            )
        return self._batch(taken, is_end)

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledge every delivery of the batch; one that fails is delivered again."""
        with self._changed:
            for name, ack_ids in batch.acknowledgement.items():
                for ack_id in ack_ids:
                    self._leases[name].pop(ack_id, None)
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
        self._request(
            "modify_ack_deadline", {name: list(leases) for name, leases in self._leases.items()}, ack_deadline_seconds=0
        )
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
        except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
            raise unreachable(self._settings, error) from error
        return float(found.ack_deadline_seconds)

    def _missing(self, subscription: str) -> UserError:
        return UserError(f"Pub/Sub has no {subscription}; create it with `python -m ingest provision`")

    def _pull_forever(self, name: str, ack_deadline: float) -> None:
        """Fill the buffer with one stream's messages until `close`, or an error that waiting does not mend."""
        subscription = self._subscriptions[name]
        rows = min(PULL_ROWS, self._max_rows)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._is_closed
                        or (len(self._buffer) + rows <= self._max_rows and self._buffered_bytes < self._max_bytes)
                    )
                )
                if self._is_closed:
                    return
            asked_at = time.monotonic()
            try:
                response = self._client.pull(
                    subscription=subscription, max_messages=rows, timeout=PULL_SECONDS, retry=None
                )
            except DeadlineExceeded:
                received: Sequence[Any] = ()
            except NotFound:
                return self._fail(self._missing(subscription))
            except (PermissionDenied, Unauthenticated, InvalidArgument, GoogleAuthError) as error:
                return self._fail(UserError(str(unreachable(self._settings, error))))
            except (GoogleAPICallError, RetryError) as error:
                with self._changed:
                    if name not in self._failing:
                        log.warning("pubsub pull failed, trying again", stream=name, error=error.message)
                    self._failing[name] = unreachable(self._settings, error)
                    self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001  without its thread, a stream would wait for ever
                return self._fail(UserError(f"pulling {subscription} failed: {type(error).__name__}: {error}"))
            else:
                # The plain protobuf: proto-plus wrappers cost more than everything else here.
                received = PullResponse.pb(response).received_messages
            pulled = [_Pulled(name, one.ack_id, one.message) for one in received]
            is_old = any(one.message.publish_time.seconds < self._opened_at for one in received)
            with self._changed:
                self._unheard.discard(name)
                self._failing.pop(name, None)
                if is_old:
                    self._old_arrived_at = time.monotonic()
                # Counted from the question: the deadline runs from when Pub/Sub sends.
                expires = max(asked_at, time.monotonic() - PULL_SECONDS) + ack_deadline
                self._leases[name].update((one.ack_id, expires) for one in pulled)
                self._buffer.extend(pulled)
                self._buffered_bytes += sum(one.size for one in pulled)
                self._changed.notify_all()

    def _fail(self, error: UserError) -> None:
        with self._changed:
            if self._error is None:
                log.error("pubsub stream ends", reason=str(error))
            self._error = error
            self._changed.notify_all()

    def _extend_forever(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, LEASE_CHECK_SECONDS):
                    return
                now = time.monotonic()
                expiring = {
                    name: [ack_id for ack_id, expires in leases.items() if expires < now + LEASE_MARGIN_SECONDS]
                    for name, leases in self._leases.items()
                }
                for name, ack_ids in expiring.items():
                    self._leases[name].update(dict.fromkeys(ack_ids, now + LEASE_SECONDS))
            self._request("modify_ack_deadline", expiring, ack_deadline_seconds=LEASE_SECONDS)

    def _request(self, method: str, ack_ids: dict[str, list[str]], **arguments: int) -> None:
        """Call a method of the client for ack ids by stream, in parallel requests; failures are logged."""

        def call(name: str, chunk: Iterable[str]) -> None:
            try:
                getattr(self._client, method)(
                    subscription=self._subscriptions[name], ack_ids=list(chunk), timeout=ANSWER_SECONDS, **arguments
                )
            except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
                log.warning("pubsub will deliver messages again", stream=name, request=method, error=str(error))

        chunks = [
            (name, ids[start : start + IDS_PER_REQUEST])
            for name, ids in ack_ids.items()
            for start in range(0, len(ids), IDS_PER_REQUEST)
        ]
        list(self._requests.map(lambda chunk: call(*chunk), chunks))

    def _batch(self, taken: list[_Pulled], is_end: bool = False) -> Batch:
        ack_ids: dict[str, list[str]] = defaultdict(list)
        messages: dict[str, dict[str, Any]] = defaultdict(dict)
        for pulled in taken:
            ack_ids[pulled.stream].append(pulled.ack_id)
            messages[pulled.stream].setdefault(pulled.message.message_id, pulled.message)
        tables = {name: _table(self._topics[name], list(once.values())) for name, once in messages.items()}
        return Batch(tables, acknowledgement=dict(ack_ids), is_end=is_end)


def _table(topic: str, messages: list[Any]) -> pa.Table:
    return pubsub_table(
        topic,
        [
            PubSubMessage(
                message.message_id,
                message.ordering_key,
                dict(message.attributes) if message.attributes else NO_ATTRIBUTES,
                _microseconds(message.publish_time),
                message.data,
            )
            for message in messages
        ],
    )


def _microseconds(time: Any) -> int:
    microseconds: int = time.seconds * 1_000_000 + time.nanos // 1000
    return microseconds
