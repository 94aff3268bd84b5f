"""The command line of `stream add` and `stream promote`."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from common.streams import FOLDER
from contracts.add import add_stream
from contracts.files import new_file
from contracts.promote import promote_field
from ingest import cli
from tests.command_line import run_main
from tests.contracts.samples import CONTRACT, ROWS, write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`python -m ingest stream` with the contracts of a folder."""
    (tmp_path / "streams").mkdir()
    for function in (add_stream, new_file, promote_field):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "folder", tmp_path / "streams")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        done = run_main(cli.main, ["stream", *arguments], {"PATH": "", **variables})
        return done.returncode, done.stdout, done.stderr

    return run


Run = Callable[..., tuple[int, str, str]]


def test_a_stream_is_added_once(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", ROWS[:5])
    write(tmp_path / "b.csv", ROWS[5:])
    code, out, err = run("add", "signups", "--sample", "a.ndjson", "b.csv")
    assert (code, out, err) == (0, "wrote streams/signups.yml: 7 fields, 8 guesses, from 9 messages\n", "")
    before = (tmp_path / "streams" / "signups.yml").read_text()
    code, out, err = run("add", "signups", "--sample", "a.ndjson", "--transport", "pubsub")
    assert (code, out, err) == (2, "", "error: streams/signups.yml exists; --force replaces it\n")
    assert (tmp_path / "streams" / "signups.yml").read_text() == before
    assert run("add", "signups", "--sample", "a.ndjson", "--transport", "pubsub", "--force")[0] == 0
    assert "transport: pubsub\n" in (tmp_path / "streams" / "signups.yml").read_text()


def test_what_is_left_out_is_told(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", [{"at": "2026-01-05T10:00:00Z", "a.b": 1, "naïve": 2, "[/b]": 3}])
    reason = "(a path has only ASCII letters, digits, spaces and _@$:/-)"
    assert run("add", "signups", "--sample", "a.ndjson")[1].splitlines()[1:] == [
        f"left out: a.b {reason}, naïve {reason}, [/b] {reason}"
    ]


def test_the_transport_is_that_of_the_only_broker(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "a.ndjson", ROWS)
    assert run("add", "signups", "--sample", "a.ndjson", PUBSUB_PROJECT="shop")[0] == 0
    assert "transport: pubsub\n" in (tmp_path / "streams" / "signups.yml").read_text()


def test_a_promoted_field_comes_with_the_command_that_fills_it_in(run: Run, tmp_path: Path) -> None:
    (tmp_path / "streams" / "signups.yml").write_text(CONTRACT)
    code, out, err = run("promote", "signups", "props.ref", "--type", "id")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "make build SELECT=stg_signups+ FULL_REFRESH=1"
    said = run("promote", "signups", "props.email")[1]
    assert "added props_email, of type string" in said
    assert "with personal: drop, because of its name; review it" in said


def test_promote_asks_the_warehouse_what_messages_have(run: Run, tmp_path: Path) -> None:
    shutil.copy(FOLDER / "clicks.yml", tmp_path / "streams")
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create schema analytics; create schema staging; create table staging.stg_clicks (a int)")
        connection.execute(
            "create table analytics.field_drift as select 'clicks' as stream, 'props.depth' as path,"
            " 'unlisted' as problem, 'number' as type, '9' as example, 3 as messages"
        )
    assert run("promote", "clicks", "not.staged")[0] == 0
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("insert into staging.stg_clicks values (1)")
    error = "no message of clicks had props.dept in the last build; the closest unlisted fields are props.depth"
    assert run("promote", "clicks", "props.dept") == (2, "", f"error: {error}\n")
    assert "added props_depth, of type amount, " in run("promote", "clicks", "props.depth")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["add"], "Missing argument"),
        (["add", "signups"], "give a sample: --sample FILE, or --from-topic TOPIC"),
        (["add", "signups", "--sample", "a.ndjson", "--from-topic", "a"], "give either --sample or --from-topic"),
        (["add", "Signups", "--sample", "a.ndjson"], "'Signups' cannot name a stream: use lowercase letters"),
        (["add", "it's", "--sample", "a.ndjson"], '"it\'s" cannot name a stream'),
        (["add", "../x", "--sample", "a.ndjson"], "'../x' cannot name a stream"),
        (["add", "order", "--sample", "a.ndjson"], "order cannot name a stream: it is a reserved word of SQL"),
        (["add", "signups", "--sample", "a.ndjson"], "a.ndjson: none of 2 messages is a JSON object"),
        (["add", "signups", "--sample", "b.ndjson"], "b.ndjson cannot be read: No such file or directory"),
        (["add", "signups", "--from-topic", "a"], "spool log a: there is no message"),
        (["add", "signups", "--sample", "a.ndjson", "--transport", "nats"], "'nats' is not one of"),
        (["check", "nope", "--sample", "a.ndjson"], "unknown stream 'nope'; the streams are "),
        (["check", "clicks"], "give a sample: --sample FILE"),
        (["check", "clicks", "--sample", "a.ndjson"], "a.ndjson: none of 2 messages can be read"),
        (["promote", "nope", "a"], "unknown stream 'nope'"),
        (["promote", "signups", "a", "--type", "text"], "'text' is not one of"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "a.ndjson").write_text("x\ny\n")
    (tmp_path / "streams" / "others.yml").write_text(CONTRACT)
    code, out, err = run(*arguments, DBT_TARGET_PATH=str(tmp_path / "target"))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert message in err
