"""What an analysis that is no question is told: one line that names the file and what to change."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ingest.errors import UserError
from serve.publish import _question, compile_questions
from serve.questions import Parameter, Question

FILE = "analyses/brands.sql"
LIMIT = "{%- set limit = param('limit', 10, 'integer') %}\n"


def analysis(code: str, **described: str) -> SimpleNamespace:
    """As dbt compiles it."""
    return SimpleNamespace(
        name="brands",
        description="Which brands sell best?",
        original_file_path=FILE,
        raw_code=code,
        compiled_code="select 1 as brand",
        config=SimpleNamespace(meta={"parameters": described}),
        columns={"brand": SimpleNamespace(description="The brand.")},
    )


def described(question: Question) -> list[tuple[str, str]]:
    """As the engine does."""
    return [("brand", "varchar")]


def test_parameters_are_those_of_the_text_in_their_order() -> None:
    code = LIMIT + "{%- set since = param('since', '2026-01-31', 'date') %} select {{ limit }}, {{ ref('x') }}"
    question = _question(analysis(code, since="From this day on.", limit="How many."), described)
    assert question.parameters == [
        Parameter(name="limit", type="integer", default="10", description="How many."),
        Parameter(name="since", type="date", default="2026-01-31", description="From this day on."),
    ]


@pytest.mark.parametrize(
    ("code", "descriptions", "error"),
    [
        (LIMIT, {}, "its yml does not describe the parameter limit"),
        (LIMIT + LIMIT, {"limit": "How many."}, "its yml does not describe the parameter limit"),
        (
            LIMIT,
            {"limit": "How many.", "brand": "Which."},
            "its yml describes the parameter brand, which it does not take",
        ),
        (
            LIMIT.replace("integer", "float"),
            {"limit": "How many."},
            "parameter limit: its type is one of string, integer, date, timestamp, not 'float'",
        ),
        (LIMIT.replace("10", "'ten'"), {"limit": "How many."}, "limit: expected a whole number from 1 on, got 'ten'"),
        (LIMIT.replace("10", "0"), {"limit": "How many."}, "limit: expected a whole number from 1 on, got '0'"),
        (
            LIMIT.replace("integer", "date"),
            {"limit": "How many."},
            "limit: expected a date such as 2026-01-31, got '10'",
        ),
        (
            "\n{%- set limit = param('limit', 10) %}",
            {"limit": "How many."},
            "line 2: expected param(name, default, type) with literals",
        ),
        (
            "{%- set limit = param('limit', var('limit'), 'integer') %}",
            {"limit": "How many."},
            "line 1: expected param(name, default, type) with literals",
        ),
    ],
)
def test_what_is_no_question_is_told_in_one_line(code: str, descriptions: dict[str, str], error: str) -> None:
    with pytest.raises(UserError) as told:
        _question(analysis(code, **descriptions), described)
    assert str(told.value) == f"{FILE}: {error}"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("select {{ no_such_macro() }}", "'no_such_macro' is undefined"),
        ("select {% if execute %}{{ exceptions.raise_compiler_error('not so') }}{% endif %}", "not so"),
        ("select {{ brand", "unexpected end of template"),
    ],
)
def test_what_does_not_compile_is_told_in_one_line(tmp_path: Path, code: str, error: str) -> None:
    (tmp_path / "dbt_project.yml").write_text("{name: shop, profile: shop, config-version: 2}")
    (tmp_path / "profiles.yml").write_text("shop: {target: here, outputs: {here: {type: duckdb, schema: main}}}")
    (tmp_path / "analyses").mkdir()
    (tmp_path / FILE).write_text(code)
    with pytest.raises(UserError) as told:
        compile_questions(["--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path)], described)
    message = str(told.value)
    assert FILE in message
    assert error in message
    assert "\n" not in message
