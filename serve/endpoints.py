"""The queries over HTTP: `GET /v0/pipes/top_products.json?brand=acme`, like Tinybird's pipes.

Everything runs in the event loop except the queries, which run in a pool of threads. A version is opened at the first
request after it was published, or a second later, and closed when its last query is answered.
"""

import asyncio
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import Gauge, Histogram
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from common import web
from common.errors import UnavailableError, UserError
from common.logs import what_and_where
from common.settings import Settings
from engines.factory import engine_for
from engines.query import ArgumentError
from engines.reader import QueryTimeoutError, QueryTooLargeError
from publishing.versions import published_at, published_version
from serve.answer_cache import FORMATS, ServedVersion
from serve.answers import why_left_out
from serve.openapi import describe
from serve.published import open_published

PATH = "/v0/pipes"
GZIP_BYTES = 8 * 1024
"""Smaller answers are sent faster without compression."""
CHECK_SECONDS = 1.0
"""Seconds between two looks for a newer version while no request comes. Publishing rewrites the file of the version
before the last: one that is still open must be copied instead."""
SHUTDOWN_SECONDS = 5
"""Seconds beyond SERVE_TIMEOUT_SECONDS that the last answers may take at shutdown."""
NOTHING_PUBLISHED = "nothing is published yet: try again once a build is done"
CHALLENGE = {"WWW-Authenticate": "Bearer"}
# no-cache: the client keeps the answer and asks again, which is a 304 until the next build
HEADERS = {"Cache-Control": "private, no-cache"}

REQUESTS = Histogram(
    "serve_request_seconds",
    "Time of a request, by query and HTTP status.",
    ["query", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PUBLISHED = Gauge("serve_published_timestamp_seconds", "When the version that is served was published.")

log = structlog.get_logger()


class Endpoints:
    """Answers the requests. Each request reads the link to the newest version, so a build is visible at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(engine_for(settings).concurrent_queries, thread_name_prefix="query")
        self._version: ServedVersion | None = None
        self._opening = asyncio.Lock()
        self._published = asyncio.Event()
        """Set to look for a newer version at once."""
        self._watcher: asyncio.Task[None] | None = None
        """Runs once a version is open."""
        self._unreadable: str | None = None
        """A version that could not be opened; remembered to log it once."""

    def app(self) -> ASGIApp:
        app: FastAPI = FastAPIOffline(
            title="Queries to the marts", redoc_url=None, exception_handlers={Exception: self._failed}
        )
        app.router.routes = [route for route in app.routes if getattr(route, "path", "") != app.openapi_url]
        app.add_route("/", _to_docs)
        app.add_route("/openapi.json", self._openapi)
        app.add_route("/healthz", self._health)
        app.add_route(PATH + "/{file}", self._pipe)
        app.add_exception_handler(HTTPException, _refuse)
        app.add_middleware(GZipMiddleware, minimum_size=GZIP_BYTES, compresslevel=5)
        if not self._settings.serve_tokens:
            app.add_middleware(web.LocalOnly, refuse=_refuse)
        return app

    def on_published(self) -> None:
        """Open the version published last, so that no request waits for it, and close the one before after its last
        query. Thread-safe, and does not wait. Does nothing before the first request."""
        if self._watcher is not None:
            with suppress(RuntimeError):  # the server has ended
                self._watcher.get_loop().call_soon_threadsafe(self._published.set)

    async def _watch(self) -> None:
        """Go on to each newer version, also while no request comes."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._published.wait(), CHECK_SECONDS)
            self._published.clear()
            with suppress(HTTPException):
                await self._current()

    async def _pipe(self, request: Request) -> Response:
        started = time.perf_counter()
        seen: dict[str, Any] = {"query": ""}
        try:
            response = await self._answer(request, seen)
        except HTTPException as error:
            response = await _refuse(request, error)
        except Exception as error:  # noqa: BLE001  a query that fails: its values must not be logged
            log.error("failed", query=seen["query"], **what_and_where(error.__cause__ or error))  # noqa: TRY400  a traceback may quote rows
            response = await _refuse(request, HTTPException(500, "the query failed: see the server's log"))
        seconds = time.perf_counter() - started
        REQUESTS.labels(seen["query"], response.status_code).observe(seconds)
        log.info("request", **seen, status=response.status_code, seconds=round(seconds, 6))
        return response

    async def _answer(self, request: Request, seen: dict[str, Any]) -> Response:
        allowed = self._allowed(request)
        version = await self._current()
        queries = version.published.queries
        name, _, extension = request.path_params["file"].rpartition(".")
        left_out = version.published.left_out
        if extension not in FORMATS or name not in {*queries, *left_out}:
            known = [one for one in queries if allowed == "*" or one in allowed]
            raise HTTPException(
                404, f"there is no {request.path_params['file']!r}; there are {', '.join(known)}, as .json and .csv"
            )
        seen["query"] = name
        if allowed != "*" and name not in allowed:
            raise HTTPException(403, f"this token may not run the query {name}")
        if name in left_out:
            raise HTTPException(404, why_left_out(left_out[name]))
        query = queries[name]
        given = request.query_params.multi_items()
        arguments = dict(given)
        try:
            values = query.values(arguments)
        except ArgumentError as error:
            raise HTTPException(400, str(error)) from error
        seen["arguments"] = list(arguments)
        if len(given) != len(arguments):
            twice = next(name for name in arguments if [one for one, _ in given].count(name) > 1)
            raise HTTPException(400, f"{twice}: given more than once")
        etag = version.etag(query, values, extension)
        headers = {**HEADERS, "ETag": etag} if version.is_copy else {**HEADERS}
        if version.is_copy and etag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        try:
            body = await version.answer(etag, query, values, extension)
        except QueryTimeoutError as error:
            raise HTTPException(408, str(error)) from error
        except QueryTooLargeError as error:
            raise HTTPException(400, str(error)) from error
        except UnavailableError as error:
            raise HTTPException(503, "the warehouse does not answer: try again later", {"Retry-After": "5"}) from error
        if body.is_cut:
            headers["X-Truncated"] = "true"
        return Response(body.content, media_type=FORMATS[extension][1], headers=headers)

    def _allowed(self, request: Request) -> str | list[str]:
        """The queries that the request's token may run, or "*" for all.

        Raises:
            HTTPException: 401 without a known token.
        """
        tokens = self._settings.serve_tokens
        if not tokens:
            return "*"
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, "there is no Authorization: Bearer header", CHALLENGE)
        # compare with every token: the time must not reveal a common prefix
        scopes = [scope for token, scope in tokens.items() if secrets.compare_digest(token.encode(), given.encode())]
        if not scopes:
            raise HTTPException(401, "this token is not known", CHALLENGE)
        return scopes[0]

    async def _current(self) -> ServedVersion:
        """The version published last; the previous one while that cannot be opened.

        Raises:
            HTTPException: 503 when there is none.
        """
        if self._is_current():
            assert self._version is not None  # noqa: S101
            return self._version
        async with self._opening:
            if not self._is_current():
                await self._open()
            if self._version is None:
                raise HTTPException(503, NOTHING_PUBLISHED, {"Retry-After": "5"})
            return self._version

    def _is_current(self) -> bool:
        newest = published_version(self._settings)
        return self._version is not None and newest in (None, self._version.published.version, self._unreadable)

    async def _open(self) -> None:
        newest = published_version(self._settings)
        if newest is None:
            return
        try:
            published = await run_in_threadpool(open_published, self._settings, threads=1)
        except Exception as error:  # noqa: BLE001  any error: the next build may fix it
            if newest != self._unreadable:
                self._unreadable = newest
                reason = str(error) if isinstance(error, UserError) else type(error).__name__
                log.warning("the published version cannot be opened", version=newest, reason=reason)
            return
        before, self._version = self._version, ServedVersion(published, self._settings, self._pool)
        if before is not None:
            before.retire()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        PUBLISHED.set(published_at(published.version).timestamp())
        log.info("serving", version=published.version, queries=len(published.queries))

    async def _openapi(self, request: Request) -> Response:
        version = await self._current()
        published = version.published
        with_tokens = bool(self._settings.serve_tokens)
        document = describe(published.queries.values(), published.version, PATH, with_tokens=with_tokens)
        return _json(document)

    async def _health(self, request: Request) -> Response:
        version = (await self._current()).published.version
        at = published_at(version)
        age = (datetime.now(UTC) - at).total_seconds()
        return _json({"version": version, "published_at": at, "age_seconds": round(age)})

    async def _failed(self, request: Request, error: Exception) -> Response:
        log.error("failed", path=request.url.path, **what_and_where(error))
        return await _refuse(request, HTTPException(500, "internal error: see the server's log"))


async def _to_docs(request: Request) -> Response:
    return RedirectResponse("docs")


def _json(document: Any, status: int = 200, headers: Any = None) -> Response:
    content = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return Response(content, status, headers, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for this exception only
    return _json({"error": error.detail}, error.status_code, error.headers)


def listen(settings: Settings, host: str, port: int) -> socket.socket:
    """Open the socket of the endpoints.

    Raises:
        UserError: when the address cannot be listened on, or is not loopback and SERVE_TOKENS is not set.
    """
    to_expose = None if settings.serve_tokens else "set SERVE_TOKENS, for only those who have one to ask"
    return web.listen(host, port, to_expose)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UserError: as `listen`.
    """
    listener = listen(settings, host, port)
    site = web.Site(Endpoints(settings).app(), listener, "/")
    web.run(site, int(settings.serve_timeout_seconds) + SHUTDOWN_SECONDS)
