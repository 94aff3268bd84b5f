"""What is kept in memory between requests: answers, since a published copy never changes, and pages that reload."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock

from engines.query import Query, Value
from serve.answers import Answer, Published

MOST_ROWS = 100_000
"""Rows to keep; a page has about two thousand."""
MOST_PAGES = 20
"""Pages to keep: each is about 200 KB."""
REST = 9
"""Minimum seconds without rendering after one second of rendering, for pages that reload: nobody may look at them, and
builds need the processors."""
Key = tuple[str, str, frozenset[tuple[str, Value]]]


class AnswerMemory:
    """The answers of the newest version, up to MOST_ROWS rows; the least recently used are dropped. Thread-safe."""

    def __init__(self) -> None:
        self._version = ""
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._rows = 0
        self._lock = Lock()

    def get(self, key: Key) -> Answer | None:
        """The cached answer for a version, query and values; None without one."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer, unless it is of an older version than others; drop those of older versions and the oldest."""
        with self._lock:
            if key[0] > self._version:  # names of versions are times
                self._version = key[0]
                self._answers.clear()
                self._rows = 0
            if key in self._answers or key[0] < self._version:
                return
            self._answers[key] = answer
            self._rows += _weight(answer)
            while self._rows > MOST_ROWS:
                self._rows -= _weight(self._answers.popitem(last=False)[1])


class CachedPublished:
    """A published copy whose answers come from memory if they are there."""

    def __init__(self, published: Published, memory: AnswerMemory) -> None:
        self._published, self._memory = published, memory
        self.version = published.version
        self.queries, self.left_out = published.queries, published.left_out

    def ask(self, query: Query, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        """Like Published.ask."""
        key = self.version, query.name, frozenset(values.items())
        answer = self._memory.get(key)
        if answer is None:
            answer = self._published.ask(query, values, timeout_seconds)
            self._memory.put(key, answer)
        return answer

    def close(self) -> None:
        self._published.close()


class PageMemory:
    """Renders the pages that browsers reload by themselves, one at a time and in at most a tenth of the time.

    Until then, a browser gets the page that was rendered last for the same address. Thread-safe.
    """

    def __init__(self) -> None:
        self._pages: OrderedDict[str, str] = OrderedDict()
        self._rested_at = 0.0
        self._lock = Lock()

    def get(self, url: str, render: Callable[[], str]) -> str:
        """The page of this address, rendered now or a short while ago."""
        with self._lock:
            started = time.monotonic()
            if url not in self._pages or started >= self._rested_at:
                self._pages[url] = render()
                ended = time.monotonic()
                self._rested_at = ended + REST * (ended - started)
            self._pages.move_to_end(url)
            if len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return self._pages[url]


def _weight(answer: Answer) -> int:
    return len(answer.rows) + 1
