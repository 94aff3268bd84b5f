"""A command in this process: an answer takes milliseconds instead of the second in which an interpreter starts."""

import io
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

import structlog


def run_main(main: Callable[[], None], arguments: list[str], environment: Mapping[str, str]) -> "CompletedProcess[str]":
    """Call the `main` of a command line with these arguments, in this environment."""
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(bytes_, encoding="utf-8", newline="", write_through=True) for bytes_ in written)
    code: object = 0
    with (
        patch.object(sys, "argv", ["command", *arguments]),
        patch.dict(os.environ, environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            structlog.reset_defaults()  # it would log to what was captured
    assert isinstance(code, int)
    return CompletedProcess(arguments, code, *(bytes_.getvalue().decode() for bytes_ in written))
