"""The shop: the fields of its users, products and posts, and how popular each one is on a day.

Draws are seeded by (seed, number of the span, purpose), so a day is the same whenever and wherever it is drawn.
"""

import numpy as np

from common.streams import STREAMS
from ingest.simulator.draws import DAY, Drawn, Floats, Ints, Purpose, Record, Span, generator, spread, uuid_text
from ingest.simulator.entities import AT_LEAST, PER_EVENT, Entities
from ingest.simulator.vocabulary import CATEGORIES, CATEGORY_NUMBERS, COLORS, vocabulary

LOYAL = 0.15
"""Share of accounts that visit every week."""
COMES_THIS_WEEK = 0.3
"""Probability that any other account visits in a week."""
TRENDING_EVERY, TREND_DAYS, TREND = 12, 30, 14.0
"""Every twelfth product trends once in 30 days, and its demand then rises to 15 times the usual."""


def activity(day_start: int, accounts: Ints) -> Floats:
    """Return the visits of each account on a day, relative to its average. The weeks of an account begin on a weekday
    that depends on its number."""
    week = (day_start // DAY + accounts) // 7
    comes = (spread(accounts, 2) < LOYAL) | ((spread(accounts, 3) + spread(week, 4)) % 1 < COMES_THIS_WEEK)
    return np.where(comes, 1.0, 0.02)


def steady(day_start: int, posts: Ints) -> Floats:
    return np.ones(len(posts))


def _entity_id(number: int, first: int, randoms: list[int]) -> str:
    """Return an id. Most are integers, some are UUIDs."""
    if randoms[6] % 5 == 0:
        return uuid_text("".join(f"{value:08x}" for value in randoms[2:6]))
    return str(first + number * 97 + randoms[6] % 97)


class Shop:
    """All entities, advanced span by span."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.words = vocabulary(seed)
        self.users = Entities(STREAMS["users"])
        self.products = Entities(STREAMS["products"])
        self.posts = Entities(STREAMS["posts"])

    def advance(self, span: Span) -> list[Drawn]:
        """Draw the changes of a span, and return its versions. Spans must be drawn in order. The first one also has the
        entities from before it, in a number that fits its `events_per_day`."""
        kinds = (
            (self.users, Purpose.USERS, self._user, self._changed_user, activity),
            (self.products, Purpose.PRODUCTS, self._product, self._changed_product, self._demand),
            (self.posts, Purpose.POSTS, self._post, self._changed_post, steady),
        )
        drawn = []
        for entities, purpose, describe, change, popularity in kinds:
            name = entities.stream.name
            is_new = not entities.records
            base = max(AT_LEAST[name], round(PER_EVENT[name] * span.events_per_day)) if is_new else 0
            rng = generator(self.seed, span.number, purpose)
            drawn.append(
                entities.advance(rng, span, base=base, describe=describe, change=change, popularity=popularity)
            )
        return drawn

    def _demand(self, day_start: int, products: Ints) -> Floats:
        """Return the demand for each product on a day: higher in the first categories, and while the product trends."""
        days_from_peak = (day_start // DAY + 11 * products) % TREND_DAYS - TREND_DAYS / 2
        bump = TREND * np.exp(-((days_from_peak / 3) ** 2))
        usual = (1.0 + self._categories(products)) ** -0.7
        demand: Floats = np.where(products % TRENDING_EVERY == 3, 1 + bump, 1.0) * usual
        return demand

    def _categories(self, products: Ints) -> Ints:
        records = self.products.records
        return np.array([CATEGORY_NUMBERS[records[number]["category_code"]] for number in products.tolist()], np.int64)

    def products_like(self, rng: np.random.Generator, products: Ints) -> Ints:
        """Return, for each product, another product of its category; any other product if the category has only one."""
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
        # Users from before the first day write the first posts; existing users write the later ones.
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
