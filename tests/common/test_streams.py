"""Contracts: what they may say, how a mistake is told, and that the staging models judge by them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UserError
from common.streams import STREAMS, Stream, read_contracts
from dbt_project.contracts import MACROS, PROJECT, SOURCES, STAGING, files, write_contracts
from tests.checkout import PACKAGES, copy_project

CONTRACT: dict[str, Any] = {
    "description": "People who signed up.",
    "transport": "kafka",
    "key": "user_id",
    "kind": "event",
    "event_type": "signup",
    "time": ["at"],
    "fields": [
        {"name": "user_id", "required": True, "description": "The person."},
        {"name": "at", "required": True, "description": "When."},
    ],
}


def contract(folder: Path, name: str = "signups", **changes: Any) -> dict[str, Stream]:
    text = yaml.safe_dump({key: value for key, value in (CONTRACT | changes).items() if value is not None})
    (folder / f"{name}.yml").write_text(text)
    return read_contracts(folder)


def test_required_fields_are_those_of_the_staging_model_that_is_written_by_hand() -> None:
    reasons = set(re.findall(r"'missing:(\w+)'", (PROJECT / "models" / "staging" / "stg_page_views.sql").read_text()))
    required = {group[0] for group in STREAMS["page_views"].required}
    assert required == reasons - {"user_id"}  # required only with var session_key: user_id


def test_a_contract_says_what_a_stream_is(tmp_path: Path) -> None:
    stream = contract(tmp_path, one_of=[["at", "user_id"]])["signups"]
    assert (stream.name, stream.transport, stream.key, stream.time) == ("signups", "kafka", "user_id", ("at",))
    assert stream.body_fields == ("user_id", "at")
    assert stream.required == (("user_id",), ("at",), ("at", "user_id"))


FIELD = {"name": "at", "required": True, "description": "When."}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a key that is missing": ({"transport": None}, "transport is missing"),
    "another transport": ({"transport": "nats"}, "transport: expected 'pubsub' or 'kafka', not nats"),
    "an unknown key": (
        {"transport": None, "tranport": "kafka"},
        "unknown key tranport; did you mean transport?",
    ),
    "no field": ({"fields": []}, "fields: is empty; list something, or leave it out"),
    "a field of an odd name": (
        {"fields": [{**FIELD, "name": "it's"}]},
        "field it's: name: expected letters, digits and _, such as user_id; use path for its place in the body",
    ),
    "two fields of one name": ({"fields": [FIELD, FIELD]}, "fields: two fields have the name at"),
    "two paths of one name": (
        {"fields": [FIELD, {**FIELD, "name": "when", "path": "at"}]},
        "fields: two fields have the path at",
    ),
    "a time that is not required": (
        {"fields": [{**FIELD, "required": False}], "key": None},
        "fields: at must be required, since it is the type or the time of the event",
    ),
    "an event without a type": (
        {"event_type": None},
        "event_type: an event needs one, such as signup, or a field that holds it",
    ),
    "an id that is no field": ({"id": ["user"]}, "id: user is not one of the fields"),
    "names that differ in case only": (
        {"fields": [FIELD, {**FIELD, "name": "At"}]},
        "fields: two fields have the name at and At",
    ),
    "a time that is no field": ({"time": ["when"]}, "time: when is not one of the fields"),
    "a key that is no field": ({"key": "id"}, "key: id is not one of the fields"),
    "a group with what is no field": ({"one_of": [["at", "id"]]}, "one_of: id is not one of the fields"),
    "an entity without a key": (
        {"kind": "entity", "key": None, "event_type": None},
        "key: an entity needs one, the field that holds its id",
    ),
    "an entity with a type": (
        {"kind": "entity", "event_type": "signup"},
        "event_type: only an event has it; an entity is identified by its key",
    ),
    "an entity without a time": (
        {"kind": "entity", "event_type": None, "time": None},
        "time: an entity needs one, the field with the time of a version",
    ),
    "an event without a time": ({"time": None}, "time: an event needs one, the field with the time it happened"),
    "an event in Debezium's envelope": ({"envelope": "debezium"}, "envelope: debezium needs kind: entity"),
    "a type of a wrong kind": ({"event_type": 3}, "event_type: expected a text, in quotes, not 3"),
    "a type from a field that is unknown": (
        {"event_type": {"field": "at", "values": {"a": "b"}, "other": "keep"}},
        "event_type: unknown key other; did you mean others?",
    ),
    "a type that is not listed": (
        {"event_type": {"field": "at"}},
        "event_type: values: list the values, such as {sale: purchase}, or set others: keep",
    ),
    "a path with a quote": (
        {"fields": [FIELD, {**FIELD, "name": "ref", "path": "it's"}]},
        "field ref: path: expected names with . between them, such as props.ref or items[0].sku",
    ),
    "a value inside a value": (
        {"fields": [FIELD, {**FIELD, "name": "ref", "path": "at.ref"}], "key": None},
        "fields: at and at.ref read at as a value and as an object",
    ),
    "an element of what is an object": (
        {
            "fields": [
                FIELD,
                *({**FIELD, "name": name, "path": f"a{path}"} for name, path in (("b", ".b"), ("c", "[0]"))),
            ],
            "key": None,
        },
        "fields: a.b and a[0] read a as an object and as a list",
    ),
    "objects that differ in case only": (
        {
            "fields": [FIELD, *({**FIELD, "name": path[-1], "path": path} for path in ("Props.b", "props.c"))],
            "key": None,
        },
        "fields: the paths Props.b and props.c differ in case only: Props and props",
    ),
    "elements of two kinds": (
        {
            "fields": [
                FIELD,
                *({**FIELD, "name": name, "path": f"a{path}"} for name, path in (("b", "[0]"), ("c", "[1].c"))),
            ],
            "key": None,
        },
        "fields: a[0] and a[1].c read a[] as a value and as an object",
    ),
    "a column that is a word of SQL": (
        {"fields": [FIELD, {**FIELD, "name": "order"}], "key": None},
        "fields: order is a reserved word of SQL; choose another name, and set path: order",
    ),
    "a column that every stream has": (
        {"fields": [FIELD, {**FIELD, "name": "stream"}], "key": None},
        "fields: stream is a column of every stream; choose another name, and set path: stream",
    ),
    "a column that a history has": (
        {"kind": "entity", "event_type": None, "fields": [*CONTRACT["fields"], {**FIELD, "name": "effective_at"}]},
        "fields: effective_at is a column of every stream; choose another name, and set path: effective_at",
    ),
    "a column as dbt's": (
        {"fields": [FIELD, {**FIELD, "name": "dbt_valid_to"}], "key": None},
        "fields: dbt_valid_to: names with dbt_ are reserved; choose another",
    ),
    "a column as staging's texts": (
        {"fields": [FIELD, {**FIELD, "name": "_text_of_at"}], "key": None},
        "fields: _text_of_at: names with _text_of_ are reserved; choose another",
    ),
    "a column that DuckDB reads as a statement": (
        {"fields": [FIELD, {**FIELD, "name": "describe"}], "key": None},
        "fields: describe is a reserved word of SQL; choose another name, and set path: describe",
    ),
    "a number as the id of an entity": (
        {
            "kind": "entity",
            "event_type": None,
            "key": "number",
            "fields": [{**FIELD, "name": "number", "type": "integer"}, {**FIELD, "type": "timestamp"}],
        },
        "key: number must have the type id or string",
    ),
    "texts as the values of an integer": (
        {"fields": [FIELD, {**FIELD, "name": "n", "type": "integer", "values": ["1", "low"]}]},
        "field n: values: low is not an integer",
    ),
    "an id that names a field twice": (
        {"id": ["user_id", "user_id"]},
        "id: user_id is listed twice",
    ),
    "Jinja in a description": (
        {"fields": [{**FIELD, "description": "Of {{ x }}."}], "key": None},
        "at: description: dbt would read {{, {% and {# as Jinja",
    ),
    "an ignored path with a quote": (
        {"ignored": ["it's.x"]},
        "ignored: it's.x: expected names with . between them, such as props.ref",
    ),
    "an index of many digits": (
        {"fields": [FIELD, {**FIELD, "name": "n", "path": "a[99999999999999999999]"}]},
        "field n: path: expected names with . between them, such as props.ref or items[0].sku",
    ),
    "a part of a time that is listed twice": (
        {"fields": [{**FIELD, "type": "timestamp", "format": "%Y-%m-%d %d"}]},
        "field at: format: %Y, %m and the others may appear only once",
    ),
    "JSON beside text in one list": (
        {
            "fields": [
                FIELD,
                {**FIELD, "name": "b", "path": "a[0]"},
                {**FIELD, "name": "c", "path": "a[1]", "type": "json"},
            ],
            "key": None,
        },
        "fields: a[0] and a[1] read a[] as a value and as a JSON value",
    ),
    "a unit of what is no time": (
        {"fields": [FIELD, {**FIELD, "name": "n", "type": "integer", "unit": "seconds"}]},
        "field n: unit needs the type timestamp",
    ),
    "a unit and a format": (
        {"fields": [{**FIELD, "type": "timestamp", "unit": "seconds", "format": "%Y"}]},
        "field at: a timestamp has a unit or a format, not both",
    ),
    "a format that no engine reads": (
        {"fields": [{**FIELD, "type": "timestamp", "format": "%d %B %Y"}]},
        "field at: format: expected %Y, %m, %d, %H, %M, %S, %f and %z, such as %d.%m.%Y %H:%M",
    ),
    "an unknown type": (
        {"fields": [{**FIELD, "type": "decimal"}]},
        "field at: type: expected 'string', 'id', 'integer', 'amount', 'boolean', 'timestamp' or 'json', not decimal",
    ),
    "a price that is text": (
        {"fields": [FIELD, {**FIELD, "name": "price"}]},
        "field price: type: the column price of fct_events is amount",
    ),
    "a personal id": (
        {"fields": [{**FIELD, "personal": "hash"}], "key": None},
        "fields: at is personal, so it can be neither id, time nor type",
    ),
    "a hash of a number": (
        {"fields": [FIELD, {**FIELD, "name": "n", "type": "integer", "personal": "hash"}]},
        "field n: personal: hash needs the type string or id",
    ),
    "a text in place of a list": ({"time": "at"}, "time: expected a list, such as [a, b], not at"),
    "a list in place of a text": ({"key": ["user_id"]}, "key: expected a text"),
    "a text in place of a field": (
        {"fields": [FIELD, "user_id"]},
        "fields[1]: expected a mapping, such as {name: plan, description: The plan.}, not user_id",
    ),
    "an unknown key of a field": (
        {"fields": [FIELD, {"name": "price", "type": "amount", "requierd": True, "description": "Paid."}]},
        "field price: unknown key requierd; did you mean required?",
    ),
    "a key that is like no other": (
        {"event_type": {"field": "at", "default": "x"}},
        "event_type: unknown key default; the keys are field, values, others",
    ),
    "a field without a description": (
        {"fields": [FIELD, {"name": "plan"}]},
        "field plan: description is missing",
    ),
    "a field without a name": ({"fields": [FIELD, {"description": "Plan."}]}, "fields[1]: name is missing"),
    "neither true nor false": (
        {"fields": [{**FIELD, "required": "maybe"}]},
        "field at: required: expected true or false, not maybe",
    ),
    "a number as a value": (
        {"fields": [{**FIELD, "values": ["a", 1]}]},
        "field at: values[1]: expected a text, in quotes, not 1",
    ),
    "a boolean as a value for null": ({"nulls": [False]}, "nulls[0]: expected a text, in quotes, not false"),
    "a type without a value": (
        {"fields": [{**FIELD, "type": None}]},
        "field at: type: expected 'string', 'id', 'integer', 'amount', 'boolean', 'timestamp' or 'json';"
        " it has no value",
    ),
    "an empty name": ({"fields": [{**FIELD, "name": ""}]}, "fields[0]: name: expected a text that is not empty"),
    "a topic of an odd name": ({"topic": "a/b"}, "topic: expected letters, digits, ., _, ~, +, % and -, not a/b"),
    "no values": (
        {"fields": [{**FIELD, "values": []}]},
        "field at: values: is empty; list something, or leave it out",
    ),
    "no aliases": (
        {"fields": [{**FIELD, "aliases": []}]},
        "field at: aliases: is empty; list something, or leave it out",
    ),
    "no id": ({"id": []}, "id: is empty; list something, or leave it out"),
    "an empty group": ({"one_of": [["at"], []]}, "one_of[1]: is empty; list something, or leave it out"),
    "no values of a type": (
        {"event_type": {"field": "at", "values": {}, "others": "keep"}},
        "event_type.values: is empty; list something, or leave it out",
    ),
    "a subscription on Kafka": ({"subscription": "signups-landing"}, "subscription: needs transport: pubsub"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_file_and_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        contract(tmp_path, **changes)
    assert str(error.value) == f"{tmp_path.name}/signups.yml: {message}"


def test_two_streams_of_one_transport_share_no_topic(tmp_path: Path) -> None:
    contract(tmp_path, "orders", topic="signups", transport="pubsub")
    contract(tmp_path)
    with pytest.raises(UserError) as error:
        contract(tmp_path, "visits", topic="signups")
    assert str(error.value) == (
        f"{tmp_path.name}/visits.yml: topic: signups is the topic of signups too; give each its own"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("select", "this is a reserved word of SQL; choose another name"),
        ("pseudonym_key", "landing has a table of this name; choose another"),
        ("Signups", "expected a name of lowercase letters, digits and _ that begins with a letter"),
        ("sign'ups", "expected a name of lowercase letters, digits and _ that begins with a letter"),
        ("a" * 64, "expected a name of lowercase letters, digits and _ that begins with a letter"),
    ],
)
def test_a_name_that_is_no_name_of_a_table(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{name}.yml: name: {expected}")):
        contract(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"kind: event\nkind: entity\n", "line 2: kind is listed twice"),
        (b"kind: [event\n", "line 2: did not find expected ',' or ']'"),
        (b"- kind\n", "expected keys such as transport, kind and fields"),
        (b"", "expected keys such as transport, kind and fields"),
        (b"kind: \xff\n", "is not UTF-8 text"),
        (b"description: {{ x }}\n", "line 1: a key has to be a name"),
        (b"kind: " + b"9" * 5000, "Exceeds the limit"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: bytes, expected: str) -> None:
    (tmp_path / "signups.yml").write_bytes(text)
    with pytest.raises(UserError, match=re.escape(expected)):
        read_contracts(tmp_path)


def test_dates_in_a_contract_are_text(tmp_path: Path) -> None:
    (tmp_path / "signups.yml").write_text(
        "{description: d, transport: kafka, kind: event, event_type: a, time: [at], nulls: [0000-00-00],"
        " fields: [{name: at, required: true, description: d}, {name: day, values: [2026-02-30, 2026-01-05],"
        " description: d}]}"
    )
    stream = read_contracts(tmp_path)["signups"]
    assert stream.nulls == ("0000-00-00",)
    assert stream.fields[1].values == ("2026-02-30", "2026-01-05")


def test_a_folder_without_contracts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no contract in"):
        read_contracts(tmp_path)


def test_every_command_that_needs_contracts_reports_a_mistake_in_one_line(tmp_path: Path) -> None:
    copy_project(tmp_path, PACKAGES)
    contract(tmp_path)
    (tmp_path / "streams").mkdir()
    (tmp_path / "signups.yml").rename(tmp_path / "streams" / "signups.yml")
    broken = tmp_path / "streams" / "signups.yml"
    broken.write_text(broken.read_text().replace("kind: event", "kind: evnt"))

    def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **variables}
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    for command in (["ingest", "--help"], ["dbt_project", "build"], ["dbt_project.contracts"]):
        done = run(*command)
        assert done.returncode == 2
        assert done.stderr == "error: streams/signups.yml: kind: expected 'event' or 'entity', not evnt\n"
    # what reads published marts needs no contract
    for variables in ({}, {"STREAMS": '["signups"]', "TOPICS": '{"signups": "x"}'}):
        done = run("serve", "query", **variables)
        assert done.stderr == "error: nothing is published yet: run `make ingest build` first\n"


def test_dbt_has_what_the_contracts_say() -> None:
    for path, text in files(PROJECT, STREAMS).items():
        assert (PROJECT / path).read_text() == text, "run `python -m dbt_project.contracts`"
        if path.suffix == ".yml":
            assert yaml.safe_load(text).keys() <= {"version", "sources", "models", "snapshots"}


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    streams = contract(tmp_path)
    for path in (SOURCES, MACROS):
        (tmp_path / path).parent.mkdir(parents=True)
    model = tmp_path / STAGING / "stg_signups.sql"
    write_contracts(tmp_path, streams)
    before = (tmp_path / MACROS).stat().st_mtime_ns
    write_contracts(tmp_path, streams)
    assert (tmp_path / MACROS).stat().st_mtime_ns == before
    assert (
        "'signups': {'kind': 'event', 'key': 'user_id', 'format': 'json', 'event_type': 'signup',"
        in (tmp_path / MACROS).read_text()
    )
    [source] = yaml.safe_load((tmp_path / SOURCES).read_text())["sources"]
    assert source["tables"] == [
        {"name": "signups", "description": "People who signed up. From Kafka, keyed by user_id."}
    ]
    assert "staged_events('signups')" in model.read_text()
    write_contracts(tmp_path, {})
    assert not model.exists()


def test_an_entity_has_every_model_that_nobody_wrote(tmp_path: Path) -> None:
    streams = contract(tmp_path, kind="entity", event_type=None)
    models = {path.name for path in files(tmp_path, streams)} - {SOURCES.name, MACROS.name}
    names = ("stg_signups", "int_signups_latest", "int_signups_current", "dim_signups_history", "dim_signups")
    assert models == {*(f"{name}.{end}" for name in names for end in ("sql", "yml")), "_snapshots.yml"}
    by_hand = tmp_path / "models" / "staging" / "stg_signups.sql"
    by_hand.parent.mkdir(parents=True)
    by_hand.touch()
    assert models - {path.name for path in files(tmp_path, streams)} == {"stg_signups.sql", "stg_signups.yml"}


def test_staging_by_hand_takes_no_personal_field(tmp_path: Path) -> None:
    streams = contract(tmp_path, fields=[FIELD, {**FIELD, "name": "mail", "personal": "drop"}], key=None)
    by_hand = tmp_path / "models" / "staging" / "stg_signups.sql"
    by_hand.parent.mkdir(parents=True)
    by_hand.touch()
    with pytest.raises(UserError, match=r"signups\.yml: mail cannot be personal: its staging"):
        files(tmp_path, streams)


@pytest.mark.parametrize(
    "text", ["select 1 from {{ ref('stg_clicks') }}", "select 1 from {{ source('raw', 'clicks') }}"]
)
def test_a_contract_that_a_model_needs_is_named(tmp_path: Path, text: str) -> None:
    model = tmp_path / "models" / "analytics" / "agg_clicks.sql"
    model.parent.mkdir(parents=True)
    model.write_text(text)
    with pytest.raises(
        UserError, match=r"streams/clicks\.yml is missing, but dbt_project/models/analytics/agg_clicks\.sql reads"
    ):
        files(tmp_path, contract(tmp_path))


def test_a_stream_takes_no_name_of_another_model(tmp_path: Path) -> None:
    streams = contract(tmp_path, kind="entity", event_type=None)
    by_hand = tmp_path / "models" / "analytics" / "dim_signups.sql"
    by_hand.parent.mkdir(parents=True)
    by_hand.touch()
    with pytest.raises(UserError, match=r"signups\.yml: there is another model dim_signups; choose another name"):
        files(tmp_path, streams)
    by_hand.unlink()
    streams |= contract(tmp_path, "signups_history", kind="entity", event_type=None)
    with pytest.raises(UserError, match=r"signups_history\.yml: there is another model dim_signups_history"):
        files(tmp_path, streams)
