"""Users, products and posts: how many there are, and how each kind is created, changed and deleted day by day."""

from array import array
from collections.abc import Callable, Iterator

import numpy as np

from common.streams import Stream
from ingest.simulator.draws import DAY, MINUTE, Draft, Drawn, Floats, Ints, Record, Span, time_texts

PER_EVENT = {"users": 1 / 5, "products": 1 / 100, "posts": 1 / 200}
"""Entities that exist before the first day, as a multiple of events_per_day."""
AT_LEAST = {"users": 50, "products": 40, "posts": 20}
CREATED = {"users": 1 / 1_000, "products": 1 / 10_000, "posts": 1 / 1_000}
"""Expected creations per day, as a multiple of events_per_day. The changes and deletions below use the same unit."""
CHANGED = {"users": 1 / 500, "products": 1 / 500, "posts": 1 / 1_000}
DELETED = {"users": 1 / 5_000, "products": 1 / 10_000, "posts": 1 / 5_000}
HARD_DELETED = 0.3
"""Share of deletions that are tombstones instead of a version with deleted_at."""
TAIL = {"users": 0.6, "products": 0.75, "posts": 0.6}
"""How uneven popularity is, from 0 to 1: the larger, the more visits and sales go to the most popular entities."""
KEPT = 10
"""Entities that are never deleted, since events need users, products and posts."""


class Entities:
    """All entities of one kind: the newest version of each, and which of them exist in the current span."""

    def __init__(self, stream: Stream) -> None:
        assert stream.key is not None  # noqa: S101  every entity stream has a key
        self.stream = stream
        self.id_field = stream.key
        self.records: list[Record] = []
        """Newest version of each entity, by number. A change replaces the dict, so a copy of the list keeps a day's
        versions."""
        self.id_offset = 0
        """Added to the number of an entity in its id."""
        self._alive = bytearray()
        self._usual_weights = array("d")
        self.present: Ints = np.empty(0, np.int64)
        """Numbers of the entities that exist during the whole span."""
        self.weights: Floats = np.empty(0)
        """Popularity of each entity in `present`: how often it is chosen."""

    def choose(self, rng: np.random.Generator, size: int) -> Ints:
        """Draw numbers of present entities, popular ones more often."""
        cumulated = np.cumsum(self.weights)
        chosen: Ints = self.present[np.searchsorted(cumulated, rng.random(size) * cumulated[-1])]
        return chosen

    def advance(
        self,
        rng: np.random.Generator,
        span: Span,
        *,
        base: int,
        describe: Callable[[int, list[int]], Record],
        change: Callable[[Record, list[int]], Record],
        popularity: Callable[[int, Ints], Floats],
    ) -> Drawn:
        """Draw the changes of one span.

        Args:
            rng: the generator of this span and kind.
            span: its events scale the number of changes.
            base: number of entities from before the first span; 0 in later spans.
            describe: returns the fields of entity `number`, given eight random integers.
            change: returns the changed fields of a record.
            popularity: returns the popularity of entities, given their numbers and the start of a day; 1 is average.
        """
        name = self.stream.name
        versions: list[tuple[bytes, Record | None]] = []
        sent_at: list[int] = []

        def create(created_at: str, sent: int, randoms: list[int]) -> None:
            record = describe(self.id_offset + len(self.records), randoms) | _times(created_at, created_at, None)
            self.records.append(record)
            self._alive.append(True)
            # A heavy-tailed distribution: few users make many of the visits, and few products most of the sales.
            self._usual_weights.append(((randoms[7] + 1) / 2**32) ** -TAIL[name])
            versions.append((record[self.id_field].encode(), record))
            sent_at.append(sent)

        # Entities from before the first span arrive in its first minute, like an initial load.
        created_at = time_texts(span.start - rng.integers(1, 400 * DAY, base))
        sents = np.sort(rng.integers(0, MINUTE, base) + span.start).tolist()
        for text, sent, randoms in zip(created_at, sents, rng.integers(2**32, size=(base, 8)).tolist(), strict=True):
            create(f"{text}Z", sent, randoms)

        there = np.flatnonzero(np.frombuffer(self._alive, np.bool_))
        expected = [rate[name] * span.events_per_day * (span.length / DAY) for rate in (CREATED, CHANGED, DELETED)]
        actions = rng.permutation(np.repeat(["create", "change", "delete"], rng.poisson(expected))).tolist()
        times = np.sort(rng.integers(0, span.length, len(actions)) + span.start)
        gone = 0
        for action, at, text, randoms in zip(
            actions,
            times.tolist(),
            time_texts(times),
            rng.integers(2**32, size=(len(actions), 8)).tolist(),
            strict=True,
        ):
            at_text = f"{text}Z"
            if action == "create":
                create(at_text, at, randoms)
                continue
            number = int(there[randoms[0] % len(there)])
            if not self._alive[number]:
                continue
            record = self.records[number]
            if action == "change":
                record = record | change(record, randoms) | {"updated_at": at_text}
            elif len(there) - gone <= KEPT:
                continue
            else:
                gone += 1
                self._alive[number] = False
                record = record | {"updated_at": at_text, "deleted_at": at_text}
            is_hard = action == "delete" and randoms[1] < HARD_DELETED * 2**32
            self.records[number] = record
            versions.append((record[self.id_field].encode(), None if is_hard else record))
            sent_at.append(at)

        # Entities that are created or deleted in this span have no events in it, so that none is outside of
        # their lifetime.
        self.present = there[np.frombuffer(self._alive, np.bool_)[there]]
        self.weights = np.array(self._usual_weights)[self.present] * popularity(span.start, self.present)

        def build(rows: Ints) -> Iterator[Draft]:
            for row in rows.tolist():
                key, version = versions[row]
                yield key, version, {}

        return Drawn(self.stream, np.array(sent_at, np.int64), build)


def _times(created_at: str, updated_at: str, deleted_at: str | None) -> Record:
    return {"created_at": created_at, "updated_at": updated_at, "deleted_at": deleted_at}
