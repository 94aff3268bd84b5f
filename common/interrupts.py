"""Lets Ctrl-C end a command without a traceback, at once or after its current step."""

import _signal as signal  # type: ignore[import-not-found]  # built in; importing `signal` takes milliseconds
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event
    from typing import NoReturn

is_interrupted = False
"""Whether Ctrl-C was pressed during `run`, even if a library caught the KeyboardInterrupt."""


def end_at_once() -> None:
    """Let Ctrl-C end the process at once. For imports and the interpreter's shutdown, when nothing can catch a
    KeyboardInterrupt."""
    # leave SIGINT as it is if the shell has set it to be ignored
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(main: "Callable[[], None]") -> None:
    """Run a command line. Ctrl-C raises KeyboardInterrupt in it, and then ends the process with exit code 130."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        end_at_once()


def stop_event() -> "Event":
    """Return an event that the first SIGINT or SIGTERM sets, so that a command can finish what it is doing. The second
    signal ends the process at once."""
    from threading import Event

    stop = Event()

    def on_signal(*_: object) -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _interrupt(*_: object) -> "NoReturn":
    global is_interrupted  # noqa: PLW0603
    is_interrupted = True
    raise KeyboardInterrupt
