"""A query with a problem: it is left out, the others are published, and whoever asks is told why. `check` tells it
without a build."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from common.errors import UserError
from common.settings import Settings
from engines.query import Query
from serve.answers import find_query
from serve.dashboard.filters import Filters
from serve.dashboard.render import render
from serve.endpoints import Endpoints
from serve.published import open_published
from tests.checkout import copy_project
from tests.serve.publishing import publish_again
from tools.warehouses.commands import Warehouse

PROBLEM = "analyses/brands.sql: Parser Error: syntax error"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def left_out(published: Settings, queries: list[Query]) -> Settings:
    """A version without the query brands."""
    broken = [
        query.model_copy(update={"problems": [PROBLEM]}) if query.name == "brands" else query for query in queries
    ]
    publish_again(published, broken)
    return published


def test_the_endpoints_say_why(left_out: Settings) -> None:
    with TestClient(Endpoints(left_out).app(), "http://127.0.0.1") as client:
        assert client.get("/v0/pipes/top_products.json").status_code == 200
        for extension in ("json", "csv"):
            refused = client.get(f"/v0/pipes/brands.{extension}")
            assert refused.status_code == 404
            assert refused.json()["error"] == f"brands is left out of what is published: {PROBLEM}"
        assert "/v0/pipes/brands.json" not in client.get("/openapi.json").json()["paths"]
    tokens = {"one": ["brands"], "other": ["top_products"]}
    with TestClient(Endpoints(left_out.model_copy(update={"serve_tokens": tokens})).app()) as client:
        for token, status in (("one", 404), ("other", 403)):
            answer = client.get("/v0/pipes/brands.json", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
            assert (PROBLEM in answer.text) == (status == 404)


def test_the_command_line_says_why(left_out: Settings) -> None:
    published = open_published(left_out)
    assert find_query(published, "top_products").name == "top_products"
    with pytest.raises(UserError, match=f"^brands is left out of what is published: {PROBLEM}$"):
        find_query(published, "brands")
    with pytest.raises(UserError, match="there is no query 'nothing'; the queries are "):
        find_query(published, "nothing")


def test_the_dashboard_shows_the_other_panels(left_out: Settings, queries: list[Query]) -> None:
    broken = [
        query.model_copy(update={"problems": ["why"]}) if query.name in ("data_quality", "top_products") else query
        for query in queries
    ]
    publish_again(left_out, broken)
    page = render(open_published(left_out), Filters(period="all"), live=True)
    assert page.count("top_products is left out of what is published: why") == 1
    assert page.count("data_quality is left out of what is published: why") == 3  # two panels, and the head of the page
    assert page.count('class="error"') == 4
    assert "<h3>Daily figures</h3>" in page


@pytest.fixture
def run(shop: Warehouse, tmp_path: Path) -> Run:
    """A command of a copy of this project, on a copy of the warehouse: `code` is its folder."""
    copy = shop.copy_to(tmp_path / "copy")
    code = tmp_path / "code"
    copy_project(code)

    def run(*arguments: str, expect: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        environment = copy.environment | {"COLUMNS": "500"}
        done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    return run


@pytest.mark.slow
def test_a_build_publishes_the_others_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    analyses = tmp_path / "code" / "analyses"
    right = (analyses / "brands.sql").read_text()
    (analyses / "brands.sql").write_text(right.replace("{{ best_sellers", "wiht {{ best_sellers"))
    (analyses / "categories.sql").write_text("select {{ no_such_macro() }} as category")

    # without a build: in seconds, and nothing is published by it
    checked = run("serve", "check", expect=2).stderr.splitlines()
    assert [line.partition(".sql: ")[0] for line in checked] == [
        "problem: analyses/brands",
        "problem: analyses/categories",
    ]
    assert "Parser Error: syntax error at or near" in checked[0]
    assert "wiht" in checked[0]
    assert "'no_such_macro' is undefined" in checked[1]
    assert "top_products: 10 rows in" in run("serve", "check", "top_products", expect=0).stdout
    assert "there is no analyses/nothing.sql" in run("serve", "check", "nothing", expect=2).stderr

    for _ in range(2):  # the second has nothing new to build
        built = run("dbt_project", "build", expect=1)
        left_out = [line for line in built.stderr.splitlines() if line.startswith("left out: ")]
        assert [line.partition(".sql: ")[0] for line in left_out] == [
            "left out: analyses/brands", "left out: analyses/categories"
        ]  # fmt: skip
        assert "`make query-check Q=NAME`" in built.stderr
    assert "nothing new" in built.stdout
    assert "brands is left out of what is published: analyses/brands.sql: Parser Error" in (
        run("serve", "query", "brands", expect=2).stderr
    )
    assert "top_products" in run("serve", "query", expect=0).stdout
    assert run("serve", "query", "top_products", "--format", "csv", expect=0).stdout.startswith("product_id,")

    (analyses / "brands.sql").write_text(right)
    assert run("serve", "check", "brands", expect=0).stdout.startswith("brands: 10 rows in")
    head, start, rest = right.partition("{{ best_sellers")
    (analyses / "brands.sql").write_text(
        f"{head}select * from ({start}{rest}) where 1 / (products - products) > error('x')"
    )
    assert "with its defaults: brands: " in run("serve", "check", "brands", expect=2).stderr


@pytest.mark.slow
def test_all_invalid_templates_are_reported_at_once(run: Run, tmp_path: Path) -> None:
    analyses = tmp_path / "code" / "analyses"
    (analyses / "brands.sql").write_text("select {{ brand")
    (analyses / "categories.sql").write_text("select 1\n{% if true %}")
    checked = run("serve", "check", expect=2)
    assert checked.stderr.splitlines() == [
        "problem: analyses/brands.sql: line 1: unexpected end of template, expected 'end of print statement'.",
        "problem: analyses/categories.sql: line 2: Unexpected end of template. Jinja was looking for the following"
        " tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'.",
    ]
    (analyses / "brands.sql").write_text("select * from {{ ref('no_such_mart') }}")
    (analyses / "categories.sql").write_text("select 1")
    refused = run("serve", "check", expect=2).stderr
    assert refused.startswith("error: ")
    assert "analyses/brands.sql" in refused
    assert "no_such_mart" in refused
    assert refused.count("\n") == 1
