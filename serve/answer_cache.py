"""A published version that is served, with a cache of its answers."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from common.settings import Settings
from engines.factory import engine_for
from engines.query import Query, Value
from serve.answers import Published
from serve.formats import as_csv, as_json

FORMATS = {"json": (as_json, "application/json"), "csv": (as_csv, "text/csv; charset=utf-8")}
CACHE_BYTES = 64 * 1024 * 1024
"""Maximum size of the cached answers."""


@dataclass(frozen=True, slots=True)
class Body:
    content: bytes
    is_cut: bool


class ServedVersion:
    """A published version and a cache of its answers, which evicts the least recently used."""

    def __init__(self, published: Published, settings: Settings, pool: ThreadPoolExecutor) -> None:
        self.published = published
        self._settings = settings
        self._pool = pool
        self._bodies: OrderedDict[str, Body] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[str, asyncio.Task[Body]] = {}
        self._is_retired = False
        self.is_copy = engine_for(settings).is_copied
        """BigQuery's tables change without a new version, so their answers are not cached."""

    def etag(self, query: Query, values: dict[str, Value], extension: str) -> str:
        """Weak, since answers with the same tag differ in their execution time."""
        parts = (self.published.version, self._settings.serve_max_rows, query.name, extension, values)
        return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'

    async def answer(self, etag: str, query: Query, values: dict[str, Value], extension: str) -> Body:
        """The answer: cached (of a copy only), or shared with a running request for the same query and values.

        Raises:
            QueryTimeoutError: when it takes longer than SERVE_TIMEOUT_SECONDS.
            QueryTooLargeError: when it needs more than SERVE_MEMORY_LIMIT or SERVE_MAX_BYTES_BILLED.
            HTTPException: 503 when that time passed before a thread was free.
        """
        if body := self._bodies.get(etag):
            self._bodies.move_to_end(etag)
            return body
        task = self._under_way.get(etag)
        if task is None:
            # a task of its own, since the client that asked first may disconnect
            task = asyncio.create_task(self._ask(etag, query, values, extension))
            self._under_way[etag] = task
            task.add_done_callback(lambda _: self._done(etag))
        return await asyncio.shield(task)

    def retire(self) -> None:
        """Close it once no query runs on it."""
        self._is_retired = True
        self._close_unused()

    async def _ask(self, etag: str, query: Query, values: dict[str, Value], extension: str) -> Body:
        deadline = time.monotonic() + self._settings.serve_timeout_seconds

        def ask() -> Body:
            left = deadline - time.monotonic()
            if left <= 0:
                raise HTTPException(503, "too many queries wait: try again later", {"Retry-After": "1"})
            answer = self.published.ask(query, values, left)
            return Body(FORMATS[extension][0](query, answer), answer.is_cut)

        body = await asyncio.get_running_loop().run_in_executor(self._pool, ask)
        if not self.is_copy:
            return body
        self._bodies[etag] = body
        self._bytes += len(body.content)
        while self._bytes > CACHE_BYTES:
            self._bytes -= len(self._bodies.popitem(last=False)[1].content)
        return body

    def _done(self, etag: str) -> None:
        task = self._under_way.pop(etag)
        task.cancelled() or task.exception()  # retrieve the error: perhaps nobody waits for it any more
        self._close_unused()

    def _close_unused(self) -> None:
        if self._is_retired and not self._under_way:
            self.published.close()
