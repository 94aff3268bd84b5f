"""Opens clients of Pub/Sub or its emulator, and translates their errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from common.errors import UnavailableError, UserError
from common.settings import Settings

REQUEST_TIMEOUT_SECONDS = 10.0
"""Maximum seconds that Pub/Sub may take to answer a request."""
DELETED_TOPIC = "_deleted-topic_"
"""Topic name that Pub/Sub shows for a subscription whose topic was deleted."""
GOOGLE_ERRORS = (GoogleAPICallError, RetryError, GoogleAuthError)
# A pull of large messages exceeds gRPC's default limit of 4 MB.
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def open_subscriber(settings: Settings) -> Any:
    """Return a google.cloud.pubsub_v1.SubscriberClient.

    Raises:
        UserError: if there are no credentials for Google Cloud.
    """
    return _open(settings, pubsub_v1.SubscriberClient, SubscriberGrpcTransport)


def open_publisher(settings: Settings) -> Any:
    """Return a google.pubsub_v1.PublisherClient.

    We do not use google.cloud.pubsub_v1.PublisherClient: it takes attributes as keyword arguments, so an attribute
    cannot be named `data` or `topic`.

    Raises:
        UserError: if there are no credentials for Google Cloud.
    """
    return _open(settings, PublisherClient, PublisherGrpcTransport)


def _open(settings: Settings, kind: Any, transport: Any) -> Any:
    if settings.pubsub_emulator_host is not None:
        # The client library finds the emulator only in environment variables, not in our `.env` file.
        channel = grpc.insecure_channel(settings.pubsub_emulator_host, options=UNLIMITED)
        return kind(transport=transport(channel=channel))
    try:
        return kind()
    except GoogleAuthError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"no credentials for Pub/Sub: {reason}; for the emulator set PUBSUB_EMULATOR_HOST, "
            "then run `python -m ingest provision`"
        ) from error


@contextmanager
def translate_errors(settings: Settings, permanent: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn an exception of Google's clients into an UnavailableError that names the server.

    Args:
        permanent: exceptions that a retry cannot fix, which become a UserError.
    """
    try:
        yield
    except permanent as error:
        raise UserError(str(unreachable(settings, error))) from error
    except GOOGLE_ERRORS as error:
        raise unreachable(settings, error) from error


def unreachable(settings: Settings, error: Exception) -> UnavailableError:
    server = settings.pubsub_emulator_host or "pubsub.googleapis.com"
    reason = getattr(error, "message", None) or str(error)
    return UnavailableError(
        f"Pub/Sub at {server}, project {settings.pubsub_project}, failed: {reason.splitlines()[0]}; once it answers,"
        " `python -m ingest provision` creates missing topics and subscriptions"
    )


def not_found(resource: str) -> UserError:
    """Return the error for a topic or subscription (full resource name) that does not exist."""
    return UserError(f"Pub/Sub has no {resource}; create it with `python -m ingest provision`")


def topic_deleted(subscription: str) -> str:
    return (
        f"the topic of Pub/Sub {subscription} was deleted, so no messages arrive: delete the subscription, then create"
        " both again with `python -m ingest provision`"
    )
