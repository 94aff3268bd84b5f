"""Structured logs, and text that is safe to print on a terminal."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

log = structlog.get_logger()


def configure_logs(level: int) -> None:
    """Log structured lines to stderr: for people on a terminal, else as JSON."""
    is_terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True),
            *([_printable_texts] if is_terminal else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
    )


class _Unfailing:
    """A stream that drops what cannot be written: a log on a full disk must not end what it logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def printable(text: str) -> str:
    """Escape control and formatting characters, which a terminal would obey, as \\x1b or \\u202e."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _printable_texts(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape texts. The renderer shows other values by repr(), which escapes them too."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


class LibraryLogs(logging.Handler):
    """Logs what libraries log, without the messages of exceptions, which may quote a payload."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log.log(record.levelno, record.getMessage().partition("\n")[0], **what_and_where(error) if error else {})


def what_and_where(error: BaseException) -> dict[str, str]:
    """The class of an exception and the line that raised it, for a log line: its message may quote a payload."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {"error": type(error).__name__, "at": f"{Path(last.filename).name}:{last.lineno}"}
