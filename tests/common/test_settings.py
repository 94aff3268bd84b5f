"""Settings: from the environment or .env, and every mistake in them one line that names the variable."""

import traceback
from pathlib import Path

import pytest

from common.errors import UserError
from common.settings import Settings, load_settings
from common.streams import STREAMS, named


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_without_anything_set_there_is_a_spool_and_a_duckdb_file() -> None:
    settings = load_settings()
    assert settings.warehouse == "duckdb"
    assert settings.warehouse_path == Path("warehouse.duckdb")
    assert settings.spool_path == Path("spool")
    assert {settings.transport(stream) for stream in STREAMS.values()} == {"spool"}


def test_the_environment_goes_before_the_file(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing_set / ".env").write_text("SPOOL_PATH=from-file\nLANDING_MAX_ROWS=7\nUNKNOWN=x\nPUBSUB_PROJECT=\n")
    monkeypatch.setenv("SPOOL_PATH", "from-environment")
    settings = load_settings()
    assert (settings.spool_path, settings.landing_max_rows) == (Path("from-environment"), 7)
    assert settings.pubsub_project is None


def test_a_broker_takes_over_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    assert load_settings().transport(STREAMS["users"]) == "kafka"
    assert load_settings().transport(STREAMS["clicks"]) == "spool"
    monkeypatch.setenv("PUBSUB_PROJECT", "shop")
    assert load_settings().transport(STREAMS["clicks"]) == "pubsub"
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    monkeypatch.setenv("KAFKA_CONFIG_FILE", "client.properties")
    assert load_settings().transport(STREAMS["users"]) == "kafka"


def test_topics_and_subscriptions_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPICS", '{"users": "shop-users", "clicks": "shop-clicks"}')
    full_name = "projects/example.com:marketing/subscriptions/checkouts-sub"
    monkeypatch.setenv("SUBSCRIPTIONS", f'{{"page_views": "views", "checkouts": "{full_name}"}}')
    monkeypatch.setenv("PUBSUB_PROJECT", "shop")
    settings = load_settings()
    topics = {name: settings.topic(STREAMS[name]) for name in ("users", "clicks", "posts")}
    assert topics == {"users": "shop-users", "clicks": "shop-clicks", "posts": "posts"}
    subscriptions = [settings.subscription(STREAMS[name]) for name in ("clicks", "page_views", "checkouts")]
    assert subscriptions == [
        "projects/shop/subscriptions/shop-clicks-landing",
        "projects/shop/subscriptions/views",
        full_name,
    ]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LANDING_MAX_ROWS", "x", "LANDING_MAX_ROWS: .*integer"),
        ("WAREHOUSE_PATH", "data/analytics.duckdb", "WAREHOUSE_PATH: .*analytics is one of its schemas"),
        ("WAREHOUSE_MEMORY_LIMIT", "plenty", "WAREHOUSE_MEMORY_LIMIT: "),
        ("LANDING_MAX_ROWS", "0", "LANDING_MAX_ROWS: .*greater than or equal to 1"),
        ("LOCK_TIMEOUT_SECONDS", "-1", "LOCK_TIMEOUT_SECONDS: "),
        ("WAREHOUSE", "oracle", "WAREHOUSE: .*'duckdb' or 'bigquery'"),
        ("GCP_PROJECT", "shop`", "GCP_PROJECT: "),
        ("DATASET_PREFIX", "dev-", "DATASET_PREFIX: "),
        ("TOPICS", "not json", "TOPICS: expected a JSON object"),
        ("SUBSCRIPTIONS", "{", "SUBSCRIPTIONS: expected a JSON object"),
        ("TOPICS", "[]", "TOPICS: .*dictionary"),
        ("TOPICS", '{"users": 1}', "TOPICS: .*string"),
        ("TOPICS", '{"user": "x"}', "TOPICS: unknown stream 'user'; the streams are checkouts, .*"),
        ("TOPICS", '{"users": "posts"}', "TOPICS: two streams share 'posts'; give each its own"),
        (
            "SUBSCRIPTIONS",
            '{"clicks": "xxx", "checkouts": "xxx"}',
            "SUBSCRIPTIONS: two streams share 'projects/-/.*xxx'",
        ),
        (
            "SUBSCRIPTIONS",
            '{"clicks": "projects/p/topics/clicks"}',
            "SUBSCRIPTIONS: clicks: 'projects/p/topics/.*' is not",
        ),
        (
            "SUBSCRIPTIONS",
            '{"clicks": "x"}',
            "SUBSCRIPTIONS: clicks: 'x' is not a subscription; give its name, or proj.*",
        ),
        (
            "TOPICS",
            '{"clicks": "projects/p/topics/clicks"}',
            "TOPICS: clicks: 'projects/.*' is not a topic; give its name",
        ),
        ("TOPICS", '{"users": "my topic"}', "TOPICS: users: 'my topic' is not a topic"),
        ("EMIT_TOPIC", "my topic", "EMIT_TOPIC: "),
        ("STREAMS", "clicks", r"STREAMS: expected a JSON list such as \["),
        ("STREAMS", "[]", "STREAMS: expected at least one stream"),
        ("STREAMS", '["clicks", "nope"]', "STREAMS: unknown stream 'nope'; the streams are checkouts, .*"),
        (
            "WAREHOUSE_PATH",
            "it's.duckdb",
            "WAREHOUSE_PATH: a warehouse cannot be named .*it's.duckdb.*leave out quotes",
        ),
        ("WAREHOUSE_PATH", 'a"b.duckdb', "WAREHOUSE_PATH: a warehouse cannot be named "),
        ("WAREHOUSE_PATH", "a;b.duckdb", "WAREHOUSE_PATH: a warehouse cannot be named "),
        ("WAREHOUSE_PATH", ":memory:", "WAREHOUSE_PATH: a warehouse cannot be named "),
        ("WAREHOUSE_PATH", "/", "WAREHOUSE_PATH: a warehouse cannot be named ''"),
    ],
)
def test_a_mistake_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"^{message}") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_json_object_of_the_environment_replaces_that_of_the_file(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was taken out must not stay valid."""
    (nothing_set / ".env").write_text(
        'SERVE_TOKENS={"old": "*", "both": "*"}\nTOPICS={"users": "shop-users"}\nSUBSCRIPTIONS={"clicks": "site"}\n'
    )
    monkeypatch.setenv("SERVE_TOKENS", '{"both": ["top_products"], "new": "*"}')
    monkeypatch.setenv("topics", "{}")
    settings = load_settings()
    assert settings.serve_tokens == {"both": ["top_products"], "new": "*"}
    assert settings.topics == {}
    assert settings.subscriptions == {"clicks": "site"}


def test_the_file_may_begin_with_a_byte_order_mark(nothing_set: Path) -> None:
    (nothing_set / ".env").write_text("SPOOL_PATH=elsewhere\n", encoding="utf-8-sig")
    assert load_settings().spool_path == Path("elsewhere")


@pytest.mark.parametrize(
    "value", ['{"s3cret token": "*"}', '{"s3cret": 1}', '{"s3cret": ["s3cret", 1]}', '["s3cret"]', '"s3cret"', "s3cret"]
)
def test_a_refused_token_is_not_shown_even_in_a_traceback(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SERVE_TOKENS", value)
    with pytest.raises(UserError, match=r"^SERVE_TOKENS: ") as caught:
        load_settings()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_streams_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS", '["users", "clicks", "users"]')
    monkeypatch.setenv("TOPICS", '{"posts": "users"}')  # of a stream that is off: shares nothing
    settings = load_settings()
    assert settings.selected() == settings.selected([]) == [STREAMS["users"], STREAMS["clicks"]]
    assert settings.selected(["clicks"]) == [STREAMS["clicks"]]
    with pytest.raises(UserError, match=r"^the stream posts is switched off: add it to STREAMS$"):
        settings.selected(["clicks", "posts"])
    with pytest.raises(UserError, match="unknown stream 'nope'"):
        settings.selected(["nope"])


def test_a_linked_warehouse_is_named_by_the_file(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DuckDB names it."""
    link = nothing_set / "current.duckdb"
    link.symlink_to("shop.duckdb")
    monkeypatch.setenv("WAREHOUSE_PATH", str(link))
    assert load_settings().warehouse_path == nothing_set / "shop.duckdb"
    link.unlink()
    link.symlink_to("raw.duckdb")
    with pytest.raises(UserError, match=r"cannot be named raw.duckdb: raw is one of its schemas"):
        load_settings()


def test_bigquery_takes_larger_commits_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE", "bigquery")
    with pytest.raises(UserError, match=r"^GCP_PROJECT: WAREHOUSE=bigquery needs the id of the Google Cloud project$"):
        load_settings()
    monkeypatch.setenv("GCP_PROJECT", "shop-1")
    settings = load_settings()
    assert (settings.landing_max_seconds, settings.landing_max_rows) == (1, 1_000_000)
    assert (settings.gcp_location, settings.dataset_prefix) == ("US", "")
    monkeypatch.setenv("LANDING_MAX_ROWS", "5")
    assert load_settings().landing_max_rows == 5
    monkeypatch.setenv("WAREHOUSE", "duckdb")
    monkeypatch.delenv("LANDING_MAX_ROWS")
    assert load_settings().landing_max_rows == 122_880


def test_streams_of_one_pubsub_topic_may_differ_by_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPICS", '{"clicks": "site", "checkouts": "site"}')
    monkeypatch.setenv("SUBSCRIPTIONS", '{"clicks": "site-clicks", "checkouts": "site-checkouts"}')
    assert load_settings().topic(STREAMS["clicks"]) == "site"


def test_a_file_that_is_no_text_is_an_error(nothing_set: Path) -> None:
    (nothing_set / ".env").write_bytes(b"SPOOL_PATH=\xff\xfe")
    with pytest.raises(UserError, match=r"^\.env cannot be read: "):
        load_settings()


def test_streams_are_found_by_name() -> None:
    assert named(None) == named([]) == list(STREAMS.values())
    assert named(["posts", "users", "posts"]) == [STREAMS["posts"], STREAMS["users"]]
    with pytest.raises(UserError, match=r"unknown stream 'nope'; the streams are checkouts, .*, users$"):
        named(["users", "nope"])
