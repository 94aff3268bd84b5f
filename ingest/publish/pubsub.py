"""Publishes to Pub/Sub."""

from collections import deque
from collections.abc import Iterable
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import (
    Aborted,
    GoogleAPICallError,
    InternalServerError,
    NotFound,
    ResourceExhausted,
    RetryError,
    ServiceUnavailable,
)
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from ingest.errors import UserError
from ingest.message import Message
from ingest.settings import Settings
from ingest.sources.pubsub import UNLIMITED, no_credentials, unreachable
from ingest.streams import Stream

DELIVERY_SECONDS = 60.0
RETRY = Retry(
    predicate=if_exception_type(Aborted, InternalServerError, ResourceExhausted, ServiceUnavailable),
    timeout=DELIVERY_SECONDS,
)
"""The client's own default tries for ten minutes."""
UNDELIVERED = 20_000
"""Messages under way at most: bounds memory, and how late a failure is noticed."""


def open_publisher(settings: Settings) -> Any:
    """A client of Pub/Sub, or of the emulator.

    Raises:
        UserError: without credentials for Google Cloud.
    """
    batches = pubsub_v1.types.BatchSettings(max_messages=1000, max_bytes=4_000_000, max_latency=0.02)
    if settings.pubsub_emulator_host is not None:
        channel = grpc.insecure_channel(settings.pubsub_emulator_host, options=UNLIMITED)
        return pubsub_v1.PublisherClient(batches, transport=PublisherGrpcTransport(channel=channel))
    try:
        return pubsub_v1.PublisherClient(batches)
    except GoogleAuthError as error:
        raise no_credentials(error) from error


class PubSubPublisher:
    """Publishes with the attributes of each message, without an ordering key.

    Pub/Sub sets the time of publishing itself: `published_at` is not kept, nor is the key. It has no tombstones
    either: a payload of None arrives as an empty one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = open_publisher(settings)
        self._under_way: deque[tuple[str, Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait for every delivery.

        Raises:
            UserError: when a message was not delivered.
        """
        try:
            if not exc or exc[0] is None:
                self._wait(0)
        finally:
            self._client.stop()

    def publish(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Publish messages; returns how many were handed to the client.

        Raises:
            UserError: when an earlier message was not delivered.
        """
        topic = f"projects/{self._settings.pubsub_project}/topics/{self._settings.topic(stream)}"
        published = 0
        for message in messages:
            future = self._client.publish(
                topic, message.payload or b"", retry=RETRY, timeout=DELIVERY_SECONDS, **message.attributes
            )
            self._under_way.append((topic, future))
            published += 1
            self._wait(UNDELIVERED)
        return published

    def _wait(self, at_most: int) -> None:
        """Wait until at most this many messages are under way."""
        while len(self._under_way) > at_most:
            topic, future = self._under_way.popleft()
            try:
                future.result(DELIVERY_SECONDS)
            except NotFound as error:
                raise UserError(f"Pub/Sub has no {topic}; create it with `python -m ingest provision`") from error
            except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
                raise unreachable(self._settings, error) from error
