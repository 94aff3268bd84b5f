"""What `make query` prints, and what it does with a query that cannot be answered."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.settings import Settings
from engines.query import Column, Query
from serve.__main__ import main
from serve.answers import Answer
from serve.printing import print_table
from tests.command_line import run_main
from tests.serve.publishing import publish_again
from tools import ROOT

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202etxt\rover\ttab\x7f"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\u202etxt\rover\ttab\x7f"


def query(name: str, sql: str, parameters: Mapping[str, str] | None = None) -> Query:
    columns = [Column(name="text", type="string", description="")]
    return Query(name=name, description="", parameters=[], columns=columns, sql=sql)


@pytest.fixture
def asked(published: Settings, queries: list[Query]) -> Settings:
    """With queries of odd answers."""
    odd = [
        query("escapes", f"select '{ESCAPES}' as text"),
        query("wide", "select repeat('x', 500) as text"),
        query("many", "select range::varchar as text from range(20)"),
        query("fails", "select error('no ' || chr(27) || '[31m') as text"),
        query(
            "long", "select count(*)::varchar as text from range(1e7) as a, range(1e7) as b where a.range = -b.range"
        ),
        query("greedy", "select len(list(md5(range::varchar)))::varchar as text from range(5_000_000)"),
    ]
    publish_again(published, [*queries, *odd])
    return published


def run(settings: Settings, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return run_main(main, [*arguments], {**os.environ, "WAREHOUSE_PATH": str(settings.warehouse_path), **variables})


def on_a_terminal(settings: Settings, *arguments: str) -> str:
    """What a terminal would get, without the colours that are the program's own."""
    terminal, of_process = pty.openpty()
    environment = {**os.environ, "WAREHOUSE_PATH": str(settings.warehouse_path), "TERM": "dumb", "COLUMNS": "200"}
    command = [sys.executable, "-m", "serve", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=of_process, stderr=of_process)
    os.close(of_process)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 100_000)
        except OSError:  # the process has ended
            break
    os.close(terminal)
    process.wait(60)
    return shown.decode().replace("\r\n", "\n")


def test_a_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        Column(name="title", type="string", description=""),
        Column(name="is_balanced", type="boolean", description=""),
    ]
    asked = Query(name="titles", description="", parameters=[], columns=columns, sql="")
    rows = [("[/b] [sale] shoes", True), ("two\nlines\x1b[31m", False)]
    print_table(asked, Answer(rows, is_cut=False, seconds=0.001, version=""))
    printed = capsys.readouterr().out
    assert "[/b] [sale] shoes" in printed
    assert r"two\nlines\x1b[31m" in printed
    assert [line.split()[-1] for line in printed.splitlines()[1:3]] == ["true", "false"]


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_control_characters_of_an_answer_are_escaped_on_a_terminal(asked: Settings, format_: str) -> None:
    shown = on_a_terminal(asked, "query", "escapes", "--format", format_)
    assert all(character.isprintable() or character == "\n" for character in shown), shown
    if format_ == "json":
        assert json.loads(shown)["data"] == [{"text": ESCAPES}]
    else:
        assert SHOWN in shown


def test_control_characters_of_an_error_are_escaped_on_a_terminal(asked: Settings) -> None:
    failed = on_a_terminal(asked, "query", "fails")
    assert r"no \x1b[31m" in failed
    assert all(character.isprintable() or character == "\n" for character in failed)


def test_a_file_gets_the_text_unchanged(asked: Settings) -> None:
    assert json.loads(run(asked, "query", "escapes", "--format", "json").stdout)["data"] == [{"text": ESCAPES}]
    assert "\x1b[31mred" in run(asked, "query", "escapes", "--format", "csv").stdout


def test_a_table_for_a_file_is_not_wrapped(asked: Settings) -> None:
    header, row, _ = run(asked, "query", "wide").stdout.splitlines()
    assert (header.strip(), row.strip()) == ("text", "x" * 500)


def test_a_misspelt_query_is_suggested(asked: Settings) -> None:
    refused = run(asked, "query", "event_count")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert " ".join(refused.stderr.split()) == "error: there is no query 'event_count'; did you mean event_counts?"


def test_the_help_shows_how_parameters_are_given(asked: Settings) -> None:
    assert "serve query top_products brand=samsung limit=5" in " ".join(run(asked, "query", "--help").stdout.split())


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_an_answer_that_is_cut_says_so(asked: Settings, format_: str) -> None:
    """In the file a table is all there is; CSV and JSON are for programs."""
    cut = run(asked, "query", "many", "--format", format_, SERVE_MAX_ROWS="5")
    assert cut.returncode == 0
    assert "cut: there are more rows" in (cut.stdout if format_ == "table" else cut.stderr)
    assert ("cut:" in cut.stdout) == (format_ == "table")
    whole = run(asked, "query", "many", "--format", format_)
    assert "cut:" not in whole.stdout + whole.stderr
    limited = run(asked, "query", "top_products", "limit=2", "--format", format_)
    assert "cut: there are more rows" in limited.stdout + limited.stderr


@pytest.mark.parametrize("command", [["query", "top_products"], ["report"]])
def test_a_parameter_given_twice_is_rejected(asked: Settings, command: list[str]) -> None:
    refused = run(asked, *command, "brand=samsung", "brand=apple")
    assert (refused.returncode, refused.stderr) == (2, "error: brand: given more than once\n")


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("fails", {}, "error: fails: Invalid Input Error: no "),
        ("slow", {"SERVE_TIMEOUT_SECONDS": "0.5"}, "error: the answer took longer than 0.5 s (SERVE_TIMEOUT_SECONDS)"),
        ("greedy", {"SERVE_MEMORY_LIMIT": "100MB"}, "error: the answer would need more memory than SERVE_MEMORY_LIMIT"),
    ],
)
def test_an_error_is_one_line(asked: Settings, name: str, variables: dict[str, str], message: str) -> None:
    done = run(asked, "query", name, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_the_limits_leave_room_for_what_queries_need(asked: Settings) -> None:
    assert "5000000" in run(asked, "query", "greedy").stdout


def test_a_report_is_written_though_a_panel_takes_too_long(
    published: Settings, queries: list[Query], tmp_path: Path
) -> None:
    [slow] = [one for one in queries if one.name == "slow"]
    changed = [
        one.model_copy(update={"sql": slow.sql.replace("$rows", "3"), "parameters": []})
        if one.name == "event_counts"
        else one
        for one in queries
    ]
    publish_again(published, changed)
    done = run(published, "report", "--file", str(tmp_path / "page.html"), SERVE_TIMEOUT_SECONDS="2")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.count("the answer took longer than 2 s") == 1
    assert page.count('class="error"') == 1
