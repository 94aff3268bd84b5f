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
"""Maximum messages and bytes per request; Pub/Sub accepts 1000 messages and 10 MB."""
MESSAGE_BYTES = 10_000_000 - 1_000
"""Maximum bytes of a message: a request has at most 10 MB, including the topic's name."""
REQUESTS_AT_ONCE = 4
DELIVERY_TIMEOUT_SECONDS = 60.0
RETRY = Retry(
    predicate=if_exception_type(Aborted, InternalServerError, ResourceExhausted, ServiceUnavailable),
    timeout=DELIVERY_TIMEOUT_SECONDS,
)
"""Retries a request for DELIVERY_TIMEOUT_SECONDS, where the client's default is ten minutes."""

_Message = PubsubMessage.pb()


class PubSubProducer:
    """Produces messages with their attributes, in several parallel requests of many messages.

    Pub/Sub sets the publish time itself and does not keep the order, so `published_at` and the key are dropped. It has
    no tombstones: a payload of None arrives as an empty one.
    """

    def __init__(self, settings: Settings) -> None:
        """Open a client. It connects with the first request.

        Raises:
            UserError: if there are no credentials for Google Cloud.
        """
        self._settings = settings
        self._client = open_publisher(settings)
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, "pubsub-publish")
        self._running: deque[Future[None]] = deque()

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
        """Queue messages for delivery; returns their number.

        Raises:
            MessageTooLargeError: if a message is too large; the messages before it are still sent.
            UserError: if an earlier message cannot be delivered.
        """
        topic = f"projects/{self._settings.pubsub_project}/topics/{self._settings.topic(stream)}"
        published = 0
        for request in _requests(topic, messages):
            self._running.append(self._requests.submit(self._publish, request))
            published += len(request.messages)
            # The limit bounds memory, and the delay until a failure is noticed.
            self._wait(2 * REQUESTS_AT_ONCE)
        return published

    def flush(self) -> None:
        """Wait until all messages are delivered.

        Raises:
            UserError: if a message cannot be delivered.
        """
        self._wait(0)

    def _publish(self, request: Any) -> None:
        with translate_errors(self._settings):
            try:
                self._client.publish(PublishRequest.wrap(request), retry=RETRY, timeout=DELIVERY_TIMEOUT_SECONDS)
            except NotFound as error:
                raise not_found(request.topic) from error

    def _wait(self, at_most: int) -> None:
        """Wait until at most this many requests are running."""
        while len(self._running) > at_most:
            self._running.popleft().result()


def _requests(topic: str, messages: Iterable[Message]) -> Iterator[Any]:
    """Pack messages into requests. They are plain protobuf, since proto-plus wrappers are several times slower."""
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
                f"a message of {len(payload):,} bytes is too large for Pub/Sub: the limit is 10 MB", payload
            )
        if request.messages and (len(request.messages) == REQUEST_ROWS or size + packed_size > REQUEST_BYTES):
            yield request
            request, size = new_request(topic=topic), 0
        request.messages.append(packed)
        size += packed_size
    if request.messages:
        yield request
