"""Random worlds: a few messages each, out of order, late, duplicate and broken.

Each world has ids and days of its own, so that many worlds share a warehouse without hiding each other's failures:
neither their rows nor the days that a build recomputes overlap. Ids within a world are few, so that rows join.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from common.streams import Stream
from dbt_project.exactness.bodies import Bodies
from dbt_project.exactness.literals import NO_LITERALS, Literals
from dbt_project.exactness.message import Message
from dbt_project.exactness.values import SECOND, Chance, Values, id_names

MAX_WORLDS = 300
"""Maximum worlds per warehouse: the days of more would be in the future."""
COMMITS = 2
"""Commits of the loader per run."""
_MICROSECOND, _HOUR, _DAY = 1, 3_600_000_000, 86_400_000_000
_FIRST_DAY, _DAYS = date(2018, 12, 27), 9
"""First day of world 0, and days per world."""
_FIRST_OLD_DAY, _OLD_DAYS = date(2003, 12, 30), 4
"""First old day of world 0, and old days per world: messages of these days are years late."""


def draw_world(
    rng: random.Random,
    number: int,
    streams: Sequence[Stream],
    runs: int,
    windows: Sequence[int] = (),
    literals: Literals = NO_LITERALS,
) -> list[Message]:
    """The messages of one world.

    Args:
        number: from 0 to MAX_WORLDS - 1; no other world has its ids and days.
        streams: candidates, of which mostly one to three are used. One that is listed twice is used more often.
        runs: messages arrive before the runs 0 to runs - 1 of the build.
        windows: lengths in seconds; the time between two events is sometimes exactly one of them.
        literals: values that fields sometimes get, and further windows.
    """
    return _World(rng, number, streams, runs, windows, literals).messages()


class _World(Chance):
    def __init__(
        self,
        rng: random.Random,
        number: int,
        streams: Sequence[Stream],
        runs: int,
        windows: Sequence[int],
        literals: Literals,
    ) -> None:
        super().__init__(rng)
        self.number = number
        self.runs = runs
        self.streams = self.related(streams)
        self.is_calm = not self.one_in(3)
        """Whether all messages are about one person and one product within hours, and only their order is unusual."""
        ids = [f"a{number}"] if self.is_calm else [f"a{number}", f"b{number}"]
        self.day = datetime.combine(_FIRST_DAY + timedelta(days=_DAYS * number + 4), datetime.min.time())
        self.old_day = datetime.combine(_FIRST_OLD_DAY + timedelta(days=_OLD_DAYS * number), datetime.min.time())
        self.values = Values(rng, number, ids, literals)
        self.bodies = Bodies(self.values, self.day)
        self.literal_day: datetime | None = None
        """A date that the SQL names, sometimes moved by days of this world; None if the SQL names none."""
        if literals.days:
            day = datetime.combine(rng.choice(literals.days), datetime.min.time())
            self.literal_day = day + timedelta(days=self.any_of(0, _OLD_DAYS * number))
        named = literals.windows if self.one_in(2) else ()
        edge = rng.choice(named or (*windows, 60, 1800, 3600)) * SECOND
        self.steps = (0, _MICROSECOND, SECOND, 10 * SECOND, edge // 2, edge, edge, edge + _MICROSECOND)
        """Possible times between two events, in microseconds."""
        self.far_steps = (6 * _HOUR, _DAY - SECOND, _DAY, 2 * _DAY, 4 * _DAY)

    def related(self, streams: Sequence[Stream]) -> list[Stream]:
        """One stream, or several that mostly share names of ids, so that their rows join."""
        candidates = [*{stream.name: stream for stream in streams}.values()]
        if self.one_in(12):
            return candidates
        found = [self.rng.choice(streams)]
        for _ in range(self.any_of(0, 0, 1, 1, 2)):
            others = [stream for stream in candidates if stream not in found]
            weights = [1 + 4 * len(id_names(found[0]) & id_names(stream)) for stream in others]
            found += self.rng.choices(others, weights) if others else []
        return found

    def messages(self) -> list[Message]:
        rng, found = self.rng, list[Message]()
        at = self.any_of(0, -SECOND, -self.steps[-2] // 2)  # around midnight, between two days
        for _ in range(rng.choice((3, 4, 5, 6, 8, 10, 12))):
            is_far = self.one_in(20 if self.is_calm else 4)
            at += rng.choice((1, -1)) * rng.choice(self.far_steps if is_far else self.steps)
            at = max(-4 * _DAY, min(at, 4 * _DAY))
            place = len(found)
            if found and self.one_in(5):
                found.append(self.copy(rng.choice(found), place))
            else:
                found.append(self.message(rng.choice(self.streams), at, place))
        return found

    def message(self, stream: Stream, at: int, place: int) -> Message:
        day = self.old_day if self.one_in(10) else self.day
        if self.literal_day is not None and self.one_in(3):
            day = self.literal_day
        time = day + timedelta(microseconds=at)
        body, key = self.bodies.entity(stream, time) if stream.kind == "entity" else self.bodies.event(stream, time)
        attributes = None
        if stream.envelope == "cloudevents" and self.one_in(2):
            attributes, body = self.bodies.binary(stream, body)
        payload: bytes | None = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        if self.one_in(12):
            payload, key = self.bodies.broken(stream, body, key)
        return Message(
            run=self.rng.randrange(self.runs),
            commit=self.rng.randrange(COMMITS),
            stream=stream.name,
            message_id=f"w{self.number}.{place}",
            published_at=self.published(time),
            payload=payload,
            key=key,
            attributes=attributes,
        )

    def published(self, time: datetime) -> datetime | None:
        """A time of publication: mostly soon after the event; sometimes late, unknown, or before the event, even so far
        that staging rejects it."""
        if not self.one_in(5):
            return time + timedelta(seconds=self.rng.choice((0, 1, 2, 300)))
        delay = self.any_of(timedelta(hours=1), timedelta(days=2), timedelta(days=2000), -timedelta(days=1), None)
        if self.one_in(8):
            delay = -timedelta(days=1, microseconds=1)
        return None if delay is None else time + delay

    def copy(self, message: Message, place: int) -> Message:
        """The same message redelivered, its body sent again, or another body with the same identity."""
        again = replace(message, run=self.rng.randrange(self.runs), commit=self.rng.randrange(COMMITS))
        kind = self.rng.randrange(3)
        if kind == 0:
            return again
        again = replace(again, message_id=f"w{self.number}.{place}")
        return again if kind == 1 else replace(again, payload=self.bodies.changed(message.payload))


def world_of(value: Any) -> int | None:
    """The number of the world that an id, a date or a time belongs to; None if it belongs to none."""
    if isinstance(value, str):
        found = re.fullmatch(r"w(\d+)\.\d+|[ab](\d+)|e(\d+)\.\d+|\w+ (\d+)", value)
        return int(next(group for group in found.groups() if group)) if found else None
    if isinstance(value, date):
        day = value.date() if isinstance(value, datetime) else value
        days, of_each = (day - _FIRST_DAY).days, _DAYS
        if days < 0:
            days, of_each = (day - _FIRST_OLD_DAY).days + 2, _OLD_DAYS
        return days // of_each if 0 <= days // of_each < MAX_WORLDS else None
    return None
