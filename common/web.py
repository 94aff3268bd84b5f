"""Starts HTTP servers: binds the address, runs uvicorn, and rejects requests from web pages of other sites."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
import uvicorn

from common import interrupts
from common.bounded_http import BoundedProtocol
from common.errors import UserError
from common.logs import LibraryLogs

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

KEEP_ALIVE_SECONDS = 620
"""Longer than Google's load balancers keep an idle connection, so that they close it and not this server."""
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Host names of requests to a loopback address. Any other suggests DNS rebinding: a web page whose name was made to
point at this machine."""

log = structlog.get_logger()


def listen(host: str, port: int, exposed: str | None) -> socket.socket:
    """Open a listening socket.

    Args:
        exposed: required setup before binding an address that is not loopback; None allows it.

    Raises:
        UserError: when the address may not or cannot be bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: {getattr(error, 'strerror', None) or 'not a host name'}") from error
    if exposed is not None and not ipaddress.ip_address(address[0]).is_loopback:
        raise UserError(f"--host {host} is not a loopback address: {exposed}, or use 127.0.0.1")
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --port") from error


def url_of(listener: socket.socket, path: str) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"


class LocalOnly:
    """Middleware for servers that need no token from this machine: rejects requests that a web page of another site
    sends from the user's browser, which the headers Host and Origin reveal.

    Args:
        refuse: makes the response of a rejected request.
    """

    def __init__(self, app: "ASGIApp", refuse: "Callable[[Request, HTTPException], Awaitable[Response]]") -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.exceptions import HTTPException
        from starlette.requests import Request

        if scope["type"] == "http":
            request = Request(scope, receive)
            host, origin = request.headers.get("host", ""), request.headers.get("origin")
            if reason := _foreign_host(host) or (origin is not None and _foreign_origin(origin)):
                response = await self._refuse(request, HTTPException(403, reason))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _foreign_host(host: str) -> str | None:
    if _host_name(f"//{host}") in LOOPBACK_HOSTS:
        return None
    return "the Host header is not localhost: without tokens, only this machine may ask, by that name or 127.0.0.1"


def _foreign_origin(origin: str) -> str | None:
    if _host_name(origin) in LOOPBACK_HOSTS:
        return None
    return "the Origin header is that of another site: without tokens, no web page but a local one may ask"


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


@dataclass(frozen=True)
class Site:
    """An application and the socket on which it is served."""

    app: "ASGIApp"
    listener: socket.socket
    path: str
    """Path of the address to open in a browser, for the log."""


def run(site: Site, shutdown_seconds: int) -> None:
    """Serve in the main thread until SIGINT or SIGTERM. The second signal ends the process at once.

    Args:
        shutdown_seconds: Maximum seconds after the signal for requests that are being answered.
    """
    stop = interrupts.stop_event()
    if sys.stderr.isatty():
        url = url_of(site.listener, site.path)
        print(f"\n  {url}\n\n  Press Ctrl-C to stop.\n", file=sys.stderr)  # noqa: T201  a link for people to click
    serve_all([site], stop, shutdown_seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # as after a signal, should a server have ended by itself


def serve_all(sites: Sequence[Site], stop: threading.Event, shutdown_seconds: int) -> None:
    """Serve several applications in one event loop of this thread, which may be any thread, until `stop` is set.

    It installs no signal handlers. All sites stop together, also when one of them fails.

    Args:
        shutdown_seconds: Maximum seconds after `stop` for requests that are being answered.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[LibraryLogs()], force=True)
    servers = []
    for site in sites:
        config = uvicorn.Config(
            site.app,
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=shutdown_seconds,
        )
        servers.append(_Server(config, stop))
        host, port = site.listener.getsockname()[:2]
        log.info("listening", host=host, port=port, url=url_of(site.listener, site.path))

    async def serve() -> None:
        async with asyncio.TaskGroup() as group:
            for server, site in zip(servers, sites, strict=True):
                group.create_task(server.serve([site.listener]))

    with asyncio.Runner(loop_factory=servers[0].config.get_loop_factory()) as runner:
        runner.run(serve())


class _Server(uvicorn.Server):
    """Ends once `stop` is set, and leaves the signals to its caller."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
