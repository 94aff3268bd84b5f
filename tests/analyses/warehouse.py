"""A small warehouse to ask: simulated days, random worlds, a scene of what neither of them has, and extreme values."""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner

from common.settings import Settings as IngestSettings
from common.streams import STREAMS
from dbt_project.exactness.message import Message
from engines.duckdb.engine import DuckDBEngine
from engines.duckdb.sink import DuckDBSink
from engines.query import LIMIT, Query
from ingest.landing import land
from ingest.sources import open_sources
from publishing.publish import publish
from serve.answers import Answer
from serve.published import PublishedVersion, open_published
from specification import Settings
from tests.analyses import definition
from tests.dbt_project.exact.check import together
from tests.dbt_project.exact.worlds import draw_worlds, place
from tools import ROOT
from tools.warehouses import commands
from tools.warehouses.in_process import Project

SETTINGS = Settings(session_gap_seconds=600, reporting_time_zone="America/New_York")
FACTS = (
    "analytics.fct_events",
    "analytics.fct_page_views",
    "analytics.fct_sessions",
    "analytics.fct_checkout_attribution",
    "analytics.dim_users_history",
    "analytics.dim_products_history",
    "analytics.dim_posts_history",
    "analytics.dim_countries",
    "analytics.dead_letters",
    "analytics.landing_reconciliation",
    "intermediate.int_staged_messages",
)
WORLDS, SEED = 20, 5
NOON = datetime(2026, 1, 5, 17)  # of New York
BORDER = [(datetime(2026, 3, 29, 3, 30), "7.00"), (datetime(2026, 3, 30, 3, 30), "100.00")]
"""UTC: 23:30 on 28 and 29 March in New York, with nothing else on these days. UTC and New York say different prices of
29 March."""
EPOCH = datetime(1970, 1, 1)
ODD_TEXTS = [
    "'",
    '"; drop table x; --',
    "=cmd|' /C calc'!A0",
    "\x1b[31m\x9b\u202e",
    "\\%_$limit@brand{{ x }}",
    "Äß😀ñ",
    " \t\r\n",
    "\ufffd",
]
BROKEN = [
    b"\xff{",
    b'{"a": "\xc3\x28 \xe2\x82"',
    "\ufffd{".encode(),
    b"\xed\xa0\x80 \xf5\x80\x80\x80 \xc0\xaf",
    b"=1+1\x1b[31m",
    b"",
    b"x" * 100_000,
]
"""Bodies of no message, in UTF-8 or not."""


@dataclass(frozen=True)
class Warehouse:
    settings: IngestSettings
    published: PublishedVersion
    facts: definition.Facts

    def published_query(self, name: str) -> Query:
        return self.published.queries[name]

    def answer(self, name: str, arguments: Mapping[str, str]) -> Answer:
        query = self.published_query(name)
        return self.published.ask(query, query.values(arguments))

    def ask(self, name: str, arguments: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """The rows of the answer, in order."""
        return self.answer(name, arguments).rows

    def table(self, name: str) -> pa.Table:
        """Every row of a table or view, `schema.name`."""
        with DuckDBSink(self.settings.warehouse_path).connection(read_only=True) as connection:
            return connection.sql(f"select * from {name}").to_arrow_table()

    def define(self, name: str, arguments: Mapping[str, str]) -> tuple[list[tuple[Any, ...]], bool]:
        """The rows that the definition says, in order, and whether there are more than the limit."""
        values = self.published_query(name).values(arguments)
        limit = values.pop(LIMIT, None)
        rows = definition.DEFINITIONS[name](self.facts, **values)
        return rows[:limit], len(rows[:limit]) < len(rows)


def build(folder: Path) -> None:
    """Land, build and publish it in this process."""
    commands.Warehouse(folder).simulate(days=9, events_per_day=120)
    settings = settings_of(folder)
    sink = DuckDBSink(settings.warehouse_path, clock=lambda: datetime(2026, 1, 20))
    sink.create_tables()
    with open_sources(settings, list(STREAMS.values()), sink.positions) as sources:
        land(settings, sources, sink)
    project = Project(ROOT / "dbt_project", folder)
    warehouse = project.warehouse(folder, SETTINGS)
    drawn = together(place(draw_worlds(WORLDS, SETTINGS, SEED), SETTINGS, SEED))
    shown = scene()
    recovered = [
        replace(one, message_id=f"recover//{one.message_id}") for one in shown if b'"free"' in (one.payload or b"")
    ]
    first = [one for one in drawn if one.run < 3]
    for day, arrivals in enumerate((shown, first, drawn, [*extremes(), *recovered[1:]])):
        warehouse.land(arrivals, datetime(2026, 2, 1) + timedelta(days=day))
    warehouse.build()
    options = [
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT / "dbt_project")),
        *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs")),
        *("--vars", json.dumps(SETTINGS.as_vars())),
    ]
    with (
        patch.dict(os.environ, {"WAREHOUSE": "duckdb", "WAREHOUSE_PATH": str(settings.warehouse_path)}),
        patch("publishing.compile.dbtRunner", partial(dbtRunner, manifest=project.manifest)),
    ):
        publish(settings, DuckDBEngine(settings), options, folder / "target")
    DuckDBConnectionManager.close_all_connections()  # dbt keeps the file open, and other processes are to read it


def opened(folder: Path) -> Warehouse:
    """The warehouse that `build` left in a folder, and what it published."""
    settings = settings_of(folder)
    with DuckDBSink(settings.warehouse_path).connection(read_only=True) as connection:
        tables = {}
        for name in FACTS:
            relation = connection.sql(f"select * from {name}")
            rows = relation.fetchall()
            tables[name.split(".")[1]] = [dict(zip(relation.columns, row, strict=True)) for row in rows]
    return Warehouse(settings, open_published(settings), definition.Facts(tables, SETTINGS))


def settings_of(folder: Path) -> IngestSettings:
    return IngestSettings(
        _env_file=None, spool_path=folder / "spool", warehouse_path=(folder / "warehouse.duckdb").absolute()
    )


def scene() -> list[Message]:
    """One product of brands and categories in any case, clicked on up to six times before a checkout, at addresses with
    queries and fragments; pages and ids that come again; a funnel in the wrong order; fields that no contract lists."""
    rng = random.Random(SEED)
    found: list[Message] = []

    def add(stream: str, at: datetime, **body: Any) -> None:
        payload = json.dumps(body).encode()
        found.append(Message(0, 0, stream, f"scene.{len(found)}", at + timedelta(seconds=1), payload))

    def store(at: datetime, event_type: str, user: str, brand: str, category: str) -> None:
        texts = {"brand": brand, "category_code": category, "price": "10.05", "user_session": user}
        add("ecom_events", at, event_time=f"{at}", event_type=event_type, product_id="lamp", user_id=user, **texts)

    for user in range(12):
        start = NOON + timedelta(hours=user, seconds=user)
        for place_, step in enumerate(rng.choices(["view", "cart", "purchase"], k=5)):
            brand, category = rng.choice(["Glow", "GLOW", "glow"]), rng.choice(["home.Lamp", "home.lamp"])
            store(start + timedelta(minutes=place_), step, f"funnel{user}", brand, category)
        for place_ in range(user % 7):
            at = start + timedelta(minutes=7 * place_, microseconds=rng.randrange(10**6))
            url = f"https://shop/{rng.choice('abc')}{rng.choice(['', '?utm_source=ads', '#top'])}"
            ids = {"click_id": f"click{user}.{place_}", "user_id": f"buyer{user}", "product_id": "lamp"}
            add("clicks", at, **ids, datetime_occured=f"{at}", url=url if place_ != 3 else "")
        at = start + timedelta(minutes=45)
        amount = [33.33, 0.0001, -10, None][user % 4]
        ids = {"checkout_id": f"checkout{user}", "user_id": f"buyer{user}", "product_id": "lamp"}
        add("checkouts", at, **ids, datetime_occured=f"{at}", total_amount=amount)
        ids = {"checkout_id": "used again", "user_id": f"buyer{user}", "product_id": "lamp"}
        add("checkouts", at + timedelta(days=user // 3), **ids, datetime_occured=f"{at + timedelta(days=user // 3)}")
        for place_ in range(1 + user % 4):
            at = start + timedelta(seconds=90 * place_)
            page = {"session_id": f"way{user}", "page_title": ["Home", "Home", "Lamps", "Home"][place_]}
            add("page_views", at, **page, event_timestamp_ms=int(at.timestamp() * 1000), event_params=[])
    for at in (datetime(2026, 1, 3, 12, 30), datetime(2026, 1, 6, 2)):  # the first and the end of the period asked for
        store(at, "view", "edge", "Glow", "home.lamp")
    for product, name in (("lamp", "Lamp"), ("border", "Lamp of the border")):
        add("products", NOON, product_id=product, name=name, created_at=f"{NOON}", updated_at=f"{NOON}")
    for at, price in BORDER:
        step = {"event_type": "purchase", "product_id": "border", "user_id": "border", "price": price}
        add("ecom_events", at, event_time=f"{at}", user_session="border", brand="Border", **step)
    for number, deleted in enumerate([None, f"{NOON}"]):
        writer, time = f"writer{number}", f"{NOON - timedelta(days=3)}"
        add("users", NOON, user_id=writer, user_name=writer, created_at=time, updated_at=f"{NOON}", deleted_at=deleted)
        for text in ("kept", "deleted"):
            ids = {"post_id": f"{writer}.{text}", "user_id": writer}
            gone = f"{NOON}" if text == "deleted" else None
            add("posts", NOON, **ids, post_text=text, created_at=time, updated_at=f"{NOON}", deleted_at=gone)
            for reader in range(40 + number):
                of = {"event_id": f"{writer}.{text}.{reader}", "post_id": ids["post_id"], "event_type": "view"}
                add("post_events", NOON, **of, user_id=f"writer{reader}", created_at=f"{NOON}")
    for number in range(6):
        ids = {"user_id": f"deployer{number}", "product_id": "lamp"}
        where = {"environment": [None, "dev", "", "Dev", "production", "dev"][number], "generator": {"name": "web"}}
        add("web_events", NOON, timestamp=f"{NOON}", event="view", product="lamp", user_id=ids["user_id"], **where)
        # a release that sends what no contract lists, and a price that is no number
        release = [{}, {"campaign": {"medium": "mail", "step": number}}, {"campaign": f"Spring {number}"}][number % 3]
        price = ["free", 9.5][number % 2]
        add("clicks", NOON, click_id=f"deployed{number}", **ids, datetime_occured=f"{NOON}", price=price, **release)
        fields = {"tags": ["gift"], **{f"flag_{number}_{flag}": True for flag in range(18)}}
        add("checkouts", NOON, checkout_id=f"deployed{number}", **ids, datetime_occured=f"{NOON}", **fields)
    return found


def extremes() -> list[Message]:
    """What staging accepts at the edge: amounts just below 1e14 with four decimals, negative and one billion too, over
    clicks; engaged times of 30,000 years; the years 2000 and 9998; texts and ids of any characters and length."""
    found: list[Message] = []

    def add(stream: str, at: datetime, key: bytes | None = None, **body: Any) -> None:
        payload = json.dumps(body).encode()
        published_at = times[-1] if len(found) % 2 else at
        found.append(Message(0, 0, stream, f"extreme.{len(found)}", published_at, payload, key))

    amounts = ["99999999999999.9999", "-99999999999999.9999", "1000000000", "99999999999999.9999", "0.0001"]
    times = [datetime(2000, 1, 1), datetime(2026, 1, 5, 18), datetime(9998, 12, 31, 12)]
    for number, at in enumerate(at for at in times for _ in range(8)):
        odd = ODD_TEXTS[number % len(ODD_TEXTS)]
        user, product, amount = f"{odd}{number % 4}", f"{odd}{number}", amounts[number % len(amounts)]
        where = {"user_id": user, "product_id": product}
        for click in range(1 + number % 3):
            clicked_at = at - timedelta(minutes=9 - 3 * click) if number % 8 else at
            url = f"https://shop/{'x' * 40_000}{number % 3}?{odd}"
            add(
                "clicks",
                clicked_at,
                click_id=f"{odd}{number}.{click}",
                url=url,
                datetime_occured=f"{clicked_at}",
                **where,
            )
        add("checkouts", at, checkout_id=f"{odd}{number}", total_amount=amount, datetime_occured=f"{at}", **where)
        for place_, step in enumerate(("view", "cart", "purchase")):
            time = at + timedelta(seconds=place_)
            texts = {"brand": odd + "b" * 5_000, "category_code": odd, "price": amount, "user_session": odd}
            add("ecom_events", time, event_time=f"{time}", event_type=step, product_id=product, user_id=user, **texts)
        page = {"session_id": f"{odd}{number}", "page_title": odd + "t" * 5_000 * (number % 2), "user_id": user}
        params = {"engaged_time": "999999999999", "traffic_source": odd, "page_location": odd}
        add("page_views", at, **page, event_timestamp_ms=int((at - EPOCH).total_seconds() * 1000), event_params=params)
        created, updated = f"{times[0]}", f"{at}"
        add(
            "users",
            at,
            user_id=user,
            user_name=f"{odd * 100}{number}",
            country_code=odd,
            created_at=created,
            updated_at=updated,
        )
        add("products", at, product_id=odd, name=odd, price=amount, created_at=created, updated_at=updated)
        add("posts", at, post_id=odd, user_id=user, post_text=odd * 2_000, created_at=created, updated_at=updated)
        for step in ("view", "like"):
            ids = {"event_id": f"{odd}{number}.{step}", "post_id": odd, "user_id": user}
            add("post_events", at, **ids, event_type=step, created_at=f"{at}")
        found.append(Message(0, 0, "clicks", f"broken.{number}", at, BROKEN[number % len(BROKEN)]))
    return found
