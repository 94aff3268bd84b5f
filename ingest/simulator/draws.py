"""Shared parts of the simulator: times, random draws, and messages before faults."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.streams import Stream

SECOND = 1_000_000
"""All durations in the simulator are in microseconds, and all instants in microseconds since the epoch, UTC."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Record = dict[str, Any]
Draft = tuple[bytes | None, Record | None, Mapping[str, str]]
"""A message before faults: its key, body (None for a tombstone) and attributes."""


class Purpose(IntEnum):
    """What a random generator is for. Each purpose has its own generator, so that draws of one never change those of
    another."""

    USERS = 1
    PRODUCTS = 2
    POSTS = 3
    VISITS = 4
    SALES = 5
    RETURNS = 6
    OFFLINE = 7
    FAULTS = 100
    """First of the numbers for faults: one per stream, then one for returns."""


def generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, purpose])))


@dataclass(frozen=True, slots=True)
class Span:
    """A time whose events are drawn together: a day, or a minute of the feed."""

    number: int
    """Seeds the draws: 0, 1, 2 and so on for days; another number for each minute of the feed."""
    start: int
    events_per_day: int
    """Events of all six event streams at this pace, averaged over a week."""
    length: int = DAY

    @property
    def has_rhythm(self) -> bool:
        """Whether the hours and the day of the week count. A minute has the same pace at any time."""
        return self.length == DAY


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of one stream and span. Bodies are built on demand: most rows of past days never need one."""

    stream: Stream
    sent_at: Ints
    """Instant at which the producer sends each row, unless the row is late."""
    build: Callable[[Ints], Iterator[Draft]]
    """Returns the drafts of the given rows, in that order. It is deterministic: a row always gives the same draft."""


def time_texts(instants: Ints) -> list[str]:
    """Format instants, such as `2026-01-05T21:19:04.363887`."""
    texts: list[str] = np.datetime_as_string(instants.astype("datetime64[us]")).tolist()
    return texts


def uuid_text(digits: str, number: int = 0) -> str:
    """Format the 32 hex digits at position `number` as a version 4 UUID."""
    h = digits[32 * number : 32 * number + 32]
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def hex_digits(rng: np.random.Generator, count: int) -> str:
    """Draw the hex digits of `count` UUIDs."""
    return rng.bytes(16 * count).hex()


def lognormal(
    rng: np.random.Generator, count: int, *, median: Floats | int, sigma: Floats | float, least: int, most: int
) -> Ints:
    return np.clip(rng.lognormal(np.log(median), sigma, count), least, most).astype(np.int64)


def spread(numbers: Ints, salt: int) -> Floats:
    """Return a share from 0 to 1 per number, always the same, and evenly spread over any consecutive numbers."""
    return np.asarray(numbers * IRRATIONAL[salt] % 1, np.float64)


IRRATIONAL = (0.6180339887498949, 0.41421356237309515, 0.7320508075688772, 0.23606797749978969, 0.6457513110645906)
"""Irrational numbers: their multiples modulo 1, which `spread` returns, are evenly distributed."""


def is_weekend(day_start: int) -> bool:
    return (day_start // DAY + 3) % 7 >= 5  # the epoch, 1970-01-01, was a Thursday


def latency(rng: np.random.Generator, count: int) -> Ints:
    """Draw the delays between events and their messages, in microseconds: mostly under a second, sometimes many
    seconds."""
    return lognormal(rng, count, median=SECOND // 8, sigma=1.2, least=1_000, most=MINUTE)


def sample(rng: np.random.Generator, rows: Ints, count: int) -> Ints:
    """Draw up to `count` of these rows, each at most once."""
    return np.asarray(rng.choice(rows, min(max(count, 0), len(rows)), replace=False), np.int64)


def sample_first(rng: np.random.Generator, count: int, *tiers: Ints) -> Ints:
    """Draw up to `count` rows, from a later tier only if the earlier tiers have too few."""
    chosen: list[Ints] = []
    for rows in tiers:
        chosen.append(sample(rng, rows, count - sum(map(len, chosen))))
    return np.concatenate(chosen)


def first_of_each(keys: Ints) -> Ints:
    """Return the index of the first occurrence of each key."""
    return np.unique(keys, return_index=True)[1]


def last_of_each(keys: Ints) -> Ints:
    """Return the index of the last occurrence of each key."""
    _, from_the_end = np.unique(keys[::-1], return_index=True)
    return np.asarray(np.sort(len(keys) - 1 - from_the_end), np.int64)
