"""A small warehouse to ask: simulated days, random worlds, and a scene of what neither of them has."""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from ingest.landing import land
from ingest.settings import Settings as IngestSettings
from ingest.sinks.duckdb import DuckDBSink
from ingest.sources import open_sources
from ingest.streams import STREAMS
from serve.publish import publish
from serve.questions import Published, Question, open_published
from tests.analyses import definition
from tests.dbt_project import warehouse as commands
from tests.dbt_project.exact.check import together
from tests.dbt_project.exact.warehouse import ROOT, Arrival, Project
from tests.dbt_project.exact.worlds import draw_worlds, place
from tests.oracle import Settings

SETTINGS = Settings(session_gap_seconds=600, reporting_time_zone="America/New_York")
FACTS = (
    "analytics.fct_events",
    "analytics.fct_page_views",
    "analytics.fct_sessions",
    "analytics.fct_checkout_attribution",
    "analytics.dim_users_history",
    "analytics.dim_posts_history",
    "analytics.dim_countries",
    "analytics.dead_letters",
    "analytics.landing_reconciliation",
    "intermediate.int_staged_messages",
)
WORLDS, SEED = 20, 5
NOON = datetime(2026, 1, 5, 17)  # of New York


@dataclass(frozen=True)
class Warehouse:
    path: Path
    published: Published
    facts: definition.Facts

    def question(self, name: str) -> Question:
        return self.published.questions[name]

    def ask(self, name: str, arguments: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """The rows of the answer, in order."""
        question = self.question(name)
        return self.published.ask(question, question.values(arguments)).rows

    def table(self, name: str) -> pa.Table:
        """Every row of a table or view, `schema.name`."""
        with DuckDBSink(self.path).connection(read_only=True) as connection:
            return connection.sql(f"select * from {name}").to_arrow_table()

    def define(self, name: str, arguments: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """The rows that the definition says, in order."""
        return definition.DEFINITIONS[name](self.facts, **self.question(name).values(arguments))


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
    for day, arrivals in enumerate((scene(), [one for one in drawn if one.run < 3], drawn)):
        warehouse.land(arrivals, datetime(2026, 2, 1) + timedelta(days=day))
    warehouse.build()
    options = [
        *("--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(ROOT / "dbt_project")),
        *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs")),
        *("--vars", json.dumps(SETTINGS.as_vars())),
    ]
    with patch.dict(os.environ, {"WAREHOUSE": "duckdb", "WAREHOUSE_PATH": str(settings.warehouse_path)}):
        publish(settings, sink, options, folder / "target")
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
    return Warehouse(settings.warehouse_path, open_published(settings), definition.Facts(tables, SETTINGS))


def settings_of(folder: Path) -> IngestSettings:
    return IngestSettings(
        _env_file=None, spool_path=folder / "spool", warehouse_path=(folder / "warehouse.duckdb").absolute()
    )


def scene() -> list[Arrival]:
    """One product of brands and categories in any case, clicked on up to six times before a checkout, at addresses with
    queries and fragments; pages and ids that come again; a funnel in the wrong order."""
    rng = random.Random(SEED)
    found: list[Arrival] = []

    def add(stream: str, at: datetime, **body: Any) -> None:
        payload = json.dumps(body).encode()
        found.append(Arrival(0, 0, stream, f"scene.{len(found)}", at + timedelta(seconds=1), payload))

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
            page = {"session_id": f"way{user}", "page_title": ["Home", "Lamps", "Home", "Cart"][place_]}
            add("page_views", at, **page, event_timestamp_ms=int(at.timestamp() * 1000), event_params=[])
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
    return found
