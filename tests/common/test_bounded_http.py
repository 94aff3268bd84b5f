"""What one connection can take of a server: raw sockets against uvicorn with the protocol of `serve` and `push`."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common import bounded_http
from common.bounded_http import MAX_HEAD_BYTES, MAX_PIPELINED, BoundedProtocol

SECONDS = 0.4
"""How long a request may take to arrive, in these tests."""
GET = b"GET /?%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connect = Callable[[], socket.socket]


async def answer(request: Request) -> Response:
    """As many bytes of body as came, and the query; after `slow` seconds."""
    size = len(await request.body())
    await asyncio.sleep(float(request.query_params.get("slow", 0)))
    return PlainTextResponse(f"{size} {request.url.query}\n")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connections to a server of this process."""
    monkeypatch.setattr(bounded_http, "RECEIVE_SECONDS", SECONDS)
    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    config = uvicorn.Config(app, loop="uvloop", http=BoundedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    opened = []

    def connect() -> socket.socket:
        client = socket.create_connection(listener.getsockname(), timeout=30)
        opened.append(client)
        return client

    yield connect
    # and it still answers
    with closing(connect()) as client:
        client.sendall(GET % 0)
        assert client.recv(1_000).startswith(b"HTTP/1.1 200 OK")
    for client in opened:
        client.close()
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def sent(client: socket.socket, data: bytes, repeats: int = 1) -> bytes:
    """What the server answers, until it closes or is silent; it may close before all is sent."""
    try:
        for _ in range(repeats):
            client.sendall(data)
    except ConnectionError:
        pass
    client.settimeout(2)
    received = b""
    try:
        while chunk := client.recv(1_000_000):
            received += chunk
    except (ConnectionError, TimeoutError):
        pass
    return received


def seconds_until_closed(client: socket.socket) -> float:
    started = time.monotonic()
    client.settimeout(20)
    try:
        while client.recv(1_000_000):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


@pytest.mark.parametrize(
    "head",
    [
        b"GET /?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * MAX_HEAD_BYTES),
        b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"a" * MAX_HEAD_BYTES),
        b"GET / HTTP/1.1\r\nHost: x\r\n%b: a\r\n\r\n" % (b"a" * MAX_HEAD_BYTES),
        b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"Name: value\r\n" * (MAX_HEAD_BYTES // 9)),
    ],
    ids=["address", "value", "name", "number"],
)
def test_a_head_above_the_limit_is_431(connect: Connect, head: bytes) -> None:
    received = sent(connect(), head)
    assert received.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert received.endswith(b"the request line and headers are larger than 65536 bytes")


def test_a_head_below_the_limit_is_read(connect: Connect) -> None:
    client = connect()
    for piece in (b"GET /?%b HTTP/1.1\r\n" % (b"a" * 30_000), b"Host: x\r\n", b"A: %b\r\n\r\n" % (b"a" * 30_000)):
        client.sendall(piece)
        time.sleep(0.01)
    assert sent(client, b"").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /?",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: ",
        b"",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ",
    ],
    ids=["address", "header", "nothing", "trailer"],
)
def test_a_head_without_an_end_is_not_kept(connect: Connect, beginning: bytes) -> None:
    client = connect()
    client.sendall(beginning)
    filling = b"a" if beginning else b"\r\n"
    pieces = 0
    try:
        for pieces in range(1_000):  # noqa: B007
            client.sendall(filling * (100_000 // len(filling)))
    except ConnectionError:
        pass
    # beside what the sockets hold between the two
    assert pieces < 150


def test_a_body_may_be_larger(connect: Connect) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
    assert sent(connect(), head + b"a" * 5_000_000).endswith(b"5000000 \n")
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (100_000, b"a" * 100_000) for _ in range(50))
    assert sent(connect(), chunked + body + b"0\r\nTrailer: a\r\n\r\n").endswith(b"5000000 \n")


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"GET / HT", b""),
        (b"GET /?", b"a"),
        (b"GET / HTTP/1.1\r\nHost: ", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", b"a"),
        (GET % 1 + b"GET /?", b"a"),
    ],
)
def test_a_request_that_does_not_end_is_closed(connect: Connect, beginning: bytes, more: bytes) -> None:
    client = connect()
    client.sendall(beginning)
    trickle(client, more)
    assert SECONDS / 2 < seconds_until_closed(client) < 10 * SECONDS


def test_empty_lines_keep_no_connection_open(connect: Connect) -> None:
    client = connect()
    client.sendall(GET % 1)
    assert client.recv(1_000)
    trickle(client, b"\r\n")
    assert SECONDS / 2 < seconds_until_closed(client) < 10 * SECONDS


def trickle(client: socket.socket, piece: bytes) -> None:
    """Send a little now and then, until it is closed."""

    def run() -> None:
        with suppress(OSError):
            while piece:
                time.sleep(SECONDS / 4)
                client.sendall(piece)

    threading.Thread(target=run, daemon=True).start()


def test_a_slow_answer_and_an_idle_client_are_not_closed(connect: Connect) -> None:
    client = connect()
    for _ in range(2):
        client.sendall(b"GET /?slow=%.1f HTTP/1.1\r\nHost: x\r\n\r\n" % (3 * SECONDS))
        assert client.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        time.sleep(2 * SECONDS)


def test_requests_in_a_pipeline_are_answered_in_order(connect: Connect) -> None:
    received = sent(connect(), b"".join(GET % number for number in range(MAX_PIPELINED)))
    answers = [line for line in received.split(b"\n") if line.startswith(b"0 ")]
    assert answers == [b"0 %d" % number for number in range(MAX_PIPELINED)]


def test_a_pipeline_above_the_limit_ends_the_connection(connect: Connect) -> None:
    client = connect()
    received = sent(client, b"".join(GET % number for number in range(100)), repeats=2_000)
    assert received.count(b"HTTP/1.1 200 OK") <= MAX_PIPELINED + 1
