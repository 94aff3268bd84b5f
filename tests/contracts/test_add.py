"""`stream add` writes a valid contract of any sample and says what it guessed."""

import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from common.errors import UserError
from common.settings import Settings
from common.streams import RESERVED, STREAMS, VOCABULARY, EventType, Stream, read_contracts
from contracts import samples
from contracts.add import add_stream
from contracts.draft import FEW
from contracts.inference import MOST_KEYS
from contracts.names import singular
from contracts.samples import SAMPLE_MESSAGES, Sample, read_files, read_topic
from engines.duckdb.sink import DuckDBSink
from ingest.landing import land_streams
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tests.contracts.samples import ROWS, fields_of, write
from tools.brokers import KafkaServer


def sample_of(*bodies: Any) -> Sample:
    sample = Sample("sample.ndjson")
    for body in bodies:
        sample.add(body if isinstance(body, bytes) else json.dumps(body).encode())
    return sample


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., tuple[Stream, str]]:
    """Adds a stream from these bodies; returns its contract and the file."""
    folder = tmp_path / "streams"
    folder.mkdir()

    def add(*bodies: Any, name: str = "signups", **options: Any) -> tuple[Stream, str]:
        written = add_stream(name, sample_of(*bodies), force=True, folder=folder, **options)
        assert written.path == folder / f"{name}.yml"
        text = written.path.read_text()
        stream = read_contracts(folder)[name]
        assert (written.fields, written.guesses) == (len(stream.fields), text.count("# guessed:"))
        return stream, text

    return add


Add = Callable[..., tuple[Stream, str]]


def guess_of(text: str, line: str) -> str:
    """The comment of the line that begins so."""
    [found] = [one for one in text.splitlines() if one.strip().startswith(line)]
    return found.partition("# guessed: ")[2]


# -- samples ----------------------------------------------------------------------------------------------------------


FILES = [f"rows.{kind}{gz}" for kind in ("ndjson", "json", "csv", "tsv", "parquet") for gz in ("", ".gz")]


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_fields(tmp_path: Path, name: str) -> None:
    sample = read_files([str(write(tmp_path / name, ROWS))])
    assert (sample.read, sample.unreadable, sample.is_all) == (9, 0, True)
    add_stream("signups", sample, folder=tmp_path)
    assert fields_of(read_contracts(tmp_path)["signups"]) == {
        "signup_id": {"name": "signup_id", "type": "id", "required": True},
        "user_id": {"name": "user_id", "type": "id", "required": True},
        "signed_up_at": {"name": "signed_up_at", "type": "timestamp", "required": True},
        "country": {"name": "country", "required": True},
        "paid": {"name": "paid", "type": "amount", "required": True},
        "is_team": {"name": "is_team", "type": "boolean", "required": True},
        "seats": {"name": "seats", "type": "integer", "required": True},
    }


def test_one_document_over_several_lines_is_a_sample(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0], indent=2))
    assert read_files([str(tmp_path / "one.json")]).bodies[0].keys() == ROWS[0].keys()


def test_several_files_folders_and_globs_are_one_sample(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.ndjson", ROWS[:2])
    write(tmp_path / "folder" / "b.csv.gz", ROWS[2:4])
    write(tmp_path / "c-1.parquet", ROWS[4:6])
    write(tmp_path / "d.json", ROWS[6:])
    sample = read_files([str(tmp_path / "folder"), str(tmp_path / "c-*.parquet"), str(tmp_path / "d.json")])
    assert {body["signup_id"] for body in sample.bodies} == {row["signup_id"] for row in ROWS}
    assert sample.origin == "4 files"


def test_of_more_messages_than_fit_each_file_gives_a_part(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = [json.dumps({"time": "2026-01-01", name: number}) for number in range(SAMPLE_MESSAGES)]
        (tmp_path / f"{name}.ndjson").write_text("\n".join(lines))
    sample = read_files([str(tmp_path)])
    assert (sample.read, sample.is_all) == (SAMPLE_MESSAGES, False)
    assert sum("a" in body for body in sample.bodies) == sum("b" in body for body in sample.bodies)
    assert read_files([str(tmp_path / "a.ndjson")]).is_all
    text = add_stream("signups", sample, folder=tmp_path).path.read_text()
    assert text.startswith("# From the first 5,000 messages of 2 files.\n")


def test_a_sample_of_large_messages_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SAMPLE_BYTES", 10_000)
    lines = [json.dumps({"time": "2026-01-01", "a": f"{number}" * 1_000}) for number in range(50)]
    (tmp_path / "large.ndjson").write_text("\n".join(lines))
    sample = read_files([str(tmp_path)])
    assert (sample.read < 20, sample.is_all) == (True, False)


def test_what_cannot_be_read_is_counted(add: Add) -> None:
    _, text = add(ROWS[0], b"{", b"\xff", b"[1]", b'{"a": NaN}', ROWS[1])
    assert "# From 6 messages of sample.ndjson.\n" in text
    assert "# Not a JSON object: 4 of them." in text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x\ny\n", b"1\n2\n", b"[]", b'["a", 2]', b"\xff\xfe\xfd"])
def test_a_sample_without_a_readable_line_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.ndjson").write_bytes(content)
    with pytest.raises(UserError, match=r"^\S+bad\.ndjson(:| begins like) [^\n]+$"):
        read_files([str(tmp_path / "bad.ndjson")])


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("time,a,a\n2026-01-01,1,2\n")
    with pytest.raises(UserError, match="has 2 columns named 'a'"):
        read_files([str(tmp_path / "twice.csv")])


@pytest.mark.parametrize("delimiter", ["~", ":"])
def test_an_unknown_delimiter_is_one_line(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(delimiter.join(["id", "at", "plan"]) + "\n")
    with pytest.raises(UserError) as error:
        read_files([str(tmp_path / "a.csv")])
    assert str(error.value) == (
        f"{tmp_path / 'a.csv'}: the header has only one column, 'id{delimiter}at{delimiter}plan': separate columns by a"
        " comma, semicolon, tab or |"
    )


def test_columns_are_nested_by_their_dots(tmp_path: Path, add: Add) -> None:
    (tmp_path / "dots.csv").write_text("time,props.ref,props.utm.source,x.,y,y.z\n2026-01-01,a,b,c,d,e\n")
    sample = read_files([str(tmp_path / "dots.csv")])
    assert sample.bodies == [
        {"time": "2026-01-01", "props": {"ref": "a", "utm": {"source": "b"}}, "x.": "c", "y": "d", "y.z": "e"}
    ]
    pq.write_table(pa.table({"time": ["2026-01-01"], "props.ref": ["a"], "y": [1], "y.z": [2]}), tmp_path / "a.parquet")
    assert json.loads(json.dumps(read_files([str(tmp_path / "a.parquet")]).bodies)) == [
        {"time": "2026-01-01", "props": {"ref": "a"}, "y": "1", "y.z": "2"}
    ]


# -- topics -----------------------------------------------------------------------------------------------------------


def test_the_spool_is_sampled_with_its_keys_and_nothing_is_committed(settings: Settings, add: Add) -> None:
    stream = STREAMS["clicks"]
    bodies = [{"who": {"id": f"u{number}"}, "time": "2026-01-01"} for number in range(5)]
    messages = [Message(orjson.dumps(body), body["who"]["id"].encode()) for body in bodies]  # type: ignore[index]
    SpoolProducer(settings).produce(stream, [*messages, Message(None, b"u1")])
    sample = read_topic(settings, "clicks", "kafka")
    assert (sample.read, sample.keys) == (5, [message.key for message in messages])
    written = add_stream("visits", sample, topic="clicks", folder=settings.spool_path)
    contract = read_contracts(settings.spool_path)["visits"]
    assert (contract.topic, contract.key) == ("clicks", "who.id")
    assert "the keys of 5 messages are its values" in written.path.read_text()
    assert land_streams(settings, [stream], DuckDBSink(settings.warehouse_path, 1)).rows == 6


def test_cloudevents_in_binary_mode_are_sampled_with_their_attributes(settings: Settings, tmp_path: Path) -> None:
    attributes = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/shop", "ce_type": "signup", "other": "x"}
    message = Message(b'{"plan": "a"}', None, {**attributes, "ce_time": "2026-01-05T10:00:00Z"})
    without_data = [Message(payload, None, {**message.attributes, "ce_id": str(payload)}) for payload in (b"", None)]
    SpoolProducer(settings).produce(STREAMS["clicks"], [message, *without_data])
    add_stream("signups", read_topic(settings, "clicks", "kafka"), folder=tmp_path)
    stream = read_contracts(tmp_path)["signups"]
    assert (stream.envelope, stream.id, stream.time) == ("cloudevents", ("id",), ("time",))
    assert [field.in_body for field in stream.fields] == ["id", "source", "type", "time", "data.plan"]


def test_a_stream_on_the_topic_of_another_is_not_written(add: Add, tmp_path: Path) -> None:
    body = {"time": "2026-01-05", "n": 1}
    add(body)
    with pytest.raises(UserError, match=r"visits\.yml: topic: signups is the topic of signups too"):
        add(body, name="visits", topic="signups")
    assert not (tmp_path / "streams" / "visits.yml").exists()


def test_a_topic_without_messages_and_one_of_pubsub_are_errors(settings: Settings) -> None:
    with pytest.raises(UserError, match=r"^spool log shop\.signups: there is no message"):
        read_topic(settings, "shop.signups", "kafka")
    with pytest.raises(UserError, match="signups cannot be sampled from Pub/Sub"):
        read_topic(settings.model_copy(update={"pubsub_project": "shop"}), "signups", "pubsub")


@pytest.mark.brokers
def test_a_kafka_topic_is_sampled_without_committing_offsets(kafka_server: KafkaServer, tmp_path: Path) -> None:
    servers = {"bootstrap.servers": kafka_server.bootstrap_servers}
    topic, admin = f"shop.signups-{uuid.uuid4().hex}", AdminClient(servers)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    producer = Producer(servers)
    for row in ROWS:
        producer.produce(topic, json.dumps(row), key=str(row["user_id"]))
    assert producer.flush(30) == 0
    settings = Settings(_env_file=None, kafka_bootstrap_servers=kafka_server.bootstrap_servers)
    for _ in range(2):
        sample = read_topic(settings, topic, "kafka")
        assert (sample.read, sample.is_all) == (9, True)
    add_stream("signups", sample, topic=topic, folder=tmp_path)
    contract = read_contracts(tmp_path)["signups"]
    assert (contract.topic, contract.key, contract.id) == (topic, "user_id", ("signup_id",))
    groups = [one.group_id for one in admin.list_consumer_groups().result().valid if "sample" in one.group_id]
    for group in groups:
        offsets = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
        assert all(one.offset < 0 for one in offsets.topic_partitions)


# -- types ------------------------------------------------------------------------------------------------------------

TYPES: dict[str, tuple[str, list[Any], dict[str, str], str]] = {
    "numbers": ("seats", [1, -2, 3], {"type": "integer"}, ""),
    "numbers that are texts": ("seats", ["1", "2"], {"type": "integer"}, "all of 2 texts could be this"),
    "zeros at the beginning": ("seats", ["01", "02"], {}, "digits, but hardly a number to count with"),
    "digits of a code": ("zip", ["1234", "5678"], {}, "digits, but hardly a number to count with"),
    "more than 64 bits": ("seats", [2**63, 1], {}, "numbers too large for the types integer and amount"),
    "the largest integer": ("seats", [2**63 - 1, -(2**63) + 1], {"type": "integer"}, ""),
    "decimals": ("paid", [1.5, 2], {"type": "amount"}, ""),
    "decimals that are texts": ("paid", ["1.50", "-2"], {"type": "amount"}, "all of 2 texts could be this"),
    "more than four decimals": ("lat", [1.23456, 2], {}, "numbers of more than four decimals, which the type"),
    "large decimals": ("paid", [1e14, 1.5], {}, "numbers too large for the types integer and amount"),
    "booleans": ("ok", [True, False], {"type": "boolean"}, ""),
    "texts of booleans": ("ok", ["True", "FALSE"], {"type": "boolean"}, "all of 2 texts could be this"),
    "texts and numbers": ("mixed", ["a", 1, True], {}, ""),
    "ISO times": (
        "seen",
        ["2026-01-05T10:00:00.123Z", "2026-01-05 10:00+02:00", "2026-01-05"],
        {"type": "timestamp"},
        "",
    ),
    "a time that is none": ("seen", ["2026-02-30T10:00:00Z"], {}, ""),
    "GMT of BigQuery": ("seen", ["2026-01-05 10:00:00 UTC"], {"type": "timestamp"}, ""),
    "seconds": ("seen_ts", [1_767_607_200, 1_767_607_201], {"type": "timestamp", "unit": "seconds"}, "as seconds they"),
    "milliseconds": ("seenTime", [1_767_607_200_123], {"type": "timestamp", "unit": "milliseconds"}, "as milliseconds"),
    "microseconds": (
        "seen_date",
        ["1767607200123456"],
        {"type": "timestamp", "unit": "microseconds"},
        "as microseconds",
    ),
    "a number like a time": ("seats", [1_767_607_200], {"type": "integer"}, ""),
    "a time of 1970": ("seen_ts", [1_000_000_000, 5], {"type": "integer"}, ""),
    "days first": ("seen", ["31.12.2025 23:59"], {"type": "timestamp", "format": "%d.%m.%Y %H:%M"}, "all of 1 fit"),
    "either first": ("seen", ["01/02/2025"], {"type": "timestamp", "format": "%d/%m/%Y"}, "or is it %m/%d/%Y?"),
    "months first": ("seen", ["01/02/2025", "01/13/2025"], {"type": "timestamp", "format": "%m/%d/%Y"}, "all of 2 fit"),
    "a space before the zone": (
        "seen",
        ["2026-01-05 10:00:00 +0200"],
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S %z"},
        "all of 1 fit the format",
    ),
    "one digit": ("seen", ["1.2.2025"], {}, ""),
    "digits of a date": ("seen_date", ["20260105"], {"type": "timestamp", "format": "%Y%m%d"}, "all of 1 fit"),
    "an id by its name": ("cartId", [1, 2], {"type": "id"}, ""),
    "an id by its values": ("cart", [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))], {"type": "id"}, ""),
    "a list": ("tags", [["a"], []], {"type": "json"}, ""),
    "lists and texts": ("tags", [["a"], "b"], {"type": "json"}, "lists, or objects and other values"),
    "objects and texts": ("tags", [{"a": 1}, "b"], {"type": "json"}, "lists, or objects and other values"),
    "objects of lists": ("tags", [{"a": 1}, [2]], {"type": "json"}, ""),
    "an empty object": ("tags", [{}, {}], {"type": "json"}, ""),
    "nothing": ("plan", ["", None], {}, "no message of the sample has a value"),
    "no time yet": ("left_at", [None], {"type": "timestamp"}, "no message of the sample has a value"),
    "numbers and nulls": ("paid", [1.5, "null", "N/A"], {"type": "amount"}, ""),
    "a broken time": (
        "seen_at",
        ["2026-01-05", "2026-01-06", "soon"],
        {"type": "timestamp"},
        "1 of 3 values do not fit and are rejected",
    ),
    "a broken date": (
        "seen_at",
        ["01.02.2026", "02.02.2026", "soon"],
        {"type": "timestamp", "format": "%d.%m.%Y"},
        "1 of 3 values do not fit and are rejected",
    ),
    "a time among texts": ("note", ["2026-01-05", "2026-01-06", "soon"], {}, ""),
    "few broken numbers": (
        "paid",
        [*range(99), "x"],
        {"type": "integer"},
        "1 of 100 values do not fit and are rejected",
    ),
    "more broken numbers": ("paid", [*range(9), "x"], {}, ""),
    "a price": ("price", [1, 2], {"type": "amount"}, ""),
    "a place": ("city", [1, 2], {}, ""),
}


@pytest.mark.parametrize(("name", "values", "expected", "guess"), TYPES.values(), ids=TYPES)
def test_the_type_is_what_all_values_are(
    add: Add, name: str, values: list[Any], expected: dict[str, str], guess: str
) -> None:
    stream, text = add(
        *({"time": "2026-01-05T10:00:00Z", name: value, "n": number} for number, value in enumerate(values))
    )
    field = fields_of(stream)[name]
    assert {key: value for key, value in field.items() if key not in ("name", "required")} == expected
    assert guess_of(text, f"- name: {field['name']}").startswith(guess)
    assert bool(guess_of(text, f"- name: {field['name']}")) == bool(guess)


def test_values_that_mean_null_are_listed_and_are_no_values(add: Add) -> None:
    stream, text = add({"time": "2026-01-05", "a": "null", "b": "x"}, {"time": "2026-01-05", "a": 1, "b": "\\N"})
    assert stream.nulls == ("null", "\\N")
    assert fields_of(stream)["a"] == {"name": "a", "type": "integer"}
    assert guess_of(text, "nulls:") == "texts that mean no value"


def test_required_is_what_every_message_has(add: Add) -> None:
    bodies = [{"time": "2026-01-05", "n": number, "a": "x", "b": "x"} for number in range(FEW)]
    bodies[7] |= {"a": None, "b": ""}
    stream, text = add(*bodies)
    assert [field.in_body for field in stream.fields if field.required] == ["time", "n"]
    assert guess_of(text, "fields:") == ""
    _, text = add(*bodies[:-1])
    assert guess_of(text, "fields:") == "required is what 99 messages have, which are few"


# -- names ------------------------------------------------------------------------------------------------------------


def test_objects_become_paths(add: Add) -> None:
    stream, _ = add({"time": "2026-01-05", "props": {"ref": "a", "utm": {"sourceName": "b"}}, "user": {"id": 7}})
    assert {field.in_body: field.name for field in stream.fields} == {
        "time": "time",
        "props.ref": "props_ref",
        "props.utm.sourceName": "props_utm_source_name",
        "user.id": "user_id",
    }


def test_names_of_the_vocabulary_are_used_where_the_name_matches(add: Add) -> None:
    stream, text = add(
        {"time": "2026-01-05", "userId": 7, "OS": "x", "page": {"url": "u"}, "a": {"city": "c"}, "b": {"city": "d"}}
    )
    assert {field.in_body: field.name for field in stream.fields} == {
        **{"time": "time", "userId": "user_id", "OS": "os", "page.url": "url", "a.city": "a_city", "b.city": "b_city"}
    }
    assert guess_of(text, "- name: url") == "url of fct_events by its name"


def test_names_that_a_field_cannot_have_are_changed(add: Add) -> None:
    body = {
        **{"order": "a", "stream": "b", "payload": "c", "1st": "d", "a b": "e", "a_b": "f", "a-b": "g", "dbt_run": "h"},
        **{"seats": 1, "seats_text": "x", "price": "cheap", "url": ["x"], "x" * 99: 1, "at": "2026-01-05"},
    }
    stream, _ = add(body)
    assert {field.in_body: field.name for field in stream.fields} == {
        **{"order": "body_order", "stream": "body_stream", "payload": "body_payload", "1st": "body_1st"},
        **{"a b": "a_b_2", "a_b": "a_b", "a-b": "a_b_3", "seats": "seats", "seats_text": "seats_text"},
        **{"price": "body_price", "url": "body_url", "x" * 99: "x" * 55, "at": "at", "dbt_run": "body_dbt_run"},
    }


def test_what_no_path_can_name_is_left_out_and_told(add: Add) -> None:
    stream, text = add(
        {"time": "2026-01-05", "Plan": "a", "plan": "b", "a.b": 1, "": 1, "ü": 1, "x\n# y": 1},
        {"time": "2026-01-06", "plan": "b"},
    )
    assert {field.in_body for field in stream.fields} == {"time", "plan"}
    [line] = [line for line in text.splitlines() if line.startswith("# Left out: ")]
    assert (
        "Plan (differs from plan in case only), a.b (a path has only ASCII letters, digits, spaces and _@$:/-)" in line
    )
    assert "ü (" in line
    assert "x?# y (" in line


def test_many_fields_deep_objects_and_maps(add: Add) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    body = {
        **{f"field_{number}": number for number in range(500)},
        "counts": {f"user{number}": number for number in range(MOST_KEYS + 1)},
        "deep": deep,
        "large": "x" * 1_000_000,
        "time": "2026-01-05",
    }
    stream, text = add(body)
    fields = fields_of(stream)
    assert len(fields) == 504
    assert fields["counts"]["type"] == "json"
    assert guess_of(text, "- name: counts") == "objects of many keys"
    assert fields["deep" + ".a" * 6]["type"] == "json"
    assert len(text) < 60_000


# -- what the messages are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bodies", "expected", "guess"),
    [
        (
            "signups",
            [{"signup_id": 1, "user_id": 1}, {"signup_id": 2, "user_id": 2}],
            ("signup_id",),
            "each of 2 messages",
        ),
        ("web_events", [{"event_id": 1, "id": 1}, {"event_id": 2, "id": 2}], ("event_id",), "each of 2 messages"),
        ("signups", [{"user_id": 1}, {"user_id": 2}], (), "no field identifies an event"),
        ("signups", [{"plan_uuid": "a"}, {"plan_uuid": "b"}], ("plan_uuid",), "each of 2 messages"),
        ("signups", [{"plan_id": "a"}], (), "no field identifies an event"),
        ("signups", [{"signup_id": "a"}], ("signup_id",), "each of 1 message has another"),
        (
            "orders",
            [{"order_id": 1, "line_id": 1}, {"order_id": 1, "line_id": 2}],
            ("order_id", "line_id"),
            "each of 2",
        ),
        ("orders", [{"order_id": 1, "x": 1}, {"order_id": 1, "x": 2}], (), "no field identifies an event"),
        ("orders", [{"order_id": 1, "x_id": 1, "x": x} for x in "ab"], (), "no field identifies an event"),
        ("orders", [{"order_id": 1, "x": 1}, {"x": 2}], ("order_id",), "1 of 2 messages have one, each another"),
        ("orders", [{"order_id": 1, "x": 1}, {"order_id": 1, "x": 1}], ("order_id",), "each of 1 message has another"),
    ],
)
def test_the_id_is_unique_and_named_like_one(
    add: Add, name: str, bodies: list[dict[str, Any]], expected: tuple[str, ...], guess: str
) -> None:
    stream, text = add(*({"time": "2026-01-05", **body} for body in bodies), name=name)
    assert stream.id == expected
    assert guess in text
    for path in expected:
        assert fields_of(stream)[path]["type"] == "id"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"updated_at": "2026-01-05", "created_at": "2026-01-05", "event_time": "2026-01-05"}, "event_time"),
        ({"created_at": "2026-01-05", "signed_up_at": "2026-01-05"}, "signed_up_at"),
        ({"expires_at": "2026-01-05", "created_at": "2026-01-05"}, "created_at"),
        ({"date": "2026-01-05", "meta": {"timestamp": 1_767_607_200}}, "meta.timestamp"),
        ({"birthday": "2026-01-05"}, "birthday"),
    ],
)
def test_the_time_of_an_event_is_the_best_of_its_times(add: Add, body: dict[str, Any], expected: str) -> None:
    stream, text = add(body)
    assert stream.time == (expected,)
    assert guess_of(text, "time:").startswith("by its name and values")


def test_a_time_that_some_messages_lack_is_required_all_the_same(add: Add) -> None:
    stream, text = add({"time": "2026-01-05"}, {"a": 1})
    assert fields_of(stream)["time"]["required"]
    assert guess_of(text, "- name: time") == "1 of 2 messages have no time and are rejected"


def test_the_type_of_an_event_is_a_field_of_few_values_or_the_name_of_the_stream(add: Add) -> None:
    stream, text = add(*({"time": "2026-01-05", "event": value} for value in ("sale", "view", "null: yes")))
    assert stream.event_type == EventType(
        field="event", values={"null: yes": "null: yes", "sale": "sale", "view": "view"}, others="keep"
    )
    assert guess_of(text, "event_type:").startswith("the values of the sample")
    many = [{"time": "2026-01-05", "event": f"e{number}"} for number in range(30)]
    stream, text = add(*many)
    assert stream.event_type == "signup"
    assert guess_of(text, "event_type:") == "by the name of the stream"
    stream, _ = add(*many[:2], {"time": "2026-01-05"})
    assert stream.event_type == "signup"


@pytest.mark.parametrize(
    ("name", "one"),
    [("page_views", "page_view"), ("entries", "entry"), ("purchases", "purchase"), ("boxes", "box"),
     ("status", "status"),     ("process", "process"), ("signup", "signup")],
)  # fmt: skip
def test_one_of_a_stream(name: str, one: str) -> None:
    assert singular(name) == one


def test_the_key_of_a_file_is_the_person(add: Add) -> None:
    stream, text = add(*ROWS)
    assert (stream.transport, stream.key) == ("kafka", "user_id")
    assert guess_of(text, "key:") == "a file does not tell the message keys"
    stream, _ = add(*ROWS, transport="pubsub")
    assert (stream.transport, stream.key) == ("pubsub", None)
    stream, _ = add({"time": "2026-01-05", "user-id": 1, "user_id": 2})
    assert (stream.key, stream.body_fields[1:], stream.fields[2].name) == ("user_id", ("user-id", "user_id"), "user_id")


def test_what_looks_personal_is_dropped_and_what_events_join_by_is_hashed(add: Add) -> None:
    body = {
        **{"time": "2026-01-05", "email": "x", "contact": "a@b.de", "remote": "10.0.0.1", "phoneNumber": "1"},
        **{"name": "Ann", "last_name": "B", "product_name": "pen", "home": {"address": "x", "city": "y"}},
        **{"emailed": True, "user_id": "a@b.de"},
    }  # fmt: skip
    stream, text = add(body)
    assert {field.in_body: field.personal for field in stream.fields if field.personal} == {
        **{"email": "drop", "contact": "drop", "remote": "drop", "phoneNumber": "drop", "name": "drop"},
        **{"last_name": "drop", "home.address": "drop", "user_id": "hash"},
    }
    assert guess_of(text, "- name: contact") == "personal by values that look like e-mail addresses"
    assert guess_of(text, "- name: last_name") == "personal by its name"


def test_an_entity_has_a_key_and_times(add: Add) -> None:
    versions = [
        {"id": 1, "customer_id": 5, "updatedAt": 1_767_607_200 + day, "created_at": "2026-01-01", "deleted_at": None,
         "__deleted": "false", "event_type": "x"}
        for day in range(3)
    ]  # fmt: skip
    stream, text = add(*versions, name="customers", is_entity=True)
    assert (stream.kind, stream.key, stream.time) == ("entity", "customer_id", ("updatedAt",))
    assert (stream.created, stream.deleted) == ("created_at", ("deleted_at", "__deleted"))
    assert guess_of(text, "key:") == "by its name"
    with pytest.raises(UserError, match="an entity needs a key"):
        add({"updated_at": "2026-01-01"}, is_entity=True)


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_changes_of_debezium_are_an_entity_of_their_rows(add: Add, is_wrapped: bool) -> None:
    changes: list[dict[str, Any]] = [
        {"before": None, "after": {"id": 1, "plan": "a"}, "op": "c", "ts_ms": 1_767_607_200_000},
        {"before": {"id": 1, "plan": "a"}, "after": None, "op": "d", "ts_ms": 1_767_607_200_001},
    ]
    stream, _ = add(
        *({"schema": {}, "payload": change} if is_wrapped else change for change in changes), name="customers"
    )
    assert (stream.kind, stream.envelope, stream.key, stream.time) == ("entity", "debezium", "id", ())
    assert fields_of(stream) == {
        "id": {"name": "id", "type": "id", "required": True},
        "plan": {"name": "plan", "required": True},
    }


def test_cloudevents_have_the_type_the_id_and_the_time_of_their_attributes(add: Add) -> None:
    events = [
        {"specversion": "1.0", "id": f"{number}", "source": "/shop", "type": "signup", "time": "2026-01-05T10:00:00Z",
         "data": {"user_id": number, "plan": "a"}}
        for number in range(3)
    ]  # fmt: skip
    stream, _ = add(*events)
    assert (stream.envelope, stream.id, stream.time) == ("cloudevents", ("id",), ("time",))
    assert isinstance(stream.event_type, EventType)
    assert stream.event_type.field == "type"
    assert {field.in_body: field.name for field in stream.fields} == {
        **{"id": "id", "source": "source", "type": "type", "time": "time"},
        **{"data.user_id": "user_id", "data.plan": "plan"},
    }


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_reads_like_one_that_was_written_by_hand(add: Add) -> None:
    _, text = add(*ROWS[:2])
    assert (
        text
        == """\
# From 2 messages of sample.ndjson.
# `# guessed` marks what to check; `stream check` reports what the contract rejects.
description: Signups.
transport: kafka
key: user_id  # guessed: a file does not tell the message keys
kind: event
id: [signup_id]  # guessed: each of 2 messages has another
event_type: signup  # guessed: by the name of the stream
time: [signed_up_at]  # guessed: by its name and values
fields:  # guessed: required is what 2 messages have, which are few
  - name: signup_id
    type: id
    required: true
    description: Signup id.
  - name: user_id
    type: id
    required: true
    description: User id.
  - name: signed_up_at
    type: timestamp
    required: true
    description: Signed up at.
  - name: country
    required: true
    description: Country.
  - name: paid
    type: amount
    required: true
    description: Paid.
  - name: is_team
    type: boolean
    required: true
    description: Is team.
  - name: seats
    type: integer
    required: true
    description: Seats.
"""
    )


def test_an_event_without_a_time_is_an_error_that_names_the_fields(add: Add) -> None:
    with pytest.raises(UserError, match=r"sample\.ndjson: no field looks like a time .* fields: a, b\.c$"):
        add({"a": 1, "b": {"c": 2}})


NASTY = (
    *(
        "id",
        "event",
        "type",
        "stream",
        "payload",
        "key",
        "a b",
        "a.b",
        "a[0]",
        "",
        "ü",
        "1st",
        "__deleted",
        "is_deleted",
    ),
    *("created_at", "updated_at", "ts", "email", "name", "event_id", "event_at", "a_text", "x" * 80, "x" * 70, "$v"),
    *("a/b", "A-B", "a_b", "null", "body_order", "\n", "'", '"', "properties", "# x", "userId", "op", "after"),
    *RESERVED.split()[:20],
    *VOCABULARY,
)
VALUES = (
    *(None, "", "null", "x", "12", "007", "1.5", "a@b.de", "1.2.3.4", "2026-01-01T00:00:00Z", "31.12.2025", "20260101"),
    *("€", '"', "#x: y", "- a", "\n", 2**70, 1.23456789, True, 1_767_607_200, [1], {}, [{}], "{{ x }}", "%Y"),
)  # fmt: skip


def test_any_sample_with_a_time_and_an_id_gives_a_valid_contract(add: Add) -> None:
    seed = random.randrange(10**9)
    draw = random.Random(seed)

    def value(depth: int) -> Any:
        if depth and draw.random() < 0.2:
            return {name: value(depth - 1) for name in draw.sample(NASTY, draw.randrange(4))}
        return draw.choice(VALUES)

    for _ in range(200):
        names = draw.sample(NASTY, draw.randrange(1, 25))
        usual = {name: value(3) for name in names}
        bodies = [
            {name: usual[name] if draw.random() < 0.7 else value(3) for name in names}
            | {"thing_id": number, "time": "2026-01-05"}
            for number in range(draw.randrange(1, 5))
        ]
        try:
            add(*bodies, name="things", is_entity=draw.random() < 0.5)
        except UserError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
