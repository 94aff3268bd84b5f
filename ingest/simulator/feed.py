"""A feed of the simulated shop: its events as they happen, at a steady rate, until it is stopped.

A minute of the feed is drawn like a day of `simulate`, but has the same pace at any time of the day. Visits last longer
than a minute, so each minute also has messages of visits that began before it. The visits that were under way at the
start are drawn too, so that the rate is right from the first second.

The feed continues the shop of the simulated days, if there are any. `feed.json` in the spool folder records its runs,
from which the next run draws the changes of users, products and posts again. Events are not drawn again: the start of a
run seeds them, so their ids are new. The feed has no returns.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from heapq import merge
from operator import itemgetter
from pathlib import Path

import numpy as np
import orjson
import structlog

from common.errors import UserError, write_error
from common.settings import Settings
from common.streams import STREAMS, Stream
from ingest.message import Message
from ingest.producers import Producer
from ingest.simulator import DEFAULT_START, STATE_FILE, WORLD, Faults, read_plans
from ingest.simulator.draws import DAY, MINUTE, SECOND, Drawn, Ints, Purpose, Span, generator
from ingest.simulator.events import draw_events
from ingest.simulator.faults import LATEST, Delivery, deliver
from ingest.simulator.shop import Shop

FEED_FILE = "feed.json"
TICK_SECONDS = 0.1
"""Seconds between two deliveries."""
VISIT_MINUTES = 45
"""Minutes that stay drawn, and minutes before the start whose visits are drawn. Fewer than 1 % of the events happen
later after the start of their visit; their messages are built at once, since they need less memory than the minute."""
OFFLINE_GROUPS = 4
"""Groups of visitors per minute whose phones were offline, so that all their events arrive late."""
MAX_BEHIND_SECONDS = 10.0
"""Maximum seconds that the feed catches up on, such as after the computer slept. After more it starts a new run."""
USERS_PER_RATE = 100
"""Users of a new shop, as a multiple of the rate."""
FIRST_NUMBER = 10_000_000
"""Number of the first user, product or post of the feed, above those of simulated days."""
NEVER = 2**62

log = structlog.get_logger()
Due = tuple[int, Stream, Message]
"""The time at which a message is due, its stream, and the message."""


@dataclass(slots=True)
class _Run:
    """A run of the feed, from which the changes of its users, products and posts can be drawn again."""

    start: int
    rate: float
    minutes: int = 0
    """Minutes that have begun."""

    def opening(self) -> Span:
        """Return the minute before the start, in which a new shop gets its users, products and posts."""
        # 5 events per day for each user, as in `PER_EVENT`
        return Span(self.start - MINUTE, self.start - MINUTE, round(5 * USERS_PER_RATE * self.rate), MINUTE)

    def minute(self, number: int) -> Span:
        start = self.start + number * MINUTE
        return Span(start, start, round(self.rate * DAY / SECOND), MINUTE)


def feed(
    settings: Settings,
    producer: Producer,
    *,
    rate: float,
    stop: threading.Event,
    seconds: float | None = None,
    seed: int = 1,
    start: date = DEFAULT_START,
    faults: Faults | None = None,
    on_progress: Callable[[int], None] = lambda messages: None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Produce the events of the shop as they happen, until `stop` is set.

    Args:
        producer: an open producer.
        rate: events per second of all six event streams together, without duplicates; at least 1.
        stop: set it to end within a tick.
        seconds: end after this time; None runs until `stop` is set.
        seed: at least 0; that of the simulated days, if there are any.
        start: date of the first simulated day, if there are any.
        faults: rates of faults; None for the defaults.
        on_progress: called after each delivery with its number of messages.
        clock: returns the present time, in seconds since the epoch.

    Returns:
        The number of messages that were delivered.

    Raises:
        UserError: if the rate is out of range; seed, start or version of the simulator differs from the earlier runs;
            the recorded state cannot be read or written; or messages cannot be delivered. UnavailableError if it is
            worth trying again.
    """
    if rate < 1:
        raise UserError(f"rate is {rate:g}; it must be at least 1 event per second")
    faults = Faults() if faults is None else faults
    ends_at = NEVER if seconds is None else _now(clock) + round(seconds * SECOND)
    total = 0

    def deliver_batches(batches: dict[str, list[Message]]) -> None:
        nonlocal total
        messages = sum(producer.produce(STREAMS[name], batch) for name, batch in batches.items())
        producer.flush()
        total += messages
        on_progress(messages)

    while not stop.is_set() and _now(clock) < ends_at:
        timeline = _Timeline(settings.spool_path, seed, start, rate, faults, _now(clock))
        deliver_batches(timeline.opening())
        batches: dict[str, list[Message]] = defaultdict(list)
        ready_at = until = _now(clock)
        for due, stream, message in timeline:
            if due < ready_at and stream.kind == "event":
                continue  # it happened while the run was prepared; sending these would be a burst
            if due > until:
                deliver_batches(batches)
                batches = defaultdict(list)
                while due > (until := min(_now(clock), ends_at)) and until < ends_at and not stop.is_set():
                    stop.wait(TICK_SECONDS)
                if due > until:
                    break
                if until - due > MAX_BEHIND_SECONDS * SECOND:
                    log.warning("the feed fell behind and continues from now", seconds=(until - due) // SECOND)
                    break
            batches[stream.name].append(message)
    return total


def _now(clock: Callable[[], float]) -> int:
    return round(clock() * SECOND)


class _Timeline:
    """The messages of a run, in the order in which they are due."""

    def __init__(self, folder: Path, seed: int, start: date, rate: float, faults: Faults, now: int) -> None:
        self._path = folder / FEED_FILE
        # Late events are those of phones that were offline. A late version would follow the events that name it.
        self._faults = replace(faults, late=0.0)
        self._late = faults.late
        self._shop = Shop(seed)
        self._run = _Run(now, rate)
        self._drawn: deque[list[Delivery]] = deque(maxlen=VISIT_MINUTES)
        self._built: dict[int, list[Due]] = defaultdict(list)
        """Minute of the run to the messages that were built before it."""

        plans = read_plans(folder / STATE_FILE, seed, start)
        days, self._runs = _read_state(self._path, seed)
        self._days = len(plans) if days is None else days
        first_day = (start - date(1970, 1, 1)).days
        for day, plan in enumerate(plans[: self._days]):
            self._shop.advance(Span(day, (first_day + day) * DAY, plan.events_per_day))
        for entities in (self._shop.users, self._shop.products, self._shop.posts):
            entities.id_offset = FIRST_NUMBER - len(entities.records)
        # A kill may have left versions of the last recorded minute unsent.
        self._unsent: list[tuple[Span, list[Drawn]]] = []
        for run in self._runs:
            for span in (run.opening(), *map(run.minute, range(run.minutes))):
                self._unsent = [(span, self._shop.advance(span))]
        self._unsent.append((self._run.opening(), self._shop.advance(self._run.opening())))
        self._runs.append(self._run)
        self._write_state()
        for number in range(-VISIT_MINUTES, 0):
            self._add(number, self._visits(self._run.minute(number)))

    def opening(self) -> dict[str, list[Message]]:
        """Return the versions to send before the first event, by stream: all entities of a new shop, and the changes
        of the last minute of the run before."""
        batches: dict[str, list[Message]] = defaultdict(list)
        for span, versions in self._unsent:
            for delivery in self._deliveries(span, versions, Purpose.FAULTS):
                for _, message in delivery.between(0, NEVER):
                    now = replace(message, published_at=self._run.start)
                    batches[delivery.drawn.stream.name].append(now)
        return batches

    def __iter__(self) -> Iterator[Due]:
        """Return the messages from the start of the run, without end."""
        number = 0
        while True:
            span = self._run.minute(number)
            versions = self._shop.advance(span)
            # Before its messages, so that the next run knows of all changes that were sent.
            self._run.minutes += 1
            self._write_state()
            late = [one for group in range(OFFLINE_GROUPS) for one in self._late_visits(span, group)]
            self._add(number, [*self._deliveries(span, versions, Purpose.FAULTS), *self._visits(span), *late])
            parts: list[Iterable[Due]] = [sorted(self._built.pop(number, []), key=itemgetter(0))]
            parts += [_between(one, span.start, span.start + MINUTE) for drawn in self._drawn for one in drawn]
            yield from merge(*parts, key=itemgetter(0))
            number += 1

    def _visits(self, span: Span) -> list[Delivery]:
        on_time = replace(span, events_per_day=round((1 - self._late) * span.events_per_day))
        return self._deliveries(span, draw_events(self._shop, on_time)[0], Purpose.FAULTS + len(STREAMS))

    def _late_visits(self, span: Span, group: int) -> list[Delivery]:
        """Draw visits that happened minutes to days ago on phones without a connection, which send their events now."""
        seed = span.number + 1 + group
        rng = generator(self._shop.seed, seed, Purpose.OFFLINE)
        delay = int(np.clip(rng.lognormal(np.log(40 * MINUTE), 2.0), 2 * MINUTE, LATEST))
        events_per_day = round(self._late * span.events_per_day / OFFLINE_GROUPS)
        if not events_per_day * span.length // DAY:
            return []
        past = Span(seed, span.start - delay, events_per_day, span.length)
        deliveries = self._deliveries(past, draw_events(self._shop, past)[0], Purpose.FAULTS)
        # Events of a long visit may come after the phone has a connection again: those are not late.
        return [
            _due(one, np.maximum(one.position, span.start + rng.integers(0, MINUTE, len(one.position))))
            for one in deliveries
        ]

    def _deliveries(self, span: Span, drawn: Iterable[Drawn], purpose: int) -> list[Delivery]:
        """Return the deliveries of rows, in which messages that are out of order are published later."""
        deliveries = []
        for number, one in enumerate(drawn):
            is_entity = one.stream.kind == "entity"
            faults = replace(self._faults, out_of_order=0.0) if is_entity else self._faults
            delivery = deliver(one, faults, span.start, generator(self._shop.seed, span.number, purpose + number))
            deliveries.append(_due(delivery, delivery.position))
        return deliveries

    def _add(self, number: int, deliveries: list[Delivery]) -> None:
        """Add the deliveries of a minute of the run."""
        drawn_until = self._run.start + (number + VISIT_MINUTES) * MINUTE
        for delivery in deliveries:
            for due in _between(delivery, drawn_until, NEVER):
                self._built[(due[0] - self._run.start) // MINUTE].append(due)
        self._drawn.append(deliveries)

    def _write_state(self) -> None:
        state = {
            "world": WORLD,
            "seed": self._shop.seed,
            "simulated_days": self._days,
            "runs": [asdict(run) for run in self._runs],
        }
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(orjson.dumps(state, option=orjson.OPT_APPEND_NEWLINE))
            temporary.replace(self._path)
        except OSError as error:
            raise write_error(temporary, error, "SPOOL_PATH") from error


def _due(delivery: Delivery, due: Ints) -> Delivery:
    """Publish the messages when they are due."""
    return replace(delivery, published_at=due, position=due)


def _between(delivery: Delivery, begin: int, end: int) -> Iterator[Due]:
    stream = delivery.drawn.stream
    return ((due, stream, message) for due, message in delivery.between(begin, end))


def _read_state(path: Path, seed: int) -> tuple[int | None, list[_Run]]:
    """Return the number of simulated days that the feed continues, and its runs; (None, []) before the first."""
    try:
        state = orjson.loads(path.read_bytes())
        recorded = (state["world"], state["seed"])
        days, runs = int(state["simulated_days"]), [_Run(**run) for run in state["runs"]]
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove the spool folder to start over") from error
    if recorded != (WORLD, seed):
        raise UserError(
            f"{path.parent} holds a feed of seed {recorded[1]} and version {recorded[0]} of the simulator, not of seed"
            f" {seed} and version {WORLD}; use another SPOOL_PATH"
        )
    return days, runs
