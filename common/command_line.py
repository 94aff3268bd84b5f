"""Ends every command: with its exit code, or with an error as one line on standard error."""

import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from common.errors import UserError
from common.logs import printable

VERBOSE = "--verbose"


def finish(command: Callable[[], Any]) -> NoReturn:
    """Run a command and end the process with the exit code that it returns (None: 0).

    An error is printed as one line, after a traceback if --verbose is on the command line. Its exit code is 2 if the
    user can fix it (an option, a setting, a missing package), else 1.
    """
    try:
        sys.exit(command())
    except Exception as error:  # noqa: BLE001  every other error
        message, exit_code = _described(error)
        if VERBOSE in sys.argv:
            traceback.print_exc()
    line = Text.assemble(("error: ", "red"), printable(" ".join(message.split())))
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)
    sys.exit(exit_code)


def _described(error: Exception) -> tuple[str, int]:
    """Return the message of an error, and the exit code."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: run `make setup-all`, or pip install --editable '.[google,kafka]'", 2
    import typer  # imported here: dbt's commands run without it

    if isinstance(error, typer.TyperException):  # a bad option
        return error.format_message().replace("Value error, ", "", 1), 2
    return f"{type(error).__name__}: {error}; run again with {VERBOSE} to see where", 1
