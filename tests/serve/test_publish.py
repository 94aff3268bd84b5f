"""Versions: whole, swapped at once, and whatever ends a build."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import duckdb
import pytest
import requests
from google.api_core.exceptions import BadRequest, GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery
from google.cloud.bigquery.job import _error_result_to_exception
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from common.errors import UnavailableError, UserError
from common.settings import Settings
from engines.factory import engine_for
from engines.query import Query
from engines.reader import COLUMN_TYPES
from publishing.versions import CURRENT, QUERIES, published_folder
from serve.endpoints import Endpoints
from serve.published import open_published
from tests.serve.publishing import publish_again
from tools import ROOT
from tools.warehouses.commands import Warehouse

OPEN_CLIENT = "engines.bigquery.client.open_client"


def versions(settings: Settings) -> set[str]:
    return {path.name for path in published_folder(settings).iterdir()} - {CURRENT}


def current(settings: Settings) -> str:
    return (published_folder(settings) / CURRENT).readlink().name


def published_queries(settings: Settings) -> set[str]:
    published = open_published(settings)
    published.close()
    return set(published.queries)


def brands(settings: Settings, queries: list[Query]) -> set[str]:
    published = open_published(settings)
    try:
        query = published.queries["top_products"]
        return {row[1] for row in published.ask(query, query.values({})).rows}
    finally:
        published.close()


@pytest.mark.parametrize(
    "killed_at",
    [
        pytest.param("write_bytes", marks=pytest.mark.slow),
        "rename",
        "unlink",
        "write_text",
        "symlink_to",
        pytest.param("replace", marks=pytest.mark.slow),
    ],
)
def test_a_killed_publish_leaves_the_previous_version(
    published: Settings, queries: list[Query], killed_at: str
) -> None:
    publish_again(published, queries)  # there is a version before the last, which becomes the next
    before, answered = current(published), brands(published, queries)
    for _ in range(2):
        killed = subprocess.run(
            [sys.executable, "-m", "tests.serve.publishing", str(published.warehouse_path), killed_at],
            input=TypeAdapter(list[Query]).dump_json(queries),
            cwd=ROOT,
            check=False,
        )
        assert killed.returncode == -9
        assert versions(published) > {before}, "the test wants debris"
        assert current(published) == before
        assert brands(published, queries) == answered
    publish_again(published, queries)
    assert versions(published) == {before, current(published)}
    assert current(published) != before


def test_two_versions_stay_even_if_the_clock_goes_back(published: Settings, queries: list[Query]) -> None:
    folder = published_folder(published)
    (folder / current(published)).rename(folder / "29990101T000000.000000Z")
    (folder / CURRENT).unlink()
    (folder / CURRENT).symlink_to("29990101T000000.000000Z")
    for _ in range(2):
        before = current(published)
        publish_again(published, queries)
        assert current(published).startswith("20") and current(published) != before
        assert versions(published) == {before, current(published)}


def test_a_full_disk_is_one_line_and_leaves_the_previous_version(
    published: Settings, queries: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = current(published)
    full = tmp_path / "bin" / "cp"
    full.parent.mkdir()
    full.write_text(
        "#!/bin/sh\nhead -c 1000 $1 > $2\necho \"cp: error writing '$2': No space left on device\" >&2\nexit 1\n"
    )
    full.chmod(0o755)
    monkeypatch.setenv("PATH", str(full.parent), prepend=":")
    with pytest.raises(UserError, match=r"^built, but not published in .*: No space left on device; the last") as told:
        publish_again(published, queries)
    assert "\n" not in str(told.value)
    assert (current(published), versions(published)) == (before, {before})


def test_a_version_is_a_copy(published: Settings, queries: list[Query]) -> None:
    before = brands(published, queries)
    with duckdb.connect(str(published.warehouse_path)) as connection:
        connection.execute("update analytics.fct_events set brand = 'later'")
        assert brands(published, queries) == before, "while another writes"


def test_the_path_in_the_docs_is_of_the_newest_version(published: Settings, queries: list[Query]) -> None:
    """docs/queries.md."""
    path = published_folder(published) / CURRENT / published.warehouse_path.name
    for brand in ("first", "second", "third"):
        publish_again(published, queries, f"update analytics.fct_events set brand = '{brand}'")
        with duckdb.connect(str(path), read_only=True) as connection:
            assert connection.sql("select distinct brand from analytics.fct_events").fetchall() == [(brand,)]


def test_queries_are_compiled_again_unless_the_newest_version_has_the_same_code(
    published: Settings, queries: list[Query]
) -> None:
    first = current(published)
    publish_again(published, queries[:1], same_code_as=first)
    second = current(published)
    assert published_queries(published) == {one.name for one in queries}, "as they were"
    publish_again(published, queries[:1], same_code_as=first)
    assert published_queries(published) == {queries[0].name}, "another was published since"
    (published_folder(published) / current(published) / QUERIES).unlink()
    publish_again(published, queries[:2], same_code_as=current(published))
    assert published_queries(published) == {one.name for one in queries[:2]}
    assert second not in versions(published)


@pytest.mark.slow
def test_only_a_whole_successful_build_publishes(shop: Warehouse, tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    shutil.copy(shop.path, warehouse.path)
    warehouse.build("--select", "dim_dates")
    assert not Path(f"{warehouse.path}.published").exists()
    warehouse.build("--exclude-resource-type", "unit_test")  # they test the code alone
    assert Path(f"{warehouse.path}.published/current").exists()


def test_a_version_of_another_release_says_to_build_again(published: Settings) -> None:
    """That named the file questions.json."""
    version = published_folder(published) / current(published)
    (version / QUERIES).rename(version / "questions.json")
    with pytest.raises(UserError, match="the last version was published by another release: run `make build`"):
        open_published(published)


def test_types_of_the_engine_become_column_types(published: Settings) -> None:
    sql = """
        select sum(1) as a, count(*) as b, 1.5 as c, 1::double as d, true as e, current_date as f,
            now() as g, now()::timestamp as h, 'x' as i, [1] as j
    """
    query = Query(name="q", description="", parameters=[], columns=[], sql=sql)
    with closing(engine_for(published).open_reader(published_folder(published) / CURRENT)) as reader:
        found = {name: COLUMN_TYPES.get(type_) for name, type_ in reader.describe(query)}
    assert list(found.values()) == (
        ["integer", "integer", "number", "number", "boolean", "date", "timestamp", "timestamp", "string", None]
    )


class BigQueryClient:
    """Remembers what it is sent."""

    def __init__(self, rows: list[dict[str, Any]] | Exception) -> None:
        self._rows = rows
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.cancelled = 0
        self.limits: dict[str, Any] = {}
        self.schema = [
            SimpleNamespace(name="n", field_type="INTEGER"),
            SimpleNamespace(name="price", field_type="NUMERIC"),
        ]

    def query(self, sql: str, job_config: Any, **_: Any) -> Any:
        self.sent.append((sql, job_config.to_api_repr()))
        return self

    def result(self, retry: Any = None, **limits: Any) -> list[dict[str, Any]]:
        self.limits = limits
        if isinstance(self._rows, Exception):
            raise self._rows
        return self._rows[: limits["max_results"]]

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def on_bigquery(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        warehouse="bigquery",
        gcp_project="my-project",
        dataset_prefix="dev_",
        warehouse_path=tmp_path / "warehouse.duckdb",
        serve_max_bytes_billed=1_000,
    )


def bigquery_query() -> Query:
    parameters = [
        {"name": "brand", "type": "string", "default": "all", "description": ""},
        {"name": "on", "type": "date", "default": "2026-01-31", "description": ""},
        {"name": "at", "type": "timestamp", "default": "2026-01-31T18:30:00", "description": ""},
        {"name": "limit", "type": "integer", "default": "10", "description": ""},
    ]
    columns = [{"name": "n", "type": "integer", "description": ""}]
    sql = "select @brand, @on, @at, @limit"
    return Query.model_validate(
        {"name": "q", "description": "", "parameters": parameters, "columns": columns, "sql": sql}
    )


def publish_on_bigquery(settings: Settings) -> None:
    from publishing.publish import publish

    with patch("publishing.publish.compile_queries", lambda *_: [bigquery_query()]):
        publish(settings, engine_for(settings), [], Path())


def test_on_bigquery_queries_are_published_and_parameters_bound(on_bigquery: Settings) -> None:
    client = BigQueryClient([{"n": 1}, {"n": 2}, {"n": 3}])
    with patch(OPEN_CLIENT, lambda _: client):
        publish_on_bigquery(on_bigquery)
        assert [path.name for path in published_folder(on_bigquery).parent.iterdir()] == [
            "my-project.dev_analytics.published"
        ]
        published = open_published(on_bigquery)
        query = published.queries["q"]
        answer = published.ask(query, query.values({"brand": "'", "limit": "2"}), 7.5)
    assert (answer.rows, answer.is_cut, answer.version) == ([(1,), (2,)], True, current(on_bigquery))
    [(sql, config)] = client.sent
    assert sql == query.sql
    bound = {
        one["name"]: (one["parameterType"]["type"], one["parameterValue"]["value"])
        for one in config["query"]["queryParameters"]
    }
    assert bound == {
        "brand": ("STRING", "'"),
        "on": ("DATE", "2026-01-31"),
        "at": ("TIMESTAMP", "2026-01-31 18:30:00+00:00"),
        "limit": ("INT64", "3"),  # one more tells that there are more
    }
    assert config["query"]["maximumBytesBilled"] == "1000"
    assert config["jobTimeoutMs"] == "7500"
    assert client.limits == {"max_results": 3, "timeout": 7.5}


def test_on_bigquery_a_query_that_takes_too_long_is_cancelled(on_bigquery: Settings) -> None:
    client = BigQueryClient(TimeoutError())
    with patch(OPEN_CLIENT, lambda _: client):
        publish_on_bigquery(on_bigquery)
        published = open_published(on_bigquery)
        query = published.queries["q"]
        with pytest.raises(UserError, match=r"took longer than 0\.5 s"):
            published.ask(query, query.values({}), 0.5)
    assert client.cancelled == 1


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [
        ("bytesBilledLimitExceeded", 400, r"the answer would read more than SERVE_MAX_BYTES_BILLED \(1,000\): "),
        ("stopped", 408, "the answer took longer than "),
        ("timeout", 408, "the answer took longer than "),
        ("backendError", 503, "the warehouse does not answer"),
    ],
)
def test_on_bigquery_an_aborted_query_says_why(on_bigquery: Settings, reason: str, status: int, told: str) -> None:
    """As the library raises it."""
    failure: GoogleAPICallError = _error_result_to_exception({"reason": reason, "message": "ended"})
    with patch(OPEN_CLIENT, lambda _: BigQueryClient(failure)):
        publish_on_bigquery(on_bigquery)
        with TestClient(Endpoints(on_bigquery).app(), "http://127.0.0.1") as client:
            response = client.get("/v0/pipes/q.json")
    assert response.status_code == status
    assert re.match(told, response.json()["error"])


def test_on_bigquery_retries_stop_at_the_timeout(on_bigquery: Settings) -> None:
    class Unavailable(AuthorizedSession):
        tried = 0

        def request(self, *_: Any, **__: Any) -> requests.Response:
            self.tried += 1
            assert self.tried < 5, "it goes on and on"
            response = requests.Response()
            response.status_code = 503
            response.request = requests.Request("POST", "http://127.0.0.1").prepare()
            response._content = b'{"error": {"errors": [{"reason": "backendError"}]}}'
            return response

    client = bigquery.Client("my-project", _http=Unavailable(AnonymousCredentials()))
    with patch(OPEN_CLIENT, lambda _: client):
        publish_on_bigquery(on_bigquery)
        published = open_published(on_bigquery)
        query = published.queries["q"]
        with pytest.raises(UnavailableError, match="does not answer"):
            published.ask(query, query.values({}), 0.01)


def test_on_bigquery_no_answer_is_cached(on_bigquery: Settings) -> None:
    """Its tables change without being published."""
    rows = [{"n": 1}]
    with patch(OPEN_CLIENT, lambda _: BigQueryClient(rows)):
        publish_on_bigquery(on_bigquery)
        with TestClient(Endpoints(on_bigquery).app(), "http://127.0.0.1") as client:
            first = client.get("/v0/pipes/q.json")
            rows[0] = {"n": 2}
            second = client.get("/v0/pipes/q.json", headers={"If-None-Match": first.headers.get("etag", "")})
    assert [one.json()["data"] for one in (first, second)] == [[{"n": 1}], [{"n": 2}]]
    assert "etag" not in first.headers


def test_on_bigquery_a_dry_run_describes_the_columns(on_bigquery: Settings) -> None:
    client = BigQueryClient([])
    with (
        patch(OPEN_CLIENT, lambda _: client),
        closing(engine_for(on_bigquery).open_reader(Path())) as reader,
    ):
        assert [(name, COLUMN_TYPES[type_]) for name, type_ in reader.describe(bigquery_query())] == [
            ("n", "integer"),
            ("price", "number"),
        ]
    assert json.dumps(client.sent[0][1]).count('"dryRun": true') == 1


def test_on_bigquery_a_statement_that_it_rejects_is_a_problem_of_the_query(on_bigquery: Settings) -> None:
    class Rejecting(BigQueryClient):
        def query(self, sql: str, job_config: Any, **_: Any) -> Any:
            raise BadRequest("Unrecognized name: brandd at [3:5]")

    client = Rejecting([])
    with (
        patch(OPEN_CLIENT, lambda _: client),
        closing(engine_for(on_bigquery).open_reader(Path())) as reader,
    ):
        with pytest.raises(UserError, match=r"Unrecognized name: brandd at \[3:5\]") as told:
            reader.describe(bigquery_query())
        assert "GCP_PROJECT" not in str(told.value)
