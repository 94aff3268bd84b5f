"""Produces to Pub/Sub."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from google.api_core.exceptions import (
    Aborted,
    InternalServerError,
    NotFound,
    ResourceExhausted,
    ServiceUnavailable,
)
from google.api_core.retry import Retry, if_exception_type
from google.pubsub_v1.types import PublishRequest, PubsubMessage

from common.settings import Settings
from common.streams import Stream
from ingest.brokers.pubsub import not_found, open_publisher, translate_errors
from ingest.message import Message
from ingest.producers import MessageTooLargeError

REQUEST_ROWS = 1_000
REQUEST_BYTES = 4_000_000
"""Pub/Sub accepts 1000 messages and 10 MB per request."""
MESSAGE_BYTES = 10_000_000 - 1_000
"""Maximum size of a message, so that it fits into a request with the topic's name."""
REQUESTS_AT_ONCE = 4
DELIVERY_TIMEOUT_SECONDS = 60.0
RETRY = Retry(
    predicate=if_exception_type(Aborted, InternalServerError, ResourceExhausted, ServiceUnavailable),
    timeout=DELIVERY_TIMEOUT_SECONDS,
)
"""The client's own default tries for ten minutes."""

_Message = PubsubMessage.pb()


class PubSubProducer:
    """Produces with the attributes of each message, in requests of many messages, several at once.

    Pub/Sub sets the time of publishing itself and promises no order: `published_at` is not kept, nor is the key.
    It has no tombstones either: a payload of None arrives as an empty one.
    """

    def __init__(self, settings: Settings) -> None:
        """Open a client; the first request shows whether Pub/Sub answers.

        Raises:
            UserError: without credentials for Google Cloud.
        """
        self._settings = settings
        self._client = open_publisher(settings)
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, "pubsub-publish")
        self._under_way: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if not exc or exc[0] is None:
                self.flush()
        finally:
            self._requests.shutdown(cancel_futures=True)
            self._client.transport.close()

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Produce messages; returns how many were handed over.

        Raises:
            MessageTooLargeError: for a message that is too large, after those before it.
            UserError: when an earlier message was not delivered.
        """
        topic = f"projects/{self._settings.pubsub_project}/topics/{self._settings.topic(stream)}"
        published = 0
        for request in _requests(topic, messages):
            self._under_way.append(self._requests.submit(self._publish, request))
            published += len(request.messages)
            # Bounds memory, and how late a failure is noticed.
            self._wait(2 * REQUESTS_AT_ONCE)
        return published

    def flush(self) -> None:
        """Wait for every delivery.

        Raises:
            UserError: when a message was not delivered.
        """
        self._wait(0)

    def _publish(self, request: Any) -> None:
        with translate_errors(self._settings):
            try:
                self._client.publish(PublishRequest.wrap(request), retry=RETRY, timeout=DELIVERY_TIMEOUT_SECONDS)
            except NotFound as error:
                raise not_found(request.topic) from error

    def _wait(self, at_most: int) -> None:
        """Wait until at most this many requests are under way."""
        while len(self._under_way) > at_most:
            self._under_way.popleft().result()


def _requests(topic: str, messages: Iterable[Message]) -> Iterator[Any]:
    """Messages packed into requests: plain protobuf, as proto-plus would cost most of the time."""
    new_request = PublishRequest.pb()
    request, size = new_request(topic=topic), 0
    for message in messages:
        payload = message.payload or b""
        packed = _Message(data=payload, attributes=message.attributes)
        packed_size = packed.ByteSize()
        if packed_size > MESSAGE_BYTES:
            if request.messages:
                yield request
            raise MessageTooLargeError(
                f"{len(payload):,} bytes are too much for one message to Pub/Sub: the limit is 10 MB", payload
            )
        if request.messages and (len(request.messages) == REQUEST_ROWS or size + packed_size > REQUEST_BYTES):
            yield request
            request, size = new_request(topic=topic), 0
        request.messages.append(packed)
        size += packed_size
    if request.messages:
        yield request
