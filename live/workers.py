"""Threads that end together."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CHECK_SECONDS = 0.2
"""Maximum seconds until the threads notice that the process was asked to end."""


class Workers:
    """Runs functions in threads until `stop` is set, or one of them fails: then all are asked to end.

    Within the context, wait for `stop`. When the context ends, all threads have ended, and the first error is raised.

    Args:
        outer: set from outside to end all of them.
    """

    def __init__(self, outer: threading.Event) -> None:
        self.stop = threading.Event()
        self._outer = outer
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def start(self, name: str, work: Callable[[threading.Event], object]) -> None:
        """Run `work(stop)` in a thread; it must return soon after `stop` is set."""

        def run() -> None:
            try:
                work(self.stop)
            except BaseException as error:  # noqa: BLE001  raised again by __exit__
                self._error = self._error or error
            finally:
                self.stop.set()

        thread = threading.Thread(target=run, name=name)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self.start("stop", self._wait)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _wait(self, stop: threading.Event) -> None:
        while not (self._outer.is_set() or stop.wait(CHECK_SECONDS)):
            pass
