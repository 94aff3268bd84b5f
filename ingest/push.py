"""Takes Pub/Sub's pushes over HTTP, and answers 204 only once the warehouse has committed them.

One URL serves every stream: the subscription that each push names says which. Pushes that wait are committed
together, so the rate does not hang on how long a commit takes.
"""

import asyncio
import logging
import queue
import re
import threading
import time
from collections import defaultdict
from contextlib import suppress
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
from ingest import telemetry
from ingest.batching import BatchBounds, BatchSize
from ingest.landing import accept_replacement, commit
from ingest.message import Batch, PubSubMessage, pubsub_table
from ingest.oidc import IdentityError, TokenVerifier
from ingest.sinks import Sink

PATH = "/push"
MAX_BODY_BYTES = 16 * 1024 * 1024
"""A message of Pub/Sub has at most 10 MB, which base64 and the envelope make 14."""
LINGER_SECONDS = 0.02
"""The warehouse is held until no push came for so long, ..."""
MAX_SESSION_SECONDS = 1.0
"""... but not longer than this, ..."""
RELEASE_SECONDS = 0.25
"""... and is then left alone: who waits for it looks every 0.1 s."""
SHUTDOWN_SECONDS = 10
"""How much longer than LOCK_TIMEOUT_SECONDS the last answers may take."""
SECONDS_BETWEEN_LOGS = 10.0
"""Refusals of one status are logged no more often: what is refused comes again, and again."""
ENDED = "nothing is committed any more: start the server again"
CHALLENGE = {"WWW-Authenticate": "Bearer"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class _Message(BaseModel):
    """A pushed message. Pub/Sub itself sends names of two words in both spellings."""

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
    """A message that waits for its commit."""

    stream: str
    message: PubSubMessage
    refusal: asyncio.Future[str | None]
    """Why it was not committed; None once it is."""


class Committer:
    """A thread that commits whatever waits, all of it at once.

    Args:
        sink: where to.
        settings: the streams' topics.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._sink = sink
        self._settings = settings
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._is_closing = False
        self.is_alive = True
        self.rows = 0
        """Landed so far."""
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    async def commit(self, stream: str, message: PubSubMessage) -> str | None:
        """Land a message; returns once it is committed, or why it is not."""
        waiting = _Waiting(stream, message, asyncio.get_running_loop().create_future())
        self._queue.put(waiting)
        # Looked at behind the put: a thread that ends answers what it finds in the queue afterwards.
        return await waiting.refusal if self.is_alive else ENDED

    def close(self) -> None:
        """Commit what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_closing:
                if waiting := self._take(None):
                    self._commit_while_more_comes(waiting)
                    time.sleep(RELEASE_SECONDS)
        finally:
            self.is_alive = False
            _answer(self._take(0), ENDED)

    def _commit_while_more_comes(self, waiting: list[_Waiting]) -> None:
        until = time.monotonic() + MAX_SESSION_SECONDS
        refusal = "the commit failed"
        try:
            with self._sink.session():
                while waiting:
                    self.rows += commit(self._sink, [self._batch(waiting)], logging.DEBUG)
                    _answer(waiting, None)
                    waiting = self._take(LINGER_SECONDS) if time.monotonic() < until else []
        except WarehouseReplacedError as error:
            refusal = "the warehouse was replaced"
            accept_replacement(self._sink, error)
        except UserError as error:
            refusal = "the warehouse takes no commits now"
            log.warning("pushes are refused, for Pub/Sub to send them again", pushes=len(waiting), reason=str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the next commit may succeed
            # The sink's own words are of files and tables, not of payloads.
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            log.error("pushes are refused: the commit failed", pushes=len(waiting), reason=reason)  # noqa: TRY400
        finally:
            _answer(waiting, refusal)

    def _batch(self, waiting: list[_Waiting]) -> Batch:
        messages: dict[str, list[PubSubMessage]] = defaultdict(list)
        for one in waiting:
            messages[one.stream].append(one.message)
        topic = self._settings.topic
        return Batch(
            {
                stream: pubsub_table(topic(STREAMS[stream]), *zip(*some, strict=True))
                for stream, some in messages.items()
            }
        )

    def _take(self, patience: float | None) -> list[_Waiting]:
        """All that waits; nothing when nothing comes for so many seconds (None: wait on), or at the end."""
        taken = []
        with suppress(queue.Empty):
            taken.append(self._queue.get(timeout=patience))
            while True:
                taken.append(self._queue.get_nowait())
        self._is_closing |= None in taken
        return [one for one in taken if one is not None]


def _answer(waiting: list[_Waiting], refusal: str | None) -> None:
    """Wake the requests, from the committer's thread."""

    def answer() -> None:
        for one in waiting:
            if not one.refusal.done():
                one.refusal.set_result(refusal)

    if waiting:
        with suppress(RuntimeError):  # the server was ended at once, and its loop is closed
            waiting[0].refusal.get_loop().call_soon_threadsafe(answer)


class _Endpoint:
    """What answers the requests; all of it runs in the event loop."""

    def __init__(self, settings: Settings, committer: Committer, verifier: TokenVerifier | None) -> None:
        self._committer = committer
        self._verifier = verifier
        self._streams = {
            settings.subscription(stream): stream.name for stream in settings.selected() if stream.transport == "pubsub"
        }
        self._unanswered = BatchSize(BatchBounds.for_commit(settings))
        """Size of the requests that are not answered yet, from their first byte on."""
        self._next_log_at: dict[int, float] = {}

    def app(self) -> Starlette:
        # with a slash too: Pub/Sub follows no redirect
        routes = [Route(path, self.push, methods=["POST"]) for path in (PATH, f"{PATH}/")]
        routes.append(Route("/healthz", self.health))
        local_only = [Middleware(web.LocalOnly, refuse=self.refuse)] if self._verifier is None else []
        app = Starlette(routes=routes, middleware=local_only, exception_handlers={HTTPException: self.refuse})
        app.router.redirect_slashes = False
        return app

    async def push(self, request: Request) -> Response:
        await self._authenticate(request)
        if self._unanswered.rows_left <= 0:
            raise HTTPException(429, "LANDING_MAX_ROWS pushes already wait for their commit")
        held = 0
        body = bytearray()
        self._unanswered.add(1, 0)
        try:
            if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
                raise _too_large()
            async for chunk in request.stream():
                if held + len(chunk) > MAX_BODY_BYTES:
                    raise _too_large()
                # one that is larger than the limit is taken when it is alone
                if self._unanswered.bytes > held and len(chunk) > self._unanswered.bytes_left:
                    raise HTTPException(429, "LANDING_MAX_BYTES bytes already wait for their commit")
                held += len(chunk)
                self._unanswered.add(0, len(chunk))
                body += chunk
            stream, message = self._parse(body)
            del body
            if refusal := await self._committer.commit(stream, message):
                raise HTTPException(503, refusal)
        except ClientDisconnect as error:
            raise HTTPException(400, "the client disconnected before the end of its push") from error
        finally:
            self._unanswered.remove(1, held)
        telemetry.PUSHES.labels(204).inc()
        return Response(status_code=204)

    async def health(self, request: Request) -> Response:
        if not self._committer.is_alive:
            return PlainTextResponse(ENDED, 503)
        return PlainTextResponse("ok")

    async def refuse(self, request: Request, error: Exception) -> Response:
        """The error as one line, in the answer and, since Pub/Sub shows no answer to anybody, in the log."""
        assert isinstance(error, HTTPException)  # noqa: S101  what Starlette calls this for
        telemetry.PUSHES.labels(error.status_code).inc()
        now = time.monotonic()
        if now >= self._next_log_at.get(error.status_code, 0.0):
            self._next_log_at[error.status_code] = now + SECONDS_BETWEEN_LOGS
            log.warning("refused", status=error.status_code, reason=error.detail)
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    async def _authenticate(self, request: Request) -> None:
        if self._verifier is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, "there is no Authorization: Bearer header", CHALLENGE)
        if self._verifier.is_verified(token):
            return
        try:
            await asyncio.to_thread(self._verifier.verify, token)
        except IdentityError as error:
            raise HTTPException(error.status, str(error), CHALLENGE if error.status == 401 else None) from error

    def _parse(self, body: bytearray) -> tuple[str, PubSubMessage]:
        """The stream and the message of a push.

        Raises:
            HTTPException: 400 when it is no push, 404 for a subscription of no stream.
        """
        try:
            envelope = _Envelope.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            # not deeper than message.attributes: the name of an attribute is the publisher's
            where = ".".join(str(name) for name in first["loc"][:2]) or "body"
            raise HTTPException(400, f"not a Pub/Sub push message: {where}: {first['msg']}") from None
        # Without PUBSUB_PROJECT a subscription may be of any project.
        of_any_project = re.sub(r"^projects/[^/]+/", "projects/-/", envelope.subscription)
        stream = self._streams.get(envelope.subscription) or self._streams.get(of_any_project)
        if stream is None:
            raise HTTPException(
                404,
                f"no stream has the subscription {envelope.subscription!r}; there are {', '.join(self._streams)}:"
                " SUBSCRIPTIONS and PUBSUB_PROJECT name others",
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
    return HTTPException(413, f"a push has at most {MAX_BODY_BYTES} bytes")


def serve(settings: Settings, sink: Sink, host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM, and then answer what waits; returns how many messages were landed.

    Raises:
        UserError: when the address cannot be listened on, or is not loopback and PUSH_AUDIENCE is not set.
    """
    to_expose = None if settings.push_audience else "set PUSH_AUDIENCE, for only Pub/Sub to push"
    listener = web.listen(host, port, to_expose)
    verifier = None
    if settings.push_audience is not None and settings.push_service_account is not None:
        verifier = TokenVerifier(settings.push_audience, settings.push_service_account)
    committer = Committer(sink, settings)
    app = _Endpoint(settings, committer, verifier).app()
    web.run(app, listener, PATH, int(settings.lock_timeout_seconds) + SHUTDOWN_SECONDS)
    committer.close()
    return committer.rows
