"""Answers kept in memory between requests: a published copy never changes, so its answers do not either."""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from engines.query import Query, Value
from serve.answers import Answer, Published

MOST_ROWS = 100_000
"""Rows to keep; a page has about two thousand."""
Key = tuple[str, str, frozenset[tuple[str, Value]]]


class AnswerMemory:
    """The answers of all requests, up to MOST_ROWS rows; the least recently used are dropped. Thread-safe."""

    def __init__(self) -> None:
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
        """Keep an answer, and drop the oldest of the others."""
        with self._lock:
            if key in self._answers:
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


def _weight(answer: Answer) -> int:
    return len(answer.rows) + 1
