"""bqemulator, with the Storage Write API on the thread that runs its queries; run by the Python that has it.

It has one DuckDB connection. When an append and a query use it from two threads, each may wait for ever for what the
other holds: the connection, or Python's lock, which DuckDB needs to read rows of Python.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bqemulator.cli import main
from bqemulator.grpc_api.write_servicer import BigQueryWriteHandler
from bqemulator.server import EmulatorServer

METHODS = ("_handle_create_write_stream", "_handle_get_write_stream", "_ensure_stream_bound", "_perform_append")
loops: list[asyncio.AbstractEventLoop] = []
start = EmulatorServer.start


async def start_and_remember_the_loop(self: EmulatorServer) -> None:
    loops.append(asyncio.get_running_loop())
    await start(self)


def on_main_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return method(*arguments)
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(method(*arguments))
            except Exception as error:  # noqa: BLE001  raised again in the thread that waits for the result
                done.set_exception(error)

        loops[0].call_soon_threadsafe(run)
        return done.result()

    return call


EmulatorServer.start = start_and_remember_the_loop
for name in METHODS:
    setattr(BigQueryWriteHandler, name, on_main_thread(getattr(BigQueryWriteHandler, name)))

if __name__ == "__main__":
    main()
