"""The words of the shop: names, places, devices and texts from Faker, and the categories of its products.

Faker only creates the pools of words; numpy draws from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import orjson

LOCALES = {
    "US": "en_US", "GB": "en_GB", "DE": "de_DE", "FR": "fr_FR", "ES": "es_ES", "CZ": "cs_CZ", "NL": "nl_NL",
    "PL": "pl_PL", "BR": "pt_BR", "JP": "ja_JP",
}  # fmt: skip
"""ISO 3166 alpha-2 country to the locale of its names and cities, some of which are not ASCII.

Without it_IT, since Faker draws its cities from a set, so that they differ between processes."""


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
    """Typical price, around which the prices of products vary."""


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
CATEGORY_NUMBERS = {category.code: number for number, category in enumerate(CATEGORIES)}
CATEGORY_IDS = {category.code: category.category_id for category in CATEGORIES}
COLORS = ("black", "blue", "gray", "green", "maroon", "navy", "olive", "purple", "red", "teal", "white", "yellow")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    places: list[Place]
    devices: list[Device]
    sentences: list[str]
    activities: list[orjson.Fragment]
    """Nested objects of 4 to 18 KB for web events, encoded once, as encoding is most of the cost of an event."""


@lru_cache(maxsize=4)
def vocabulary(seed: int) -> Vocabulary:
    """Return the pools of words for a seed."""
    from faker import Faker  # imported here, since it would take a tenth of the start of every command

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
