"""Every analysis answers what its definition in plain Python says, row for row and in order."""

import random
import re
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from engines.query import LIMIT, ArgumentError
from serve.published import open_published
from serve.semantic_layer import Metrics
from tests.analyses.arguments import arguments_of
from tests.analyses.definition import DEFINITIONS, MODELS
from tests.analyses.warehouse import Warehouse
from tools import ROOT

NAMES = sorted(path.stem for path in (ROOT / "analyses").glob("*.sql"))


def test_every_analysis_is_published_and_defined(warehouse: Warehouse) -> None:
    assert sorted(warehouse.published.queries) == NAMES
    assert sorted(DEFINITIONS) == NAMES


def test_the_docs_list_every_query() -> None:
    section = (ROOT / "docs" / "queries.md").read_text().split("## All queries")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_as_defined(warehouse: Warehouse, name: str) -> None:
    sets = arguments_of(warehouse.published_query(name))
    assert len(sets) > 1
    answers = []
    for arguments in sets:
        answer = warehouse.answer(name, arguments)
        assert (answer.rows, answer.is_cut) == warehouse.define(name, arguments), arguments
        assert answer.rows, arguments
        answers.append(answer.rows)
    assert all(answer != answers[0] for answer in answers[1:])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("hourly_")])
def test_any_period_is_answered_as_defined(warehouse: Warehouse, name: str) -> None:
    """Whole hours are read from the hourly marts, the rest from the facts."""
    rng = random.Random(7)
    takes = {parameter.name for parameter in warehouse.published_query(name).parameters}
    events = [event["event_at"] for event in warehouse.facts.events if event["event_at"].year == 2026]
    choices = {"brand": ("all", "all", "glow"), "category": ("all", "all", "home.lamp"), "product_id": ("all", "lamp")}
    with_rows = 0
    for _ in range(60):
        around = rng.choice(events)
        lengths = [timedelta(), timedelta(minutes=rng.randrange(300)), timedelta(hours=rng.randrange(80))]
        start, end = around - rng.choice(lengths), around + rng.choice([*lengths, timedelta.resolution])
        if rng.random() < 0.3:
            start = start.replace(minute=0, second=0, microsecond=0)
        if rng.random() < 0.3:
            end = end.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        given = {
            "start_time": start.isoformat(),
            "end_time": end.isoformat(),
            "start_date": str(start.date()),
            "end_date": str(end.date()),
            **{one: rng.choice(values) for one, values in choices.items()},
        }
        arguments = {one: value for one, value in given.items() if one in takes}
        answer = warehouse.answer(name, arguments)
        assert (answer.rows, answer.is_cut) == warehouse.define(name, arguments), arguments
        with_rows += bool(answer.rows)
    assert with_rows > 30


@pytest.mark.parametrize("name", NAMES)
def test_a_time_series_has_its_newest_rows_first(warehouse: Warehouse, name: str) -> None:
    query = warehouse.published_query(name)
    if query.columns[0].type not in ("date", "timestamp"):
        return
    with_limit = any(parameter.name == LIMIT for parameter in query.parameters)
    times = [row[0] for row in warehouse.ask(name, {LIMIT: "10000"} if with_limit else {})]
    assert len(set(times)) > 1
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_says_whether_it_is_cut(warehouse: Warehouse, name: str) -> None:
    """By its own limit, and by that of the server."""
    query = warehouse.published_query(name)
    with_limit = any(parameter.name == LIMIT for parameter in query.parameters)
    rows = warehouse.define(name, {LIMIT: "10000"} if with_limit else {})[0]
    for most in (1, len(rows) - 1, len(rows), len(rows) + 1):
        expected = rows[:most], most < len(rows)
        if with_limit:
            answer = warehouse.answer(name, {LIMIT: str(most)})
            assert (answer.rows, answer.is_cut) == expected
        with closing(open_published(warehouse.settings.model_copy(update={"serve_max_rows": most}))) as bounded:
            answer = bounded.ask(query, query.values({LIMIT: str(2**63 - 1)} if with_limit else {}))
            assert (answer.rows, answer.is_cut) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_yml_says_the_query_and_every_column(warehouse: Warehouse, name: str) -> None:
    query = warehouse.published_query(name)
    assert query.description.splitlines()[0].endswith("?")
    assert all(described.description.endswith(".") for described in (*query.columns, *query.parameters))


@pytest.mark.parametrize("name", NAMES)
def test_a_yml_says_what_is_counted_and_in_which_time_zone(warehouse: Warehouse, name: str) -> None:
    query = warehouse.published_query(name)
    dated = [(one.name, one.description) for one in query.columns if one.type in ("date", "timestamp")]
    dated += [(one.name, one.description) for one in query.parameters if one.type in ("date", "timestamp")]
    for column, description in dated:
        assert re.search("UTC|time zone", description), column
    says = {column.name: column.description for column in query.columns}
    for people in says.keys() & {"users", "viewers", "users_with_cart", "buyers", "cohort_users", "active_users"}:
        assert "istinct people" in says[people], people
    assert "return" in says.get("purchases", "return")
    assert "net of returns" in says.get("revenue", "net of returns")


def test_a_metric_says_in_which_time_zone_it_counts(warehouse: Warehouse) -> None:
    descriptions = Metrics(warehouse.published, warehouse.settings).descriptions
    assert descriptions
    assert [name for name, text in descriptions.items() if "reporting time zone" not in text] == []
    assert "net of returns" in descriptions["revenue"]
    assert "return" in descriptions["purchases"].lower()


def test_people_of_the_funnel_are_distinct_over_the_period(warehouse: Warehouse) -> None:
    """They are not the sum over days and categories."""
    [period] = warehouse.ask("conversion_funnel", {"per": "period"})
    viewers = {event["user_id"] for event in warehouse.facts.events if event["event_type"] == "view"} - {None}
    assert period[2] == len(viewers)
    assert period[2] < sum(row[2] for row in warehouse.ask("conversion_funnel", {}))


def test_a_page_viewed_again_and_again_is_one_step(warehouse: Warehouse) -> None:
    paths = [row[0].split(" > ") for row in warehouse.ask("session_paths", {"limit": "10000"})]
    assert ["Home", "Lamps", "Home"] in paths
    assert [path for path in paths if any(one == other for one, other in pairwise(path))] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["' or 1=1 --", "'; drop table analytics.fct_events; --", "$limit", "%"])
def test_a_text_is_a_value_and_nothing_else(warehouse: Warehouse, name: str, text: str) -> None:
    for parameter in warehouse.published_query(name).parameters:
        if parameter.choices:
            expected = f"^{parameter.name}: expected one of {', '.join(parameter.choices)}, got "
            with pytest.raises(ArgumentError, match=expected):
                warehouse.ask(name, {parameter.name: text})
        elif parameter.type == "string":
            rows = warehouse.ask(name, {parameter.name: text})
            assert [row for row in rows if any(row)] == []  # key_figures has a row of zeros


def test_some_creators_are_active_and_some_are_not(warehouse: Warehouse) -> None:
    rows = warehouse.ask(
        "creator_leaderboard",
        {"start_date": "2026-01-03", "end_date": "2026-01-05", "active_days": "1", "limit": "1000"},
    )
    assert {row[-1] for row in rows} == {True, False}


@pytest.mark.parametrize("half_life", ["1", "60", "900", "1000000"])
def test_each_model_of_attribution_shares_out_the_same(warehouse: Warehouse, half_life: str) -> None:
    attributed = [one for one in warehouse.facts.tables["fct_checkout_attribution"] if one["is_attributed"]]
    amount = sum((one["total_amount"] or Decimal() for one in attributed), Decimal())
    assert max(one["clicks_in_window"] for one in attributed) > 3
    rows = warehouse.ask("attribution_comparison", {"half_life_seconds": half_life, "limit": "1000000"})
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    assert totals == [
        sum(one["clicks_in_window"] for one in attributed), *[len(attributed)] * len(MODELS), *[amount] * len(MODELS)
    ]  # fmt: skip
