"""What reaches a terminal, and the logs."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from common.logs import configure_logs, printable
from tools import ROOT

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ñ 😀 [bold]", "plain, ñ 😀 [bold]"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x9b2J\u202etxt\u2028", r"\x9b2J\u202etxt\u2028"),
        ("\x00\x7f\ud800", r"\x00\x7f\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_logs_are_for_people_on_a_terminal_and_else_for_programs(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    configure_logs(logging.INFO)
    log.info("refused", reason="\x1b[31mred\nline", names=["\x1b[2J"])
    line = stderr.getvalue()
    assert line.count("\n") == 1
    if is_terminal:
        assert r"\x1b[31mred\nline" in line
        assert "\x1b[31mred" not in line
        assert "\x1b[2J" not in line
    else:
        assert json.loads(line)["reason"] == "\x1b[31mred\nline"


def test_a_log_on_a_full_disk_does_not_end_the_process() -> None:
    code = (
        "from common.logs import configure_logs, log; configure_logs(0); log.info('one'); log.info('two'); print('on')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.stdout == "on\n"
