"""What the endpoints answer, in this process."""

import csv
import gzip
import io
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from common.settings import Settings
from engines.query import Column, Query
from engines.reader import QueryTimeoutError
from publishing.versions import CURRENT, published_folder
from serve.answers import Answer
from serve.endpoints import Endpoints
from serve.formats import as_csv, as_json
from serve.published import PublishedVersion, open_published
from tests.serve.conftest import Clients
from tests.serve.publishing import publish_again
from tools import ROOT

TOP = "/v0/pipes/top_products.json"


def published_events(settings: Settings) -> Iterator[dict[str, Any]]:
    path = (published_folder(settings) / CURRENT).resolve() / settings.warehouse_path.name
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("select * from analytics.fct_events where product_id is not null")
        names = [column[0] for column in found.description]
        for row in found.fetchall():
            yield dict(zip(names, row, strict=True))


def defined_top_products(
    settings: Settings,
    start_time: str = "1970-01-01",
    end_time: str = "9999-12-31",
    brand: str = "all",
    category: str = "all",
) -> list[dict[str, Any]]:
    """The query in Python, without its limit."""
    products: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with closing(open_published(settings)) as version:
        found = version.query("select product_id, name from analytics.dim_products_history where is_current")
    names = {row["product_id"]: row["name"] for row in found.to_pylist()}
    for event in published_events(settings):
        is_in_period = datetime.fromisoformat(start_time) <= event["event_at"] < datetime.fromisoformat(end_time)
        is_of_brand = brand == "all" or (event["brand"] or "").lower() == brand.lower()
        is_of_category = category == "all" or (event["category_code"] or "").lower() == category.lower()
        if is_in_period and is_of_brand and is_of_category:
            products[event["product_id"]].append(event)
    rows = [
        {
            "product_id": product,
            "product_name": names.get(product),
            "brand": max((one["brand"] for one in events if one["brand"]), default=None),
            "category": max((one["category_code"] for one in events if one["category_code"]), default=None),
            "views": sum(one["event_type"] == "view" for one in events),
            "carts": sum(one["event_type"] == "cart" for one in events),
            "purchases": sum(one["event_type"] == "purchase" for one in events),
            "users": len({one["user_id"] for one in events if one["user_id"]}),
            "revenue": sum(
                (one["price"] for one in events if one["event_type"] == "purchase" and one["price"]), Decimal(0)
            ),
        }
        for product, events in products.items()
    ]
    return sorted(rows, key=lambda row: (-row["purchases"], -row["revenue"], row["product_id"]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"brand": "{brand}", "limit": 3},
        {"brand": "{brand}", "category": "{category}"},
        {"start_time": "2026-01-01T10:00:00.000001", "end_time": "2026-01-02", "limit": 500},
    ],
)
def test_an_answer_equals_the_definition(client: TestClient, published: Settings, arguments: dict[str, Any]) -> None:
    best = next(row for row in defined_top_products(published) if row["brand"] and row["category"])
    names = {"{brand}": best["brand"].upper(), "{category}": best["category"].upper()}
    arguments = {name: names.get(value, value) for name, value in arguments.items()}
    limit = arguments.get("limit", 10)
    found = defined_top_products(published, **{name: value for name, value in arguments.items() if name != "limit"})
    defined = found[:limit]
    response = client.get(TOP, params=arguments)
    assert response.status_code == 200
    answer = json.loads(response.text, parse_float=Decimal)
    assert defined
    assert answer["data"] == defined
    assert answer["rows"] == len(defined)
    assert answer["truncated"] is (len(found) > limit)
    assert response.headers.get("x-truncated") == ("true" if len(found) > limit else None)
    assert answer["statistics"]["elapsed"] > 0
    assert answer["meta"] == [
        {"name": name, "type": type_}
        for name, type_ in (
            ("product_id", "string"),
            ("product_name", "string"),
            ("brand", "string"),
            ("category", "string"),
            ("views", "integer"),
            ("carts", "integer"),
            ("purchases", "integer"),
            ("users", "integer"),
            ("revenue", "number"),
        )
    ]
    as_csv = client.get(TOP.replace("json", "csv"), params=arguments)
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(as_csv.text)))
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in defined]
    for row in (*lines, *texts):
        row["revenue"] = str(Decimal(row["revenue"]).normalize())
    assert lines == texts


def test_every_type_has_one_notation(client: TestClient) -> None:
    answer = client.get("/v0/pipes/numbers.json?rows=1&at=2026-01-31T18:30:00-02:00")
    assert answer.text.startswith('{"meta":[{"name":"i","type":"integer"}')
    assert '"data":[{"i":0,"price":0.5,"text":"a,\\"b\\n","is_even":true,"on":"2026-01-31",' in answer.text
    assert '"at":"2026-01-31T20:30:00Z","nothing":null}]' in answer.text
    answer = client.get("/v0/pipes/numbers.csv?rows=1")
    assert answer.text.splitlines()[0] == "i,price,text,is_even,on,at,nothing"
    assert answer.text.endswith('0,0.5,"a,""b\n",true,2026-01-31,2026-01-31T18:30:00.500000Z,\r\n')


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=many", "limit: expected a whole number from 1 on, got 'many'"),
        ("limit=0", "limit: "),
        ("limit=99999999999999999999", "limit: "),
        ("start_time=yesterday", "start_time: "),
        ("colour=red", "colour: not a parameter of top_products; it takes start_time, "),
        ("brand=nike&brand=apple", "brand: given more than once"),
        ("token=s3cret", "token: not a parameter"),
        ("start_time=2026-01-02&end_time=2026-01-01", "end_time: 2026-01-01 00:00:00 is before start_time, 2026-01-02"),
        ("sort=price", "sort: expected one of purchases, revenue, carts, views, users, got 'price'"),
    ],
)
def test_a_bad_parameter_is_named(client: TestClient, query: str, told: str) -> None:
    response = client.get(f"{TOP}?{query}")
    assert response.status_code == 400
    assert response.json()["error"].startswith(told)
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    "text",
    ["' or '1'='1", "nike'; drop table analytics.fct_events; --", "$limit", "@brand", "\\", "%", "\0", "') --", "ñ😀"],
)
def test_a_text_is_only_a_value(client: TestClient, text: str) -> None:
    everything = client.get(TOP).json()["data"]
    for name in ("brand", "category"):
        response = client.get(TOP, params={name: text})
        assert response.status_code == 200
        assert response.json()["data"] == []
    assert client.get(TOP, params={"limit": 10}).json()["data"] == everything


@pytest.mark.parametrize("file", ["nothing.json", "top_products", "top_products.xml", "top_products.", "..json"])
def test_an_unknown_query_gets_a_list_of_the_queries(client: TestClient, file: str) -> None:
    response = client.get(f"/v0/pipes/{file}")
    assert response.status_code == 404
    assert "top_products" in response.json()["error"].partition("; there are ")[2]


def test_a_token_may_ask_only_its_queries(client_of: Clients) -> None:
    client = client_of(serve_tokens={"all-of-it": "*", "one": ["top_products"], "none": []})

    def status(token: str | None, query: str = "top_products", scheme: str = "Bearer") -> int:
        headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
        return client.get(f"/v0/pipes/{query}.json", headers=headers).status_code

    assert [status("all-of-it"), status("all-of-it", "numbers"), status("one")] == [200] * 3
    assert status("one", scheme="bearer") == 200
    assert [status("one", "numbers"), status("none")] == [403, 403]
    assert [status(None), status("on"), status("onee"), status(""), status("one", scheme="Basic")] == [401] * 5
    assert client.get(f"{TOP}?token=one").status_code == 401
    assert client.get(TOP).headers["www-authenticate"] == "Bearer"
    # who may not ask is not told what there is
    assert status(None, "nothing") == 401
    told = client.get("/v0/pipes/nothing.json", headers={"Authorization": "Bearer one"}).json()["error"]
    assert "top_products" in told
    assert "numbers" not in told


def test_rows_are_limited(client_of: Clients) -> None:
    client = client_of(serve_max_rows=5)
    cut, whole = client.get("/v0/pipes/numbers.json?rows=6"), client.get("/v0/pipes/numbers.json?rows=5")
    assert [row["i"] for row in cut.json()["data"]] == [0, 1, 2, 3, 4]
    assert (cut.json()["rows"], cut.json()["truncated"], cut.headers["x-truncated"]) == (5, True, "true")
    assert (whole.json()["rows"], whole.json()["truncated"], "x-truncated" in whole.headers) == (5, False, False)
    assert client.get("/v0/pipes/numbers.csv?rows=6").headers["x-truncated"] == "true"


def test_time_is_limited_including_the_time_waiting(client_of: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    client = client_of(serve_timeout_seconds=1)
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda rows: client.get(f"/v0/pipes/slow.json?rows={rows}"), range(1, 9)))
    # one that came a moment later may still get the thread, for that moment
    assert {response.status_code for response in responses} == {408, 503}
    assert all("\n" not in response.json()["error"] for response in responses)
    assert client.get(TOP).status_code == 200, "the thread was given back"


@pytest.mark.timeout(60, method="thread")  # what hangs is in DuckDB, where no signal reaches it
def test_a_query_that_times_out_before_it_begins_is_stopped(published: Settings) -> None:
    version = open_published(published)
    slow = version.queries["slow"]
    for _ in range(20):
        with pytest.raises(QueryTimeoutError):
            version.ask(slow, slow.values({}), timeout_seconds=0)
    version.close()


def test_an_answer_is_cached_until_the_next_version(
    client: TestClient, published: Settings, queries: list[Query]
) -> None:
    first = client.get(TOP)
    assert first.headers["cache-control"] == "private, no-cache"
    etag = first.headers["etag"]
    again = client.get(TOP, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    # the defaults spelt out are the same query; other values, and CSV, are not
    assert client.get(f"{TOP}?limit=10&brand=all").headers["etag"] == etag
    assert client.get(f"{TOP}?limit=10&brand=all").content == first.content, "from memory: elapsed is the same"
    assert client.get(f"{TOP}?limit=9").headers["etag"] != etag
    assert client.get(TOP.replace("json", "csv")).headers["etag"] != etag
    publish_again(published, queries, "update analytics.fct_events set brand = 'new'")
    changed = client.get(TOP, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert {row["brand"] for row in changed.json()["data"]} == {"new"}
    assert changed.headers["etag"] != etag


def test_concurrent_requests_for_one_answer_share_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    client.get(TOP)
    ask = PublishedVersion.ask

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        started.wait()
        return ask(*arguments)

    started = threading.Event()
    monkeypatch.setattr(PublishedVersion, "ask", counted)
    with ThreadPoolExecutor(8) as pool:
        pending = [pool.submit(client.get, f"{TOP}?brand=nike") for _ in range(8)]
        threading.Timer(0.5, started.set).start()
        bodies = {one.result().content for one in pending}
    assert len(asked) == 1
    assert len(bodies) == 1


def test_the_cache_of_answers_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.answer_cache.CACHE_BYTES", 2_000)
    paths = [f"/v0/pipes/numbers.json?rows={rows}" for rows in (1, 2, 3, 4)]
    first = [client.get(path).content for path in paths]
    assert sum(map(len, first)) > 2_000
    assert client.get(paths[-1]).content == first[-1]
    assert client.get(paths[0]).content != first[0], "was forgotten: another elapsed"


def test_large_answers_are_compressed(client: TestClient) -> None:
    small, large = (
        client.get(f"/v0/pipes/numbers.json?rows={rows}", headers={"Accept-Encoding": "gzip"}) for rows in (3, 300)
    )
    assert "content-encoding" not in small.headers
    assert large.headers["content-encoding"] == "gzip"
    assert large.json()["rows"] == 300
    assert len(gzip.compress(large.content)) < len(large.content)


def test_before_the_first_build_and_after(settings: Settings, queries: list[Query]) -> None:
    with TestClient(Endpoints(settings).app(), "http://localhost:8000") as client:
        for path in (TOP, "/healthz", "/openapi.json"):
            response = client.get(path)
            assert response.status_code == 503
            assert "nothing is published yet" in response.json()["error"]
            assert response.headers["retry-after"]
        publish_again(settings, queries)
        assert client.get(TOP).status_code == 200


def test_health_reports_the_version_and_its_age(client: TestClient, published: Settings) -> None:
    health = client.get("/healthz").json()
    assert health["version"] == (published_folder(published) / CURRENT).readlink().name
    assert 0 <= health["age_seconds"] < 600


def test_openapi_describes_every_parameter_and_column_of_the_analyses(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    described = [yaml.safe_load(path.read_text()) for path in (ROOT / "analyses").rglob("*.yml")]
    analyses = [analysis for file in described for analysis in file["analyses"]]
    assert analyses
    for analysis in analyses:
        for extension in ("json", "csv"):
            operation = document["paths"][f"/v0/pipes/{analysis['name']}.{extension}"]["get"]
            found = {one["name"]: one["description"] for one in operation["parameters"]}
            assert found == analysis["config"]["meta"].get("parameters", {})
            assert all("default" in one["schema"] and one["in"] == "query" for one in operation["parameters"])
            assert operation["summary"] == analysis["description"]
            assert {"200", "304", "400", "408", "503"} <= operation["responses"].keys()
        answer = document["paths"][f"/v0/pipes/{analysis['name']}.json"]["get"]["responses"]["200"]["content"]
        row = answer["application/json"]["schema"]["properties"]["data"]["items"]["properties"]
        assert {name: column["description"] for name, column in row.items()} == {
            column["name"]: column["description"] for column in analysis["columns"]
        }
    limit = document["paths"][TOP]["get"]["parameters"][-1]
    assert limit["schema"] == {"type": "integer", "format": "int64", "minimum": 1, "default": 10}
    sort = document["paths"][TOP]["get"]["parameters"][-2]
    choices = ["purchases", "revenue", "carts", "views", "users"]
    assert sort["schema"] == {"type": "string", "default": "purchases", "enum": choices}
    assert "security" not in document


def test_openapi_describes_tokens(client_of: Clients) -> None:
    document = client_of(serve_tokens={"one": "*"}).get("/openapi.json").json()
    assert document["security"] == [{"token": []}]
    assert "401" in document["paths"][TOP]["get"]["responses"]


def test_the_docs_page_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "/openapi.json" in page
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_the_log_holds_no_value_and_no_token(client_of: Clients) -> None:
    client = client_of(serve_tokens={"s3cret": "*"})
    with capture_logs() as lines:
        for query in ("brand=s3cret", "colour=s3cret", "limit=s3cret", "s3cret=1", "token=s3cret"):
            client.get(f"{TOP}?{query}", headers={"Authorization": "Bearer s3cret"})
        assert client.get("/v0/pipes/s3cret.json", headers={"Authorization": "Bearer s3cret-"}).status_code == 401
        failed = client.get("/v0/pipes/broken.json", headers={"Authorization": "Bearer s3cret"})
    assert failed.status_code == 500
    assert "secret" not in failed.text
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 400, 400, 400, 400, 401, 500]
    assert "cret" not in repr(lines)
    assert "brand" in repr(lines)


def test_a_version_that_cannot_be_opened_leaves_the_previous_one(
    client: TestClient, published: Settings, queries: list[Query]
) -> None:
    before = client.get(TOP).json()["data"]
    folder = published_folder(published)
    broken = folder / "29990101T000000.000000Z"
    broken.mkdir()
    (broken / "queries.json").write_text("[{}]")
    link = folder / "new"
    link.symlink_to(broken.name)
    link.replace(folder / CURRENT)
    with capture_logs() as lines:
        assert [client.get(f"{TOP}?limit=10").json()["data"] for _ in range(3)] == [before] * 3
    assert [line["event"] for line in lines].count("the published version cannot be opened") == 1
    publish_again(published, queries, "update analytics.fct_events set brand = 'new'")
    assert {row["brand"] for row in client.get(TOP).json()["data"]} == {"new"}


def test_a_version_is_closed_after_its_last_answer(
    client_of: Clients, published: Settings, queries: list[Query]
) -> None:
    client = client_of(serve_timeout_seconds=2)
    before = client.get("/healthz").json()["version"]
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(client.get, "/v0/pipes/slow.json")
        wait_until(lambda: open_files(before))
        publish_again(published, queries)
        assert client.get("/healthz").json()["version"] != before
        assert open_files(before), "still answers"
        assert slow.result().status_code == 408
    wait_until(lambda: not open_files(before))


def test_a_version_is_closed_even_if_no_request_comes(
    client: TestClient, published: Settings, queries: list[Query]
) -> None:
    """Publishing rewrites the file of the version before the last."""
    before = client.get("/healthz").json()["version"]
    publish_again(published, queries)
    wait_until(lambda: not open_files(before))
    [after] = [version for version in versions(published) if version != before]
    assert open_files(after)


def test_a_publisher_in_the_same_process_has_its_version_opened(
    published: Settings, queries: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.endpoints.CHECK_SECONDS", 3600)
    endpoints = Endpoints(published)
    endpoints.on_published()  # does nothing before the first request
    with TestClient(endpoints.app(), "http://127.0.0.1") as client:
        before = client.get("/healthz").json()["version"]
        for _ in range(3):
            publish_again(published, queries)
            endpoints.on_published()
            wait_until(lambda version=before: not open_files(version))
            before = versions(published)[-1]
            assert open_files(before)
        assert client.get("/healthz").json()["version"] == before
    endpoints.on_published()  # nor after the server


def versions(settings: Settings) -> list[str]:
    folders = published_folder(settings).iterdir()
    return sorted(path.name for path in folders if path.is_dir() and not path.is_symlink())


def open_files(version: str) -> list[str]:
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [link for link in links if version in link]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_tokens_requests_by_another_host_name_are_rejected(client: TestClient) -> None:
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", ""):
        refused = client.get(TOP, headers={"Host": host})
        assert refused.status_code == 403
        assert "localhost" in refused.json()["error"]
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get(TOP, headers={"Host": host}).status_code == 200


def test_without_tokens_requests_of_another_site_are_rejected(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "file://", ""):
        assert client.get(TOP, headers={"Origin": origin}).status_code == 403
    for origin in ("http://127.0.0.1:8000", "http://localhost:3000"):
        assert client.get(TOP, headers={"Origin": origin}).status_code == 200


def test_with_tokens_any_host_name_and_any_site_may_ask(client_of: Clients) -> None:
    client = client_of(serve_tokens={"one": "*"})
    headers = {"Host": "shop.example", "Origin": "https://bi.example", "Authorization": "Bearer one"}
    assert client.get(TOP, headers=headers).status_code == 200


def test_the_root_redirects_to_the_docs_page(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"
    assert "/openapi.json" in client.get("/").text


def texts_of(*texts: Any) -> tuple[Query, Answer]:
    columns = [Column(name="title", type="string", description="")]
    query = Query(name="text", description="", parameters=[], columns=columns, sql="")
    return query, Answer([(text,) for text in texts], is_cut=False, seconds=0, version="")


def read_csv(query: Query, answer: Answer) -> list[str]:
    header, *rows = csv.reader(io.StringIO(as_csv(query, answer).decode(), newline=""))
    assert header == ["title"]
    return [row[0] for row in rows]


def test_a_row_of_csv_stays_one_row_whatever_its_text() -> None:
    assert read_csv(*texts_of("a\rb", "c\nd", 'e",f')) == ["a\rb", "c\nd", 'e",f']


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1+1",
        "-",
        "+49 171 5",
        "1\n=2"[1:],
    ],
)
def test_a_text_that_a_spreadsheet_would_compute_is_marked_in_csv_alone(text: str) -> None:
    assert read_csv(*texts_of(text)) == [f"'{text}"]
    assert json.loads(as_json(*texts_of(text)))["data"] == [{"title": text}]


@pytest.mark.parametrize(
    "value", ["-5", "+5", "-31.90", "a=b", " =1", "'=1", "", "ñ😀", Decimal("-31.9"), -5, Decimal("-0.0001")]
)
def test_what_a_spreadsheet_would_not_compute_is_unchanged_in_csv(value: object) -> None:
    assert read_csv(*texts_of(value)) == [str(value)]


def test_memory_is_limited(published: Settings, queries: list[Query]) -> None:
    """And a query that needs little is answered meanwhile."""
    greedy = Query(
        name="greedy",
        description="Sorts 200 MB.",
        parameters=[],
        columns=[Column(name="i", type="integer", description="")],
        sql="select len(list(md5(range::varchar))) as i from range(5_000_000)",
    )
    publish_again(published, [*queries, greedy])
    with TestClient(
        Endpoints(published.model_copy(update={"serve_memory_limit": "100MB"})).app(), "http://localhost"
    ) as client:
        refused = client.get("/v0/pipes/greedy.json")
        assert refused.status_code == 400
        assert "SERVE_MEMORY_LIMIT (100MB)" in refused.json()["error"]
        assert client.get(TOP).status_code == 200
