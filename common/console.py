"""How commands print: results on standard output, progress and errors on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

output = Console(width=None if sys.stdout.isatty() else 120)  # rich would wrap a pipe at 80 columns
errors = Console(stderr=True)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, nothing elsewhere. Yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


def count(number: int, noun: str = "message") -> str:
    """A number with its noun, such as `1 message` or `2,000 messages`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """A size in bytes, such as `12.3 MB`."""
    return f"{size / 1e6:,.1f} MB"
