"""The shop: its vocabulary, its people, products and posts, and how they change from day to day.

Faker gives the pools of words only; every choice among them is a numpy draw, seeded by
(seed, day, purpose), so that a day is the same whenever and wherever it is drawn.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ingest.streams import STREAMS, Stream

SECOND = 1_000_000
"""Every time in the simulator is in microseconds; instants are since the epoch, UTC."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Record = dict[str, Any]
Draft = tuple[bytes | None, Record | None, Mapping[str, str]]
"""Key, body (None is a tombstone) and attributes of a message before faults."""


class Purpose(IntEnum):
    """What a generator is for: draws of one purpose never shift those of another."""

    USERS = 1
    PRODUCTS = 2
    POSTS = 3
    VISITS = 4
    SALES = 5
    RETURNS = 6
    FAULTS = 100
    """Plus the number of the stream, returns being the last one."""


def generator(seed: int, day: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, day, purpose])))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What happened in one stream on one day, before bodies are built: most carried-over days never need them."""

    stream: Stream
    sent_at: Ints
    """When the producer would send each row, were nothing late."""
    build: Callable[[Ints], Iterator[Draft]]
    """Drafts of the given rows, in that order; the same row always gives an equal draft."""


def time_texts(instants: Ints) -> list[str]:
    """Instants as `2026-01-05T21:19:04.363887`."""
    texts: list[str] = np.datetime_as_string(instants.astype("datetime64[us]")).tolist()
    return texts


def uuid_text(digits: str, number: int = 0) -> str:
    """The number-th run of 32 hex digits as a version 4 UUID."""
    h = digits[32 * number : 32 * number + 32]
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def hex_digits(rng: np.random.Generator, count: int) -> str:
    """Digits for `count` UUIDs."""
    return rng.bytes(16 * count).hex()


def lognormal(
    rng: np.random.Generator, count: int, *, median: Floats | int, sigma: Floats | float, least: int, most: int
) -> Ints:
    return np.clip(rng.lognormal(np.log(median), sigma, count), least, most).astype(np.int64)


def spread(numbers: Ints, salt: int) -> Floats:
    """A share from 0 to 1 for each number: always the same one, and evenly spread over any run of numbers."""
    return np.asarray(numbers * IRRATIONAL[salt] % 1, np.float64)


IRRATIONAL = (0.6180339887498949, 0.41421356237309515, 0.7320508075688772, 0.23606797749978969, 0.6457513110645906)
"""Of the golden ratio and the square roots of 2, 3, 5 and 7."""


def is_weekend(day_start: int) -> bool:
    return (day_start // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday


# -- vocabulary -------------------------------------------------------------------------------------------------------

LOCALES = {
    "US": "en_US", "GB": "en_GB", "DE": "de_DE", "FR": "fr_FR", "ES": "es_ES", "CZ": "cs_CZ", "NL": "nl_NL",
    "PL": "pl_PL", "BR": "pt_BR", "JP": "ja_JP",
}  # fmt: skip
"""ISO 3166 alpha-2 country to the locale of its names and cities; some are not ASCII, as in life.

Not it_IT: Faker draws its cities from a set, so that they differ from process to process."""


@dataclass(frozen=True, slots=True)
class Place:
    country_code: str
    first_names: list[str]
    last_names: list[str]
    cities: list[str]
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Device:
    browser: str
    system: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Category:
    code: str
    noun: str
    category_id: str
    brands: tuple[str, ...]
    price: float
    """Typical price; a product's own varies around it."""


CATEGORIES = [
    Category(code, noun, str(2_053_013_552_000_000_000 + 7_919 * number), tuple(brands.split()), price)
    for number, (code, noun, brands, price) in enumerate(
        (
            ("electronics.telephone", "telephone", "samsung xiaomi nokia huawei", 210.0),
            ("electronics.smartphone", "smartphone", "apple samsung xiaomi oppo", 520.0),
            ("electronics.clocks", "watch", "casio garmin apple", 160.0),
            ("electronics.audio.headphone", "headphone", "sony jbl bose", 85.0),
            ("electronics.video.tv", "television", "lg samsung artel", 430.0),
            ("computers.notebook", "notebook", "lenovo acer asus hp", 690.0),
            ("computers.peripherals.printer", "printer", "canon hp epson", 140.0),
            ("appliances.kitchen.washer", "washer", "bosch indesit candy", 310.0),
            ("appliances.kitchen.kettle", "kettle", "tefal bosch polaris", 35.0),
            ("furniture.living_room.sofa", "sofa", "brw ikea", 540.0),
            ("furniture.bedroom.lamp", "lamp", "ikea philips", 28.0),
            ("apparel.shoes", "shoe", "nike adidas puma respect", 75.0),
            ("apparel.shirt", "shirt", "levis zara", 32.0),
            ("sport.bicycle", "bicycle", "author stels merida", 390.0),
            ("accessories.bag", "bag", "baden samsonite", 48.0),
        )
    )
]
COLORS = ("black", "blue", "gray", "green", "maroon", "navy", "olive", "purple", "red", "teal", "white", "yellow")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    places: list[Place]
    devices: list[Device]
    sentences: list[str]
    activities: list[orjson.Fragment]
    """Nested objects of 4 to 18 KB, encoded once: encoding them for each web event would be most of its cost."""


@lru_cache(maxsize=4)
def vocabulary(seed: int) -> Vocabulary:
    """The pools of words of a seed."""
    from faker import Faker  # only `simulate` needs it, and it takes a tenth of the start of every command

    places = []
    for country_code, locale in LOCALES.items():
        words = Faker(locale)
        words.seed_instance(seed)
        places.append(
            Place(
                country_code,
                [words.first_name() for _ in range(40)],
                [words.last_name() for _ in range(40)],
                [words.city() for _ in range(12)],
                [words.address().replace("\n", ", ") for _ in range(12)],
            )
        )
    words = Faker("en_US")
    words.seed_instance(seed)
    agents: dict[str, Callable[[], str]] = {
        "Chrome": words.chrome,
        "Firefox": words.firefox,
        "Safari": words.safari,
        "Opera": words.opera,
    }
    devices = [
        Device(browser, _system(agent), agent)
        for browser, make in agents.items()
        for agent in (make() for _ in range(20))
    ]
    sentences = [words.sentence(nb_words=12) for _ in range(300)]
    return Vocabulary(places, devices, sentences, [_activity(sentences, number) for number in range(32)])


def _system(user_agent: str) -> str:
    marks = (("Android", "Android"), ("iP", "iOS"), ("Mac", "macOS"), ("Windows", "Windows"))
    return next((system for mark, system in marks if mark in user_agent), "Linux")


def _activity(sentences: list[str], number: int) -> orjson.Fragment:
    attachments = [
        {
            "objectType": "article",
            "id": f"tag:shop.example,2026:{number}/{item}",
            "content": sentences[(number * 61 + item * 7) % len(sentences)],
            "summary": sentences[(number * 37 + item * 11) % len(sentences)],
            "tags": [{"objectType": "tag", "displayName": color} for color in COLORS[item % 5 : item % 5 + 3]],
            "likes": {"totalItems": (number * item) % 97},
        }
        for item in range(10 + number)
    ]
    return orjson.Fragment(orjson.dumps({"objectType": "product-page", "attachments": attachments}))


# -- people, products, posts ------------------------------------------------------------------------------------------

PER_EVENT = {"users": 1 / 5, "products": 1 / 100, "posts": 1 / 200}
"""Base population for each event a day."""
AT_LEAST = {"users": 50, "products": 40, "posts": 20}
CREATED = {"users": 1 / 1_000, "products": 1 / 10_000, "posts": 1 / 1_000}
"""Expected creations a day for each event a day; likewise below."""
CHANGED = {"users": 1 / 500, "products": 1 / 500, "posts": 1 / 1_000}
DELETED = {"users": 1 / 5_000, "products": 1 / 10_000, "posts": 1 / 5_000}
HARD_DELETED = 0.3
"""Share of deletions that are tombstones instead of a version with deleted_at."""
TAIL = {"users": 0.6, "products": 0.75, "posts": 0.6}
"""The larger, the more of all visits and sales the most popular ones have; below 1."""
KEPT = 10
"""A shop never deletes its last entities: events need someone and something."""

LOYAL = 0.15
"""Share of accounts that come in every week."""
COMES_THIS_WEEK = 0.3
"""Probability that any other account comes in a week."""
TRENDING_EVERY, TREND_DAYS, TREND = 12, 30, 14.0
"""Each twelfth product has a trend within 30 days: at its peak it is sought 15 times as much as at other times."""


def activity(day_start: int, accounts: Ints) -> Floats:
    """How much each account visits on a day, relative to its usual; the weeks of each begin on its own weekday."""
    week = (day_start // DAY + accounts) // 7
    comes = (spread(accounts, 2) < LOYAL) | ((spread(accounts, 3) + spread(week, 4)) % 1 < COMES_THIS_WEEK)
    return np.where(comes, 1.0, 0.02)


def steady(day_start: int, posts: Ints) -> Floats:
    return np.ones(len(posts))


class Entities:
    """One kind of entity: the newest version of each one that ever was, and who is there on the present day."""

    def __init__(self, stream: Stream) -> None:
        assert stream.key is not None  # noqa: S101 - the three entity streams are keyed by id
        self.stream = stream
        self.id_field = stream.key
        self.records: list[Record] = []
        """By number; a change puts a new dict in the place, so that a list kept of yesterday stays true."""
        self._alive: list[bool] = []
        self._usual_weights: list[float] = []
        self.present: Ints = np.empty(0, np.int64)
        """Numbers of those that exist the whole day."""
        self.weights: Floats = np.empty(0)
        """Of those, how often they are chosen."""

    def choose(self, rng: np.random.Generator, size: int) -> Ints:
        """Numbers of present entities, the popular ones more often."""
        cumulated = np.cumsum(self.weights)
        chosen: Ints = self.present[np.searchsorted(cumulated, rng.random(size) * cumulated[-1])]
        return chosen

    def advance(
        self,
        rng: np.random.Generator,
        *,
        base: int,
        day_start: int,
        events_per_day: int,
        describe: Callable[[int, list[int]], Record],
        change: Callable[[Record, list[int]], Record],
        popularity: Callable[[int, Ints], Floats],
    ) -> Drawn:
        """Live through one day.

        Args:
            rng: The generator of this day and kind.
            base: How many entities come from before the first day; 0 on later days.
            day_start: Microseconds since the epoch.
            events_per_day: Scales the number of changes.
            describe: Makes the fields of entity `number` of eight random integers.
            change: Makes the changed fields of a record.
            popularity: Of entities by number, on the day that begins at an instant; 1 is the usual.
        """
        name = self.stream.name
        versions: list[tuple[bytes, Record | None]] = []
        sent_at: list[int] = []

        def create(created_at: str, sent: int, randoms: list[int]) -> None:
            record = describe(len(self.records), randoms) | _times(created_at, created_at, None)
            self.records.append(record)
            self._alive.append(True)
            # a heavy tail: few users make many visits, few products most sales; u in (0, 1]
            self._usual_weights.append(((randoms[7] + 1) / 2**32) ** -TAIL[name])
            versions.append((record[self.id_field].encode(), record))
            sent_at.append(sent)

        # the base is older than the first day and arrives in its first minute, as an initial load does
        created_at = time_texts(day_start - rng.integers(1, 400 * DAY, base))
        sents = np.sort(rng.integers(0, MINUTE, base) + day_start).tolist()
        for text, sent, randoms in zip(created_at, sents, rng.integers(2**32, size=(base, 8)).tolist(), strict=True):
            create(f"{text}Z", sent, randoms)

        there = [number for number, alive in enumerate(self._alive) if alive]
        expected = [rate[name] * events_per_day for rate in (CREATED, CHANGED, DELETED)]
        actions = rng.permutation(np.repeat(["create", "change", "delete"], rng.poisson(expected))).tolist()
        times = np.sort(rng.integers(0, DAY, len(actions)) + day_start)
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
            number = there[randoms[0] % len(there)]
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

        # who is created or deleted today has no events today: none stands before its creation or after its end
        self.present = np.array([number for number in there if self._alive[number]], np.int64)
        self.weights = np.array(self._usual_weights)[self.present] * popularity(day_start, self.present)

        def build(rows: Ints) -> Iterator[Draft]:
            for row in rows.tolist():
                key, version = versions[row]
                yield key, version, {}

        return Drawn(self.stream, np.array(sent_at, np.int64), build)


def _times(created_at: str, updated_at: str, deleted_at: str | None) -> Record:
    return {"created_at": created_at, "updated_at": updated_at, "deleted_at": deleted_at}


def _entity_id(number: int, first: int, randoms: list[int]) -> str:
    """Ids that look like integers, and now and then like a UUID."""
    if randoms[6] % 5 == 0:
        return uuid_text("".join(f"{value:08x}" for value in randoms[2:6]))
    return str(first + number * 97 + randoms[6] % 97)


class Shop:
    """All entities, living through the days in order from day 0."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.words = vocabulary(seed)
        self.users = Entities(STREAMS["users"])
        self.products = Entities(STREAMS["products"])
        self.posts = Entities(STREAMS["posts"])

    def advance(self, day: int, day_start: int, events_per_day: int) -> list[Drawn]:
        """Live through a day: days must come in order, from 0. Returns the versions of that day."""
        kinds = (
            (self.users, Purpose.USERS, self._user, self._changed_user, activity),
            (self.products, Purpose.PRODUCTS, self._product, self._changed_product, self._demand),
            (self.posts, Purpose.POSTS, self._post, self._changed_post, steady),
        )
        drawn = []
        for entities, purpose, describe, change, popularity in kinds:
            name = entities.stream.name
            base = max(AT_LEAST[name], round(PER_EVENT[name] * events_per_day)) if day == 0 else 0
            rng = generator(self.seed, day, purpose)
            drawn.append(
                entities.advance(
                    rng,
                    base=base,
                    day_start=day_start,
                    events_per_day=events_per_day,
                    describe=describe,
                    change=change,
                    popularity=popularity,
                )
            )
        return drawn

    def _demand(self, day_start: int, products: Ints) -> Floats:
        """How much each product is sought on a day: more in the first categories, and while it has its trend."""
        days_from_peak = (day_start // DAY + 11 * products) % TREND_DAYS - TREND_DAYS / 2
        bump = TREND * np.exp(-((days_from_peak / 3) ** 2))
        usual = (1.0 + self._categories(products)) ** -0.7
        demand: Floats = np.where(products % TRENDING_EVERY == 3, 1 + bump, 1.0) * usual
        return demand

    def _categories(self, products: Ints) -> Ints:
        records = self.products.records
        return np.array([CATEGORY_NUMBERS[records[number]["category_code"]] for number in products.tolist()], np.int64)

    def products_like(self, rng: np.random.Generator, products: Ints) -> Ints:
        """For each present product another one of its category, or any other one where it is alone."""
        present = self.products.present
        category = self._categories(present)
        by_category = np.argsort(category, kind="stable")
        bounds = np.searchsorted(category[by_category], np.arange(len(CATEGORIES) + 1))
        cumulated = np.cumsum(self.products.weights[by_category])
        position = np.searchsorted(present, products)
        begin, end = bounds[category[position]], bounds[category[position] + 1]
        low, high = np.r_[0, cumulated][begin], cumulated[end - 1]
        drawn = np.searchsorted(cumulated, low + rng.random(len(products)) * (high - low)).clip(begin, end - 1)
        following = begin + (drawn + 1 - begin) % (end - begin)
        like = present[by_category[np.where(present[by_category[drawn]] == products, following, drawn)]]
        alone: Ints = present[(position + 1) % len(present)]
        return np.where(like == products, alone, like)

    def _user(self, number: int, randoms: list[int]) -> Record:
        place = self.words.places[randoms[0] % len(self.words.places)]
        first = place.first_names[randoms[1] % len(place.first_names)]
        last = place.last_names[randoms[2] % len(place.last_names)]
        return {
            "user_id": _entity_id(number, 510_000_000, randoms),
            "user_name": f"{first}.{last}{number}".lower().replace(" ", ""),
            "first_name": first,
            "last_name": last,
            "country_code": place.country_code,
            "favorite_color": COLORS[randoms[5] % len(COLORS)],
        }

    def _changed_user(self, record: Record, randoms: list[int]) -> Record:
        place = self.words.places[randoms[2] % len(self.words.places)]
        if randoms[1] % 3 == 0:
            return {"country_code": place.country_code}
        if randoms[1] % 3 == 1:
            return {"last_name": place.last_names[randoms[3] % len(place.last_names)]}
        return {"favorite_color": COLORS[randoms[3] % len(COLORS)]}

    def _product(self, number: int, randoms: list[int]) -> Record:
        category = CATEGORIES[randoms[0] % len(CATEGORIES)]
        brand = category.brands[randoms[1] % len(category.brands)]
        model = f"{chr(65 + randoms[2] % 26)}{chr(65 + randoms[3] % 26)}-{100 + randoms[4] % 900}"
        return {
            "product_id": _entity_id(number, 1_000_000, randoms),
            "name": f"{brand.title()} {category.noun} {model}",
            "category_code": category.code,
            "category": category.noun,
            "model": model,
            "brand": brand,
            "price": round(category.price * (0.4 + 1.4 * randoms[5] / 2**32), 2),
        }

    def _changed_product(self, record: Record, randoms: list[int]) -> Record:
        if randoms[1] % 5 == 0:
            model = f"{record['model'].split()[0]} mk{2 + randoms[2] % 3}"
            return {"model": model, "name": f"{record['brand'].title()} {record['category']} {model}"}
        return {"price": round(record["price"] * (0.85 + 0.3 * randoms[2] / 2**32), 2)}

    def _post(self, number: int, randoms: list[int]) -> Record:
        # the authors of the base are the base's users, later ones whoever was there yesterday or today
        authors = self.users.present
        return {
            "post_id": uuid_text("".join(f"{value:08x}" for value in randoms[2:6])),
            "user_id": self.users.records[authors[randoms[0] % len(authors)]]["user_id"],
            "post_text": self._sentence(randoms[1]),
        }

    def _changed_post(self, record: Record, randoms: list[int]) -> Record:
        return {"post_text": f"{record['post_text']} Edit: {self._sentence(randoms[1])}"[:280]}

    def _sentence(self, random: int) -> str:
        return self.words.sentences[random % len(self.words.sentences)]


CATEGORY_NUMBERS = {category.code: number for number, category in enumerate(CATEGORIES)}
CATEGORY_IDS = {category.code: category.category_id for category in CATEGORIES}
