"""Copies of the shop's warehouse, and servers that answer from what a copy publishes."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from common.settings import Settings
from engines.query import Column, Parameter, Query
from publishing.marts import MANIFEST
from serve.endpoints import Endpoints
from serve.published import open_published
from tests.serve.publishing import publish_again
from tools.warehouses.commands import Warehouse

NUMBERS = [
    Parameter(name="rows", type="integer", default="3", description="How many."),
    Parameter(name="at", type="timestamp", default="2026-01-31T18:30:00.5", description="When."),
    Parameter(name="on", type="date", default="2026-01-31", description="When."),
]
EXTRA = [
    Query(
        name="numbers",
        description="A value of each type.",
        parameters=NUMBERS,
        columns=[
            Column(name=name, type=type_, description="")
            for name, type_ in (
                ("i", "integer"),
                ("price", "number"),
                ("text", "string"),
                ("is_even", "boolean"),
                ("on", "date"),
                ("at", "timestamp"),
                ("nothing", "string"),
            )
        ],
        sql="""
            select range as i, cast(range + 0.5 as decimal(33, 4)) as price, 'a,"b' || chr(10) as text,
                range % 2 = 0 as is_even, cast($on as date) as "on", cast($at as timestamp) as at, null as nothing
            from range(cast($rows as bigint)) order by range
        """,
    ),
    Query(
        name="slow",
        description="Takes hours.",
        parameters=NUMBERS[:1],
        columns=[Column(name="i", type="integer", description="")],
        sql="select count(*) as i from range(10000000) as a, range(10000000) as b where a.range + b.range = $rows",
    ),
    Query(name="broken", description="Fails.", parameters=[], columns=[], sql="select error('a secret')"),
]


@pytest.fixture(scope="session")
def queries(shop: Warehouse) -> list[Query]:
    """Those of analyses/ as the build compiled them, and some that are only for tests."""
    published = open_published(Settings(_env_file=None, warehouse_path=shop.path))
    published.close()
    return [*published.queries.values(), *EXTRA]


@pytest.fixture
def settings(shop: Warehouse, tmp_path: Path) -> Settings:
    """Of a copy of the warehouse of which nothing is published."""
    shutil.copy(shop.path, tmp_path)
    shutil.copy(shop.folder / "target" / MANIFEST, tmp_path)
    return Settings(_env_file=None, warehouse_path=tmp_path / shop.path.name)


@pytest.fixture
def published(settings: Settings, queries: list[Query]) -> Settings:
    publish_again(settings, queries)
    return settings


Clients = Callable[..., TestClient]


@pytest.fixture
def client_of(published: Settings) -> Iterator[Clients]:
    """A client of a server with these settings."""
    opened: list[TestClient] = []

    def make(**changes: object) -> TestClient:
        app = Endpoints(published.model_copy(update=changes)).app()
        client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
        opened.append(client.__enter__())
        return opened[-1]

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of: Clients) -> TestClient:
    return client_of()
