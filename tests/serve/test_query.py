"""What `make query` prints."""

import pytest

from serve.__main__ import _print_table
from serve.questions import Answer, Column, Question


def test_a_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        Column(name="title", type="string", description=""),
        Column(name="is_balanced", type="boolean", description=""),
    ]
    question = Question(name="titles", description="", parameters=[], columns=columns, sql="")
    rows = [("[/b] [sale] shoes", True), ("two\nlines\x1b[31m", False)]
    _print_table(question, Answer(rows, is_cut=False, seconds=0.001, version=""))
    printed = capsys.readouterr().out
    assert "[/b] [sale] shoes" in printed
    assert r"two\nlines\x1b[31m" in printed
    assert [line.split()[-1] for line in printed.splitlines()[1:3]] == ["true", "false"]
