"""Simulates a shop, always the same for a seed: its streams, whose ids join, and faults in their messages.

A day depends only on the seed, its number, and the settings of that day and earlier ones: late messages and returns of
earlier days arrive on it. So a killed run publishes its unfinished day again with the same ids and bodies, and n runs
of one day equal one run of n days.

`shop.py` has the users, products and posts, `journeys.py` the visits and their pages, `events.py` the event streams
that follow from them, and `faults.py` the faults of their messages.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from heapq import merge
from operator import itemgetter
from pathlib import Path

import orjson

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.message import Message
from ingest.producers import Producer, duration, retentions
from ingest.simulator.draws import DAY, Purpose, Span, generator
from ingest.simulator.events import draw_events
from ingest.simulator.faults import CARRIED_DAYS, Delivery, Faults, deliver
from ingest.simulator.returns import RETURN_DAYS, Sales, draw_returns
from ingest.simulator.shop import Shop

__all__ = ["DEFAULT_START", "Faults", "SimulationReport", "simulate", "simulated_days"]

DEFAULT_START = date(2026, 1, 1)
STATE_FILE = "simulator.json"
WORLD = 2
"""Version of the random draws. Only the version that started a spool can continue it."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """The messages and days that a run published."""

    messages: dict[str, int]
    """Number of published messages by stream name."""
    first_day: date
    last_day: date

    @property
    def total(self) -> int:
        return sum(self.messages.values())


@dataclass(frozen=True, slots=True)
class _Plan:
    """The settings of a day. They are stored, since later days draw its late events and returns again."""

    events_per_day: int
    faults: Faults


def simulate(
    settings: Settings,
    producer: Producer,
    *,
    days: int,
    seed: int,
    events_per_day: int,
    start: date = DEFAULT_START,
    faults: Faults | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulationReport:
    """Publish the next `days` days of the shop.

    The published days are recorded in `simulator.json` in the spool folder, after each day.

    Args:
        producer: an open producer.
        days: number of days, at least 1.
        seed: at least 0; the same in all runs of one shop.
        events_per_day: events per day of all six event streams together, averaged over a week, before faults and
            without returns; at least 1. It may change between runs. Its value on the first day determines the number of
            accounts, products and posts.
        start: date of the shop's first day; the same in all runs.
        faults: rates of faults; None for the defaults. They may change between runs.
        on_progress: called after each day with the number of days and of messages that this run has published.

    Raises:
        UserError: if a value is out of range; the seed, start or version of the simulator differs from the earlier
            runs; the recorded state cannot be read; a Kafka topic would delete the days at once; or messages cannot be
            delivered.
    """
    for name, value, least in (("days", days, 1), ("events_per_day", events_per_day, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")
    state_path = settings.spool_path / STATE_FILE
    plans = read_plans(state_path, seed, start)
    first = len(plans)
    try:
        last_day = start + timedelta(days=first + days - 1)
    except OverflowError as error:
        raise UserError(f"{days} days from {start} is after the year 9999; use fewer days") from error
    for name, limit in retentions(settings, list(STREAMS.values())).items():
        first_day = start + timedelta(days=first)
        if datetime.combine(first_day, time.min, UTC) < datetime.now(UTC) - limit:
            raise UserError(
                f"Kafka topic {settings.topic(STREAMS[name])} has a retention of {duration(limit)}: it would delete"
                f" the messages of {first_day}, landed or not. Set retention.ms=-1 on the topic, or a later --start"
            )
    today = _Plan(events_per_day, Faults() if faults is None else faults)

    messages = dict.fromkeys(STREAMS, 0)
    shop = Shop(seed)
    epoch_day = (start - date(1970, 1, 1)).days
    recent: deque[list[Delivery]] = deque(maxlen=CARRIED_DAYS + 1)
    sales: deque[Sales] = deque(maxlen=RETURN_DAYS)
    for day in range(first + days):
        plan = plans[day] if day < first else today
        day_start = (epoch_day + day) * DAY
        # The shop must advance through all its days. Events are drawn only for days that still have some to publish.
        span = Span(day, day_start, plan.events_per_day)
        versions = shop.advance(span)
        if day < first - CARRIED_DAYS - RETURN_DAYS:
            continue
        events, sold = draw_events(shop, span)
        returns = draw_returns(shop, span, sales)
        sales.append(sold)
        if day < first - CARRIED_DAYS:
            continue
        recent.append(
            [
                deliver(one, plan.faults, day_start, generator(seed, day, Purpose.FAULTS + number))
                for number, one in enumerate([*versions, *events, returns])
            ]
        )
        if day < first:
            continue
        for name, stream in STREAMS.items():
            batch = _batch([one for carried in recent for one in carried if one.drawn.stream is stream], day_start)
            messages[name] += producer.produce(stream, batch)
        # The state is saved after the delivery, since a kill between the two would otherwise lose the messages.
        producer.flush()
        plans.append(plan)
        _write_state(state_path, seed, start, plans)
        if on_progress is not None:
            on_progress(day - first + 1, sum(messages.values()))
    return SimulationReport(messages, start + timedelta(days=first), last_day)


def simulated_days(settings: Settings) -> int:
    """Return how many days have been published to this spool or broker.

    Raises:
        UserError: if the recorded state cannot be read.
    """
    path = settings.spool_path / STATE_FILE
    try:
        return len(orjson.loads(path.read_bytes())["published_days"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove the spool folder to start over") from error


def _batch(deliveries: list[Delivery], day_start: int) -> Iterator[Message]:
    parts = [delivery.between(day_start, day_start + DAY) for delivery in deliveries]
    return (message for _, message in merge(*parts, key=itemgetter(0)))


def read_plans(path: Path, seed: int, start: date) -> list[_Plan]:
    """Return the plans of the days that have been published.

    Raises:
        UserError: if the state is of another seed, start or version of the simulator, or cannot be read.
    """
    try:
        state = orjson.loads(path.read_bytes())
        recorded = (state["seed"], date.fromisoformat(state["start"]))
        world = state.get("world", 1)
        plans = [_Plan(day["events_per_day"], Faults(**day["faults"])) for day in state["published_days"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove the spool folder to start over") from error
    if world != WORLD:
        raise UserError(
            f"{path.parent} holds days of an earlier version of the simulated shop, which cannot be continued; "
            "remove it (`make clean` removes the warehouse too), or use another SPOOL_PATH"
        )
    if recorded != (seed, start):
        raise UserError(
            f"{path.parent} holds a shop of seed {recorded[0]} that starts on {recorded[1]}, not seed {seed} and "
            f"{start}; use those, or another SPOOL_PATH"
        )
    return plans


def _write_state(path: Path, seed: int, start: date, plans: list[_Plan]) -> None:
    state = {
        "world": WORLD,
        "seed": seed,
        "start": start.isoformat(),
        "published_days": [asdict(plan) for plan in plans],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(state, option=orjson.OPT_APPEND_NEWLINE))
    temporary.replace(path)
