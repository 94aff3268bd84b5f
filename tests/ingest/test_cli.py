"""The command line as its users meet it: exit codes, one line for each error, and what is printed."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from common.settings import Settings
from common.streams import STREAMS
from engines.duckdb.sink import DuckDBSink, utc_now
from ingest import cli
from ingest.commands import landing
from tests.command_line import run_main
from tools.warehouses.commands import SETTINGS

from .conftest import Start

COMMANDS = ["land", "status", "simulate", "replay", "stream", "emit", "provision", "push", "clean"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        process = start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


@pytest.fixture
def run_here(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As `run`, in this process."""
    paths = {"SPOOL_PATH": str(settings.spool_path), "WAREHOUSE_PATH": str(settings.warehouse_path)}

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        done = run_main(cli.main, [*arguments], {**os.environ, **paths, **variables})
        return done.returncode, done.stdout, done.stderr

    for name in os.environ:
        if name.startswith(SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return run


def one_line(err: str) -> str:
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    return err.removeprefix("error: ").rstrip("\n")


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_each_has_its_own(run_here: Run) -> None:
    code, overview, err = run_here("--help")
    assert (code, err) == (0, "")
    assert run_here() == (0, overview, "")
    for name in COMMANDS:
        assert re.search(rf"│ {name} ", overview)
        code, out, err = run_here(name, "--help")
        assert (code, err) == (0, "")
        assert re.search(rf"Usage: .* {name} ", out)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["nope"], {}, "No such command 'nope'"),
        (["land", "--nope"], {}, "No such option: --nope"),
        (["land", "--stream"], {}, "requires an argument"),
        (["land", "--stream", "nope"], {}, "unknown stream 'nope'; the streams are checkouts"),
        (["status", "--stream", "nope"], {}, "unknown stream 'nope'"),
        (["provision", "--stream", "nope"], {}, "unknown stream 'nope'"),
        (["replay", "x.csv", "--stream", "nope"], {}, "unknown stream 'nope'"),
        (["replay"], {}, "Missing argument"),
        (["replay", "x.csv"], {}, "Missing option '--stream'"),
        (["replay", "x[/red].csv", "--stream", "users"], {}, r"x\[/red\]\.csv cannot be read: No such file"),
        (["replay", "x.txt", "--stream", "users"], {}, "expected .csv"),
        (["simulate", "--days", "x"], {}, "--days.*integer"),
        (["simulate", "--days", "-1"], {}, "--days"),
        (["simulate", "--late", "2"], {}, "--late"),
        (["simulate", "--start", "soon"], {}, "--start"),
        (["simulate", "--rate", "0"], {}, "--rate"),
        (["simulate", "--rate", "5", "--days", "1"], {}, "--rate replaces --days"),
        (["simulate", "--seconds", "5"], {}, "--seconds needs --rate"),
        (["push"], {}, "Missing option '--port'"),
        (["push", "--port", "65536"], {}, "--port"),
        (["push", "--port", "0", "--host", "no.invalid"], {}, "--host no.invalid: "),
        (["push", "--port", "0", "--host", "0.0.0.0"], {}, r"--host 0\.0\.0\.0 .* set PUSH_AUDIENCE"),  # noqa: S104
        (["push", "--port", "0", "--host", "::"], {}, "--host :: .* set PUSH_AUDIENCE"),
        (["push", "--port", "0"], {"PUSH_SERVICE_ACCOUNT": "x"}, "set both or neither"),
        (["push", "--port", "0"], {"PUSH_AUDIENCE": "x"}, "set both or neither"),
        (["push", "--port", "0"], {"WAREHOUSE_PATH": "missing/w.duckdb"}, "see WAREHOUSE_PATH"),
        (["land"], {"LANDING_MAX_ROWS": "x"}, "LANDING_MAX_ROWS"),
        (["land"], {"TOPICS": "not json"}, "TOPICS: expected a JSON object"),
        (["land"], {"WAREHOUSE": "bigquery"}, "GCP_PROJECT: WAREHOUSE=bigquery needs "),
        (["push", "--port", "0"], {"WAREHOUSE": "bigquery", "GCP_PROJECT": "shop"}, "push lands in DuckDB only"),
        (["land"], {"WAREHOUSE_PATH": "missing/folder/w.duckdb"}, "No such file or directory; see WAREHOUSE_PATH"),
        (["emit"], {}, "no Kafka brokers: set KAFKA_BOOTSTRAP_SERVERS, or bootstrap.servers in KAFKA_CONFIG_FILE"),
        (["emit", "--dry-run"], {}, "has no fct_page_views yet: run `make build` first"),
        (["emit"], {"EMIT_TOPIC": "users"}, "EMIT_TOPIC: 'users' is the topic of a stream"),
        (["land"], {"KAFKA_CONFIG_FILE": "missing.properties"}, "KAFKA_CONFIG_FILE missing.properties cannot be read"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(
    run_here: Run, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    code, out, err = run_here(*arguments, **variables)
    assert (code, out) == (2, "")
    assert re.search(message, one_line(err))


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_one_line_and_exit_code_2(start: Start) -> None:
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    pubsub = {"PUBSUB_PROJECT": "shop", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    running = [
        (arguments, variables, start(*arguments, **variables))
        for variables in (kafka, pubsub)
        for arguments in (["land"], ["status"], ["provision"])
    ]
    for arguments, variables, process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, ""), (arguments, variables)
        assert "127.0.0.1:1" in one_line(err)


def test_verbose_shows_the_traceback_wherever_it_stands(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_text("no database")
    code, _, err = run_here("land")
    assert code == 2
    assert "not a valid DuckDB database" in one_line(err)
    for arguments in (["--verbose", "land"], ["land", "--verbose"]):
        code, _, err = run_here(*arguments)
        assert code == 2
        assert err.startswith("Traceback (most recent call last):")
        assert err.splitlines()[-1].startswith("error: cannot open the warehouse")


def test_an_error_is_the_exit_code_of_the_process(run: Run) -> None:
    code, out, err = run("land", "--stream", "nope")
    assert (code, out) == (2, "")
    assert one_line(err).startswith("unknown stream 'nope'")


def test_an_unexpected_error_is_one_line_and_exit_code_1(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Settings:
        raise ZeroDivisionError("two\nlines [/red] :smile:")

    monkeypatch.setattr(landing, "load_settings", broken)
    code, out, err = run_here("status")
    assert (code, out) == (1, "")
    assert one_line(err) == "ZeroDivisionError: two lines [/red] :smile:; run again with --verbose to see where"
    code, _, err = run_here("status", "--verbose")
    assert code == 1
    assert err.startswith("Traceback")


def test_ctrl_c_is_no_error_and_no_success(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Settings:
        raise KeyboardInterrupt

    monkeypatch.setattr(landing, "load_settings", interrupted)
    assert run_here("land") == (130, "", "")


# -- commands ---------------------------------------------------------------------------------------------------------


def days(settings: Settings) -> set[int]:
    sink = DuckDBSink(settings.warehouse_path)
    with sink.connection(read_only=True) as connection:
        return {day for (day,) in connection.sql("select distinct day(published_at) from raw.page_views").fetchall()}


def test_simulate_land_and_status(settings: Settings, run_here: Run) -> None:
    code, out, err = run_here("status")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        "stream",
        "source",
        "landed",
        "waiting",
        "lag",
        "newest",
        "landed_at",
        "dead",
        "letters",
    ]
    assert [line.split() for line in lines[1:]] == [[name, "spool", "0", "0", "0", "s", "-", "-"] for name in STREAMS]
    assert not settings.warehouse_path.exists()
    assert not settings.spool_path.exists()

    code, out, err = run_here("simulate", "--events-per-day", "100")
    assert (code, err) == (0, "")
    published = re.fullmatch(r"produced ([\d,]+) messages of 2026-01-01 to 2026-01-07\n", out)
    assert published
    assert run_here("simulate", "--events-per-day", "100", "--days", "0") == (0, "", "")
    _, out, _ = run_here("status")
    waiting = [int(line.split()[3].replace(",", "")) for line in out.splitlines()[1:]]
    assert sum(waiting) == int(published[1].replace(",", ""))
    lags = [int(line.split()[4].replace(",", "")) for line in out.splitlines()[1:]]
    since = (utc_now() - datetime(2026, 1, 1)).total_seconds()
    assert since - 86_400 < max(lags) < since, "of messages published on the first simulated day"

    # No character of a progress bar or a colour where the output is no terminal.
    assert run_here("land") == (0, f"landed {published[1]} messages\n", "")
    assert days(settings) == set(range(1, 8))
    _, out, err = run_here("simulate", "--events-per-day", "100")
    assert out.endswith(" of 2026-01-08\n")
    assert err == ""
    assert run_here("land")[0] == 0
    assert days(settings) == set(range(1, 9))
    assert run_here("land") == (0, "landed 0 messages\n", "")

    _, out, _ = run_here("status", "--stream", "page_views")
    assert re.fullmatch(
        r"page_views +spool +\d+ +0 +0 s +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d +-", out.splitlines()[1].strip()
    )


def test_land_takes_some_streams_only(settings: Settings, run_here: Run) -> None:
    run_here("simulate", "--events-per-day", "50", "--days", "1")
    assert run_here("land", "--stream", "users", "--stream", "posts")[0] == 0
    status = DuckDBSink(settings.warehouse_path).status()
    assert {name for name, known in status.items() if known.landed} == {"users", "posts"}


def test_streams_that_are_off_are_neither_landed_nor_shown(settings: Settings, run_here: Run) -> None:
    """Their raw tables are there all the same: each model has its source."""
    run_here("simulate", "--events-per-day", "50", "--days", "1")
    some = {"STREAMS": '["users", "clicks"]'}
    code, out, err = run_here("land", **some)
    assert (code, err) == (0, "")
    status = DuckDBSink(settings.warehouse_path).status()
    assert {name for name, known in status.items() if known.landed} == {"users", "clicks"}
    assert int(out.split()[1]) == status["users"].landed + status["clicks"].landed
    _, out, _ = run_here("status", **some)
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["users", "clicks"]
    assert run_here("provision", **some) == (0, "nothing to create\n", "")
    for command in (["land"], ["status"], ["provision"]):
        code, out, err = run_here(*command, "--stream", "posts", **some)
        assert (code, out, one_line(err)) == (2, "", "the stream posts is switched off: add it to STREAMS")


def test_simulate_at_a_rate_ends_after_its_seconds_and_on_sigterm(settings: Settings, start: Start) -> None:
    process = start("simulate", "--rate", "20", "--seconds", "0.5")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(r"produced [0-9,]+ messages\n", out)
    process = start("simulate", "--rate", "20")
    size = (settings.spool_path / "users" / "0.ndjson").stat().st_size
    while (settings.spool_path / "users" / "0.ndjson").stat().st_size == size:
        assert process.poll() is None
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_simulate_leaves_a_configured_broker_alone(settings: Settings, run_here: Run) -> None:
    code, out, err = run_here("simulate", "--unless-broker", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (code, out, err) == (0, "nothing was simulated, because a broker is configured\n", "")
    assert not settings.spool_path.exists()


def test_replay_publishes_a_file(settings: Settings, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_bytes(b'{"user_id": "u1", "updated_at": "2026-01-01"}\n' * 2)
    assert run_here("replay", "users.ndjson", "--stream", "users") == (0, "produced 2 messages to users\n", "")
    run_here("land")
    assert DuckDBSink(settings.warehouse_path).status()["users"].landed == 2


def test_replay_of_nothing_is_an_error(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.ndjson").write_text("")
    (tmp_path / "header.csv").write_text("click_id,user_id,product_id,datetime_occured\n")
    code, out, err = run_here("replay", "empty.ndjson", "header.csv", "--stream", "clicks")
    assert (code, out, err) == (
        2,
        "",
        "error: empty.ndjson, header.csv: no messages found, so nothing was produced\n",
    )
    (tmp_path / "one.ndjson").write_text('{"click_id": "c", "user_id": 1, "product_id": 2, "datetime_occured": ""}\n')
    code, out, err = run_here("replay", "empty.ndjson", "one.ndjson", "--stream", "clicks")
    assert (code, out, err) == (0, "produced 1 message to clicks\n", "")


def test_replay_says_what_it_does_not_publish_and_what_it_could_not_read(
    settings: Settings, run_here: Run, tmp_path: Path
) -> None:
    (tmp_path / "users.csv").write_bytes(b"id;updated_at\nu1;2026-01-01\nbroken\n")
    code, out, err = run_here("replay", "users.csv", "--stream", "users")
    assert (code, out) == (2, "")
    assert "no column user_id. Found columns id, updated_at, separated by ';'." in one_line(err)
    assert not settings.spool_path.exists()
    published = (0, "produced 2 messages to users; 1 unreadable, see dead_letters after the build\n", "")
    code, out, err = run_here("replay", "users.csv", "--stream", "users", "--map", "user_id=id")
    assert (code, out) == published[:2]
    assert run_here("replay", "users.csv", "--stream", "users", "--force")[:2] == published[:2]


def test_provision_creates_the_tables_alone_for_the_spool(settings: Settings, run_here: Run) -> None:
    tables = [f"table raw.{name}" for name in (*STREAMS, "landing_offsets", "pseudonym_key")]
    assert run_here("provision", "--dry-run") == (0, "".join(f"would create {table}\n" for table in tables), "")
    assert not settings.warehouse_path.exists()
    assert run_here("provision") == (0, "".join(f"created {table}\n" for table in tables), "")
    assert DuckDBSink(settings.warehouse_path).status()["users"].landed == 0
    for arguments in (["provision"], ["provision", "--dry-run"]):
        assert run_here(*arguments) == (0, "nothing to create\n", "")


@pytest.mark.parametrize("value", ["4", "101"])
def test_provision_takes_the_attempts_that_pubsub_takes(run_here: Run, value: str) -> None:
    code, _, err = run_here("provision", "--dead-letter-attempts", value)
    assert code == 2
    assert "'--dead-letter-attempts': Input should be" in one_line(err)


@pytest.mark.parametrize("command", ["simulate", "land", "status", "emit", "provision"])
def test_bigquery_without_its_project_is_refused_before_anything_is_done(
    settings: Settings, run_here: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("WAREHOUSE", "bigquery")
    message = "error: GCP_PROJECT: WAREHOUSE=bigquery needs the id of the Google Cloud project\n"
    assert run_here(command) == (2, "", message)
    assert not settings.spool_path.exists()
    assert not settings.warehouse_path.exists()
