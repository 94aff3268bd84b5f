"""What the servers share: their address, uvicorn, metrics, logs."""

import ipaddress
import logging
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ingest.errors import UserError
from ingest.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

KEEP_ALIVE_SECONDS = 620
"""Longer than Google's load balancers keep an idle connection, so that it is they who close it."""

log = structlog.get_logger()


def configure_logs(level: int) -> None:
    """Structured lines on stderr: for people on a terminal, else JSON."""
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def serve_metrics(settings: Settings, port: int | None) -> None:
    """Serve Prometheus metrics, if a port is given.

    Raises:
        UserError: when it cannot be listened on.
    """
    if port is None:
        return
    from prometheus_client import start_http_server

    try:
        start_http_server(port, settings.metrics_host)
    except OSError as error:
        raise UserError(f"--metrics-port {port} on {settings.metrics_host}: {error.strerror}") from error


def listen(host: str, port: int, exposed: str | None) -> socket.socket:
    """A listening socket.

    Args:
        exposed: what to do before an address that is not loopback may be listened on; None: it may.

    Raises:
        UserError: when it may not, or cannot.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: {getattr(error, 'strerror', None) or 'no name of a host'}") from error
    if exposed is not None and not ipaddress.ip_address(address[0]).is_loopback:
        raise UserError(f"--host {host} can be reached by others: {exposed}, or use 127.0.0.1")
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --port") from error


LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1", "[::1]")
"""What a client that asks a loopback address calls it: any other name is a web page's that was made to point there."""


def run(app: "ASGIApp", listener: socket.socket, path: str, shutdown_seconds: int) -> None:
    """Serve until SIGINT or SIGTERM, and then for so many seconds answer what waits.

    Args:
        path: for the log.
    """
    import uvicorn

    logging.basicConfig(level=logging.WARNING, handlers=[_Structlog()], force=True)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=shutdown_seconds,
        )
    )
    # uvicorn handles these while it serves, and at its end restores what it found and raises the signal again
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    host, port = listener.getsockname()[:2]
    log.info("listening", host=host, port=port, path=path)
    server.run([listener])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # by now all is answered: another signal need not wait


class _Structlog(logging.Handler):
    """Hands on what the libraries log, without what an exception's message might quote of a payload."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log.log(record.levelno, record.getMessage().partition("\n")[0], **what_and_where(error) if error else {})


def what_and_where(error: BaseException) -> dict[str, str]:
    """Of an exception, for a log line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {"error": type(error).__name__, "at": f"{Path(last.filename).name}:{last.lineno}"}
