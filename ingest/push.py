"""An HTTP server for Pub/Sub push subscriptions. It answers 204 only after the warehouse has committed the message.

One URL serves all streams: each push names its subscription, which determines the stream. All waiting pushes are
committed together, so that the rate does not depend on the duration of a commit.
"""

import asyncio
import logging
import queue
import re
import socket
import threading
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common import web
from common.errors import UserError, WarehouseReplacedError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import Batch
from engines.warehouse import Sink
from ingest import telemetry
from ingest.batching import BatchBounds, BatchSize
from ingest.landing import accept_replacement, commit
from ingest.message import PubSubMessage, pubsub_table
from ingest.oidc import IdentityError, TokenVerifier

PATH = "/push"
MAX_BODY_BYTES = 16 * 1024 * 1024
"""Maximum size of a push. A Pub/Sub message has at most 10 MB, and 14 MB with base64 and the envelope."""
LINGER_SECONDS = 0.02
"""A warehouse session ends when no push arrived for this many seconds."""
MAX_SESSION_SECONDS = 1.0
"""Maximum seconds of a warehouse session while pushes keep arriving."""
RELEASE_SECONDS = 0.25
"""Seconds between two sessions, in which other processes, which poll every 0.1 s, can open the warehouse."""
SHUTDOWN_SECONDS = 10
"""Seconds beyond LOCK_TIMEOUT_SECONDS that the last answers may take at shutdown."""
SECONDS_BETWEEN_LOGS = 10.0
"""Minimum seconds between logs of rejections with the same status, since Pub/Sub sends a rejected push again."""
ENDED = "the server no longer commits: start it again"
CHALLENGE = {"WWW-Authenticate": "Bearer"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class _Message(BaseModel):
    """A pushed message. Pub/Sub sends some fields twice, in camelCase and in snake_case."""

    model_config = ConfigDict(strict=True, val_json_bytes="base64")

    message_id: str = Field(validation_alias=AliasChoices("messageId", "message_id"), min_length=1)
    data: bytes | None = None
    attributes: dict[str, str] | None = None
    ordering_key: str | None = Field(None, validation_alias=AliasChoices("orderingKey", "ordering_key"))
    publish_time: AwareDatetime | None = Field(None, validation_alias=AliasChoices("publishTime", "publish_time"))


class _Envelope(BaseModel):
    """The body of a push."""

    model_config = ConfigDict(strict=True)

    subscription: str
    message: _Message


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A message that is waiting for its commit."""

    stream: str
    message: PubSubMessage
    failure: asyncio.Future[str | None]
    """Resolves after the commit: None if it succeeded, otherwise the reason why it did not."""


class Committer:
    """A thread that commits all waiting messages together.

    Args:
        is_shared: whether other threads of this process use the same open warehouse, which no other process waits for.
            Then each commit stands alone: a session would keep the others out, and there is nobody to release it to.
    """

    def __init__(self, sink: Sink, settings: Settings, *, is_shared: bool = False) -> None:
        self._sink = sink
        self._settings = settings
        self._is_shared = is_shared
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._is_closing = False
        self.is_alive = True
        self.rows = 0
        """Number of messages landed so far."""
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    async def commit(self, stream: str, message: PubSubMessage) -> str | None:
        """Land a message; returns None after its commit, or the reason why it was not committed."""
        waiting = _Waiting(stream, message, asyncio.get_running_loop().create_future())
        self._queue.put(waiting)
        # Check `is_alive` after the put: the thread clears it before it answers the rest of the queue, so every message
        # gets an answer.
        return await waiting.failure if self.is_alive else ENDED

    def close(self) -> None:
        """Commit the waiting messages, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_closing:
                if waiting := self._take_waiting(None):
                    self._commit_and_answer(waiting)
                    if not self._is_shared:
                        time.sleep(RELEASE_SECONDS)
        finally:
            self.is_alive = False
            _answer(self._take_waiting(0), ENDED)

    def _commit_and_answer(self, waiting: list[_Waiting]) -> None:
        """Commit these messages and, in a session of the warehouse, those that arrive meanwhile."""
        until = time.monotonic() + (0 if self._is_shared else MAX_SESSION_SECONDS)
        failure = "the commit failed"
        try:
            with nullcontext() if self._is_shared else self._sink.session():
                while waiting:
                    self.rows += commit(self._sink, [self._batch(waiting)], logging.DEBUG)
                    _answer(waiting, None)
                    waiting = self._take_waiting(LINGER_SECONDS) if time.monotonic() < until else []
        except WarehouseReplacedError as error:
            failure = "the warehouse was replaced"
            accept_replacement(self._sink, error)
        except UserError as error:
            failure = "the warehouse cannot commit now"
            log.warning("pushes rejected; Pub/Sub will send them again", pushes=len(waiting), reason=str(error))
        except Exception as error:  # noqa: BLE001  after any error, the next commit may succeed
            # The first line of the sink's errors names files and tables; it never has a payload.
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.error(  # noqa: TRY400  a traceback could show payloads
                "pushes rejected: the commit failed; Pub/Sub will send them again", pushes=len(waiting), reason=reason
            )
        finally:
            _answer(waiting, failure)

    def _batch(self, waiting: list[_Waiting]) -> Batch:
        messages: dict[str, list[PubSubMessage]] = defaultdict(list)
        for one in waiting:
            messages[one.stream].append(one.message)
        topic = self._settings.topic
        return Batch(
            {
                stream: pubsub_table(topic(STREAMS[stream]), *zip(*rows, strict=True))
                for stream, rows in messages.items()
            }
        )

    def _take_waiting(self, timeout: float | None) -> list[_Waiting]:
        """Return all waiting messages; empty if none arrives within `timeout` seconds (None: no limit) or at close."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._queue.get(timeout=timeout))
            while True:
                taken.append(self._queue.get_nowait())
        self._is_closing |= None in taken
        return [one for one in taken if one is not None]


def _answer(waiting: list[_Waiting], failure: str | None) -> None:
    """Resolve the futures of these messages in the event loop; called from the committer's thread."""

    def answer() -> None:
        for one in waiting:
            if not one.failure.done():
                one.failure.set_result(failure)

    if waiting:
        with suppress(RuntimeError):  # the event loop is closed, if a second signal ended the server at once
            waiting[0].failure.get_loop().call_soon_threadsafe(answer)


class _Endpoint:
    """Handles the requests, in the event loop."""

    def __init__(self, settings: Settings, committer: Committer, verifier: TokenVerifier | None) -> None:
        self._committer = committer
        self._verifier = verifier
        self._streams = {
            settings.subscription(stream): stream.name for stream in settings.selected() if stream.transport == "pubsub"
        }
        self._unanswered = BatchSize(BatchBounds.for_commit(settings))
        """Number and bytes of the requests that are not answered yet, including those still being received."""
        self._next_log_at: dict[int, float] = {}

    def app(self) -> Starlette:
        # accept a trailing slash too: Pub/Sub would not follow a redirect
        routes = [Route(path, self.push, methods=["POST"]) for path in (PATH, f"{PATH}/")]
        routes.append(Route("/healthz", self.health))
        local_only = [Middleware(web.LocalOnly, refuse=self.reject)] if self._verifier is None else []
        app = Starlette(routes=routes, middleware=local_only, exception_handlers={HTTPException: self.reject})
        app.router.redirect_slashes = False
        return app

    async def push(self, request: Request) -> Response:
        await self._authenticate(request)
        if self._unanswered.rows_left <= 0:
            raise HTTPException(429, "LANDING_MAX_ROWS pushes are already waiting for their commit")
        received = 0
        body = bytearray()
        self._unanswered.add(1, 0)
        try:
            if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
                raise _too_large()
            async for chunk in request.stream():
                if received + len(chunk) > MAX_BODY_BYTES:
                    raise _too_large()
                # A push above LANDING_MAX_BYTES is accepted if no other is waiting: otherwise it could never land.
                if self._unanswered.bytes > received and len(chunk) > self._unanswered.bytes_left:
                    raise HTTPException(429, "LANDING_MAX_BYTES bytes are already waiting for their commit")
                received += len(chunk)
                self._unanswered.add(0, len(chunk))
                body += chunk
            stream, message = self._parse(body)
            del body
            if failure := await self._committer.commit(stream, message):
                raise HTTPException(503, failure)
        except ClientDisconnect as error:
            raise HTTPException(400, "the client disconnected before the push was complete") from error
        finally:
            self._unanswered.remove(1, received)
        telemetry.PUSHES.labels(204).inc()
        return Response(status_code=204)

    async def health(self, request: Request) -> Response:
        if not self._committer.is_alive:
            return PlainTextResponse(ENDED, 503)
        return PlainTextResponse("ok")

    async def reject(self, request: Request, error: Exception) -> Response:
        """Answer with the error as one line, and log it, since Pub/Sub shows answers to nobody."""
        assert isinstance(error, HTTPException)  # noqa: S101  registered for this exception only
        telemetry.PUSHES.labels(error.status_code).inc()
        now = time.monotonic()
        if now >= self._next_log_at.get(error.status_code, 0.0):
            self._next_log_at[error.status_code] = now + SECONDS_BETWEEN_LOGS
            log.warning("push rejected", status=error.status_code, reason=error.detail)
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    async def _authenticate(self, request: Request) -> None:
        if self._verifier is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, "the request has no Authorization: Bearer header", CHALLENGE)
        if self._verifier.is_verified(token):
            return
        try:
            await asyncio.to_thread(self._verifier.verify, token)
        except IdentityError as error:
            raise HTTPException(error.status, str(error), CHALLENGE if error.status == 401 else None) from error

    def _parse(self, body: bytearray) -> tuple[str, PubSubMessage]:
        """Return the stream and the message of a push.

        Raises:
            HTTPException: 400 if the body is not a Pub/Sub push message, 404 if no stream has the subscription.
        """
        try:
            envelope = _Envelope.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            # At most two levels, such as message.attributes: below them, names are the publisher's data.
            where = ".".join(str(name) for name in first["loc"][:2]) or "body"
            raise HTTPException(400, f"not a Pub/Sub push message: {where}: {first['msg']}") from None
        # Without PUBSUB_PROJECT, the project of the subscription does not matter.
        any_project = re.sub(r"^projects/[^/]+/", "projects/-/", envelope.subscription)
        stream = self._streams.get(envelope.subscription) or self._streams.get(any_project)
        if stream is None:
            raise HTTPException(
                404,
                f"no stream has the subscription {envelope.subscription!r}; the subscriptions are"
                f" {', '.join(self._streams)}: SUBSCRIPTIONS and PUBSUB_PROJECT change them",
            )
        message, published_at = envelope.message, envelope.message.publish_time
        return stream, PubSubMessage(
            message.message_id,
            message.ordering_key or "",
            message.attributes or {},
            None if published_at is None else (published_at - EPOCH) // timedelta(microseconds=1),
            message.data or b"",
        )


def _too_large() -> HTTPException:
    return HTTPException(413, f"the push is too large: the limit is {MAX_BODY_BYTES} bytes")


def listen(settings: Settings, host: str, port: int) -> socket.socket:
    """Open the socket of the server.

    Raises:
        UserError: if the address is in use or invalid, or is not loopback although PUSH_AUDIENCE is not set.
    """
    return web.listen(host, port, None if settings.push_audience else "set PUSH_AUDIENCE, for only Pub/Sub to push")


def app(settings: Settings, committer: Committer) -> Starlette:
    """The application, which commits by `committer`. Close that once the last request is answered."""
    verifier = None
    if settings.push_audience is not None and settings.push_service_account is not None:
        verifier = TokenVerifier(settings.push_audience, settings.push_service_account)
    return _Endpoint(settings, committer, verifier).app()


def serve(settings: Settings, sink: Sink, host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM, then answer the waiting requests; returns the number of landed messages.

    Raises:
        UserError: as `listen`.
    """
    listener = listen(settings, host, port)
    committer = Committer(sink, settings)
    site = web.Site(app(settings, committer), listener, PATH)
    web.run(site, int(settings.lock_timeout_seconds) + SHUTDOWN_SECONDS)
    committer.close()
    return committer.rows
