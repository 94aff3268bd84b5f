"""Problems of an analysis: all are reported at once, each in one line that names the file."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import UnavailableError, UserError
from engines.query import Parameter, Query
from engines.reader import QueryFailedError
from publishing.compile import _query, compile_queries

FILE = "analyses/brands.sql"
LIMIT = "{%- set limit = param('limit', 10, 'integer') %}\n"
SORT = "{%- set sort = param('sort', 'best', ['best', 'worst']) %}\n"


def analysis(code: str, *, with_yml: bool = True, **described: str) -> SimpleNamespace:
    """As dbt compiles it."""
    return SimpleNamespace(
        name="brands",
        description="Which brands sell best?" if with_yml else "",
        patch_path="shop://brands.yml" if with_yml else None,
        original_file_path=f"../{FILE}",
        raw_code=code,
        compiled_code="select 1 as brand",
        config=SimpleNamespace(meta={"parameters": described} if with_yml else {}),
        columns={"brand": SimpleNamespace(description="The brand.")} if with_yml else {},
    )


def described(query: Query) -> list[tuple[str, str]]:
    """As the engine does."""
    return [("brand", "varchar")]


def test_a_query_that_the_engine_rejects_has_a_problem() -> None:
    def rejected(_: Query) -> list[tuple[str, str]]:
        raise QueryFailedError("no such column")

    assert _query(analysis("select 1"), rejected).problems == [f"{FILE}: no such column"]


@pytest.mark.parametrize("error", [UnavailableError("BigQuery does not answer"), UserError("credentials expired")])
def test_an_engine_that_cannot_be_asked_is_not_a_problem_of_the_query(error: UserError) -> None:
    """Otherwise a build would publish a version without any query."""

    def unavailable(_: Query) -> list[tuple[str, str]]:
        raise error

    with pytest.raises(type(error), match=str(error)):
        _query(analysis("select 1"), unavailable)


def test_parameters_are_in_the_order_of_the_text() -> None:
    code = LIMIT + SORT + "{%- set since = param('since', '2026-01-31', 'date') %} {% do [].append(limit) %}"
    descriptions = {"since": "From this day on.", "limit": "How many.", "sort": "Which first."}
    query = _query(analysis(code, **descriptions), described)
    assert query.problems == []
    assert query.parameters == [
        Parameter(name="limit", type="integer", default="10", description="How many."),
        Parameter(name="sort", type="string", default="best", description="Which first.", choices=["best", "worst"]),
        Parameter(name="since", type="date", default="2026-01-31", description="From this day on."),
    ]


@pytest.mark.parametrize(
    ("code", "descriptions", "problems"),
    [
        (LIMIT, {}, ["its yml does not describe the parameter limit"]),
        (LIMIT + LIMIT, {"limit": "How many."}, ["parameter limit: declared more than once"]),
        (
            LIMIT,
            {"limit": "How many.", "brand": "Which."},
            ["its yml describes the parameter brand, which it does not take"],
        ),
        (
            LIMIT.replace("limit", "most").replace("integer", "float"),
            {"most": "How many."},
            ["parameter most: its type is one of string, integer, date, timestamp, or a list of choices, not 'float'"],
        ),
        (
            LIMIT.replace("integer", "string"),
            {"limit": "How many."},
            ["parameter limit: its type must be integer, since it limits the rows"],
        ),
        (LIMIT.replace("10", "'ten'"), {"limit": "How many."}, ["limit: expected a whole number from 1 on, got 'ten'"]),
        (LIMIT.replace("10", "0"), {"limit": "How many."}, ["limit: expected a whole number from 1 on, got '0'"]),
        (SORT.replace("'best',", "'fast',", 1), {"sort": "How."}, ["sort: expected one of best, worst, got 'fast'"]),
        (
            LIMIT.replace("limit", "since").replace("integer", "date"),
            {"since": "From then on."},
            ["since: expected a date such as 2026-01-31, got '10'"],
        ),
        (
            "\n{%- set limit = param('limit', 10) %}",
            {},
            ["line 2: expected param(name, default, type) with literals"],
        ),
        (
            "{%- set limit = param('limit', var('limit'), 'integer') %}",
            {},
            ["line 1: expected param(name, default, type) with literals"],
        ),
    ],
)
def test_a_problem_is_one_line(code: str, descriptions: dict[str, str], problems: list[str]) -> None:
    query = _query(analysis(code, **descriptions), described)
    assert query.problems == [f"{FILE}: {problem}" for problem in problems]


def test_all_problems_are_reported_at_once() -> None:
    def otherwise(query: Query) -> list[tuple[str, str]]:
        return [("brand_name", "varchar"), ("tags", "varchar[]"), ("sales", "bigint")]

    node = analysis(LIMIT + SORT, brand="Which.", until="Until then.")
    node.description = ""
    node.columns |= {"tags": SimpleNamespace(description="Its tags."), "cost": SimpleNamespace(description="What.")}
    assert _query(node, otherwise).problems == [
        f"{FILE}: {problem}"
        for problem in (
            "its yml has no description",
            "its yml does not describe the parameter limit",
            "its yml does not describe the parameter sort",
            "its yml describes the parameter brand, which it does not take",
            "its yml describes the parameter until, which it does not take",
            "its yml does not describe the column brand_name",
            "the column tags is of type varchar[], which no answer has",
            "its yml does not describe the column sales",
            "its yml describes the column brand, which it does not give",
            "its yml describes the column cost, which it does not give",
        )
    ]


def test_without_a_yml_the_problems_list_what_it_needs() -> None:
    assert _query(analysis(LIMIT, with_yml=False), described).problems == [
        f"{FILE}: there is no yml that describes it",
        f"{FILE}: its yml does not describe the parameter limit",
        f"{FILE}: its yml does not describe the column brand",
    ]


@pytest.mark.slow
def test_analyses_that_do_not_compile_leave_the_others(tmp_path: Path) -> None:
    broken = {
        "macro": ("select {{ no_such_macro() }}", "'no_such_macro' is undefined"),
        "raises": ("select {% if execute %}{{ exceptions.raise_compiler_error('not so') }}{% endif %}", "not so"),
        "var": ("select {{ var('nope') }}", "Required var 'nope' not found in config"),
        "query": ("select {% if execute %}{{ run_query('selec') }}{% endif %}", "Parser Error"),
    }
    (tmp_path / "dbt_project.yml").write_text("{name: shop, profile: shop, config-version: 2}")
    (tmp_path / "profiles.yml").write_text("shop: {target: here, outputs: {here: {type: duckdb, schema: main}}}")
    (tmp_path / "analyses").mkdir()
    for name, (code, _) in broken.items():
        (tmp_path / f"analyses/{name}.sql").write_text(code)
    (tmp_path / FILE).write_text("select 1 as brand")
    (tmp_path / "analyses/brands.yml").write_text(
        "{version: 2, analyses: [{name: brands, description: Which?, columns: [{name: brand, description: It.}]}]}"
    )
    found = compile_queries(["--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path)], described)
    assert [query.name for query in found] == ["brands", *sorted(broken)]
    assert [column.name for column in found[0].columns] == ["brand"]
    for query in found[1:]:
        [problem] = query.problems
        assert problem.startswith(f"analyses/{query.name}.sql: ")
        assert broken[query.name][1] in problem
        assert "\n" not in problem
