"""What reaches a terminal, and the logs."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from common.logs import configure_logs, printable

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
