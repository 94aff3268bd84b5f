"""The push server: an answer of 204 means that the message is in the warehouse, whatever happens."""

import asyncio
import base64
import errno
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import _helpers, crypt, jwt

import ingest.push
from common.errors import UserError, WarehouseHeldError
from common.settings import Settings
from common.streams import STREAMS
from engines.batch import DECODED_SCHEMA, Batch
from engines.duckdb.sink import DuckDBSink
from ingest import oidc, telemetry
from ingest.brokers.pubsub import open_publisher, open_subscriber
from ingest.message import PubSubMessage
from ingest.oidc import IdentityError, TokenVerifier
from ingest.provision import provision
from ingest.push import MAX_BODY_BYTES, Committer, _Endpoint
from tools.brokers import PubSubEmulator, free_port

from .conftest import PROJECT, Start

SUBSCRIPTION = "projects/shop/subscriptions/clicks-landing"


class Server:
    """`python -m ingest push` as a process, on its own port."""

    def __init__(self, start: Start, variables: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/push"
        self.process: subprocess.Popen[str] = start("push", "--port", str(self.port), **variables)
        self.client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None))

    def post(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(self.url, content=content, **options)

    def health(self) -> int:
        try:
            return self.client.get(self.url.replace("/push", "/healthz")).status_code
        except httpx.TransportError:
            return 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
        """Stop the server, which must exit with 0; returns its output and log."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return out, err


Serve = Callable[..., Server]


@pytest.fixture
def serve(start: Start) -> Iterator[Serve]:
    servers: list[Server] = []

    def serve(**variables: str) -> Server:
        server = Server(start, variables)
        servers.append(server)
        wait_for(lambda: server.health() == 200 or server.process.poll() is not None)
        assert server.process.poll() is None, server.process.communicate()
        return server

    yield serve
    for server in servers:
        server.process.kill()
        server.process.communicate()
        server.client.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def envelope(payload: bytes = b"{}", message_id: str = "1", subscription: str = SUBSCRIPTION, **message: Any) -> Any:
    data = base64.b64encode(payload).decode()
    return {"message": {"data": data, "messageId": message_id, **message}, "subscription": subscription}


def landed(settings: Settings, stream: str = "clicks") -> list[dict[str, Any]]:
    """Return the rows in the order of landing; wait while the server commits."""
    with DuckDBSink(settings.warehouse_path).connection() as connection:
        rows = connection.execute(f"select * from raw.{stream} order by landed_at, rowid")
        names = [column[0] for column in rows.description]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def landed_ids(settings: Settings) -> list[str]:
    return [row["message_id"] for row in landed(settings)]


class Load:
    """Clients that push different messages without pause until the context or the server ends."""

    def __init__(self, server: Server, clients: int = 12) -> None:
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._push, args=(number,)) for number in range(clients)]
        self.answered: dict[int, list[str]] = defaultdict(list)
        """HTTP status to the ids of the messages with this answer."""

    def _push(self, client_number: int) -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(1_000_000):
                id_ = f"{client_number}-{number}"
                body = json.dumps(envelope(b"x" * 1_000, id_)).encode()
                try:
                    answer = client.post(self._server.url, content=body)
                except httpx.TransportError:
                    return
                self.answered[answer.status_code].append(id_)
                if self._stop.is_set():
                    return

    def goes_on(self) -> Callable[[], bool]:
        """Return a function that reports whether more messages have landed since now."""
        before = len(self.answered[204])
        return lambda: len(self.answered[204]) >= before + 50

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


class Sink(DuckDBSink):
    """Records the ids of committed messages. Each commit takes the next outcome, and raises it if it is an error."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        self._outcomes = list(outcomes)
        self.ids: list[str] = []

    @contextmanager
    def session(self) -> Iterator[None]:
        yield

    def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
        if self._outcomes and (error := self._outcomes.pop(0)):
            raise error
        ids = [id_ for batch in batches for table in batch.tables.values() for id_ in table["message_id"].to_pylist()]
        self.ids += ids
        return {"clicks": len(ids)}


class InProcess:
    """The push endpoint in this process, without a server."""

    result: Any

    def __init__(self, settings: Settings, sink: DuckDBSink, verifier: TokenVerifier | None) -> None:
        self.committer = Committer(sink, settings)
        self._endpoint = _Endpoint(settings, self.committer, verifier)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self._endpoint.app()), base_url="http://127.0.0.1", timeout=60
        )

    @property
    def rows(self) -> int:
        return self._endpoint._unanswered.rows

    async def post(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post("/push", content=content, **options)


def in_process(
    settings: Settings, sink: DuckDBSink, act: Callable[[InProcess], Any], verifier: TokenVerifier | None = None
) -> InProcess:
    """Run `act` on an endpoint in this process; returns the endpoint and the result."""

    async def run() -> InProcess:
        endpoint = InProcess(settings, sink, verifier)
        try:
            endpoint.result = await act(endpoint)
        finally:
            await asyncio.to_thread(endpoint.committer.close)
            await endpoint.client.aclose()
        return endpoint

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


# -- what lands -------------------------------------------------------------------------------------------------------


def test_pushes_land_as_they_were_sent(serve: Serve, settings: Settings) -> None:
    server = serve(TOPICS='{"checkouts": "shop-checkouts"}', SUBSCRIPTIONS='{"page_views": "ga4"}')
    time_text = "2026-01-05T21:19:04.363887999Z"
    bytes_of_all_kinds = bytes(range(256))
    both = {"data": "e30", "messageId": "2", "message_id": "2", "publishTime": time_text, "publish_time": time_text}
    sent = [
        ("clicks", "projects/any/subscriptions/clicks-landing", {"data": "e30=", "messageId": "1"}),
        ("clicks", SUBSCRIPTION, both | {"attributes": {}, "orderingKey": "", "deliveryAttempt": 3}),
        (
            "page_views",
            "projects/p/subscriptions/ga4",
            {"message_id": "3", "publish_time": "2026-01-01T00:00:00+01:00"},
        ),
        (
            "checkouts",
            "projects/p/subscriptions/shop-checkouts-landing",
            {
                "data": base64.b64encode(bytes_of_all_kinds).decode(),
                "messageId": "4\u00fc\u0000",
                "orderingKey": "k\u00fc",
                "attributes": {"a": "1", "b": "", "\u00fc\U0001f600": '"'},
            },
        ),
        (
            "web_events",
            "projects/p/subscriptions/web_events-landing",
            {"data": "", "messageId": "5", "attributes": None},
        ),
    ]
    for _, subscription, message in sent:
        answer = server.post({"message": message, "subscription": subscription})
        assert (answer.status_code, answer.content) == (204, b"")
    empty = {"source": "pubsub", "partition": None, "offset": None, "key": None, "attributes": None}
    empty |= {"published_at": None, "payload": b"", **dict.fromkeys(DECODED_SCHEMA.names)}
    expected = [
        {"stream": "clicks", "topic": "clicks", "message_id": "1", "payload": b"{}"},
        {
            "stream": "clicks",
            "topic": "clicks",
            "message_id": "2",
            "payload": b"{}",
            "published_at": datetime(2026, 1, 5, 21, 19, 4, 363887),
        },
        {
            "stream": "page_views",
            "topic": "page_views",
            "message_id": "3",
            "published_at": datetime(2025, 12, 31, 23, 0),
        },
        {
            "stream": "checkouts",
            "topic": "shop-checkouts",
            "message_id": "4\u00fc\u0000",
            "key": "k\u00fc".encode(),
            "attributes": '{"a":"1","b":"","\u00fc\U0001f600":"\\""}',
            "payload": bytes_of_all_kinds,
        },
        {"stream": "web_events", "topic": "web_events", "message_id": "5"},
    ]
    out, err = server.stop()
    assert out == "landed 5 messages\n"
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["listening"]
    rows = [row for stream in ("clicks", "page_views", "checkouts", "web_events") for row in landed(settings, stream)]
    for row in rows:
        del row["landed_at"]
    assert rows == [empty | row for row in expected]


@pytest.mark.parametrize("size", [10_000_000, pytest.param(1, marks=pytest.mark.slow)])
def test_a_message_above_the_limit_of_waiting_bytes_lands(serve: Serve, settings: Settings, size: int) -> None:
    server = serve(LANDING_MAX_BYTES="1024")
    payload = os.urandom(size)
    assert server.post(envelope(payload)).status_code == 204
    server.stop()
    assert [row["payload"] for row in landed(settings)] == [payload]


def test_a_redelivery_lands_again_but_once_per_commit(settings: Settings) -> None:
    gate = threading.Event()

    class GatedSink(DuckDBSink):
        def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
            assert gate.wait(30)
            return super().commit(batches)

    async def redeliver(endpoint: InProcess) -> None:
        gate.set()
        assert [(await endpoint.post(envelope(message_id="a"))).status_code for _ in range(2)] == [204, 204]
        gate.clear()
        pending = [asyncio.create_task(endpoint.post(envelope(message_id="first")))]
        await until(lambda: endpoint.rows == 1 and endpoint.committer._queue.empty())
        pending += [asyncio.create_task(endpoint.post(envelope(message_id="b"))) for _ in range(3)]
        await until(lambda: endpoint.committer._queue.qsize() == 3)
        gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*pending)] == [204] * 4

    endpoint = in_process(settings, GatedSink(settings.warehouse_path), redeliver)
    assert landed_ids(settings) == ["a", "a", "first", "b"]
    assert endpoint.committer.rows == 4


# -- what is rejected -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body: Invalid JSON"),
        (b"SECRET", "body: Invalid JSON"),
        (b"\xff\xfe", "body: Invalid JSON"),
        (b"[" * 100_000, "body: Invalid JSON"),
        (b"null", "body: "),
        (b"[]", "body: "),
        (b"{}", "subscription: Field required"),
        ({"subscription": SUBSCRIPTION}, "message: Field required"),
        ({"subscription": 1, "message": {"messageId": "1"}}, "subscription: "),
        ({"subscription": SUBSCRIPTION, "message": "SECRET"}, "message: "),
        ({"subscription": SUBSCRIPTION, "message": {"data": "e30="}}, "message.messageId: Field required"),
        (envelope(message_id=""), "message.messageId: "),
        (envelope(message_id=None), "message.messageId: "),
        (envelope(message_id=1), "message.messageId: "),
        (envelope(data="SECRET!!"), "message.data: "),
        (envelope(data="A"), "message.data: "),
        (envelope(data="e3 0="), "message.data: "),
        (envelope(data={"SECRET": 1}), "message.data: "),
        (envelope(publishTime="SECRET"), "message.publishTime: "),
        (envelope(publishTime="2026-01-05T21:19:04"), "message.publishTime: "),
        (envelope(publishTime="2026-02-30T00:00:00Z"), "message.publishTime: "),
        (envelope(publishTime=1767647944), "message.publishTime: "),
        (envelope(attributes={"SECRET": 1}), "message.attributes: "),
        (envelope(attributes={"a": None}), "message.attributes: "),
        (envelope(attributes=["SECRET"]), "message.attributes: "),
        (envelope(orderingKey=5), "message.orderingKey: "),
        (b'{"subscription": "x", "message": {"messageId": "\\ud800"}}', "body: Invalid JSON"),
    ],
)
def test_a_request_that_is_not_a_push_gets_400_with_one_line(
    body: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = Sink()
    answer = in_process(Settings(_env_file=None), sink, lambda endpoint: endpoint.post(body)).result
    assert answer.status_code == 400
    assert answer.text.startswith(f"not a Pub/Sub push message: {reason}")
    assert "\n" not in answer.text
    logged = capsys.readouterr().out
    assert "status=400" in re.sub(r"\x1b\[[0-9;]*m", "", logged)
    assert "SECRET" not in answer.text + logged
    assert sink.ids == []


@pytest.mark.parametrize(
    ("project", "subscription", "status"),
    [
        (None, "projects/any/subscriptions/clicks-landing", 204),
        ("shop", "projects/shop/subscriptions/clicks-landing", 204),
        ("shop", "projects/other/subscriptions/clicks-landing", 404),
        ("shop", "clicks-landing", 404),
        (None, "projects/shop/subscriptions/nope", 404),
        (None, "projects/shop/subscriptions/users-landing", 404),  # users arrive through Kafka
        (None, "projects/shop/topics/clicks-landing", 404),
        (None, "", 404),
    ],
)
def test_an_unknown_subscription_gets_404_with_the_known_ones(
    project: str | None, subscription: str, status: int
) -> None:
    sink = Sink()
    settings = Settings(_env_file=None, pubsub_project=project)
    body = envelope(subscription=subscription)
    answer = in_process(settings, sink, lambda endpoint: endpoint.post(body)).result
    assert answer.status_code == status
    assert sink.ids == ["1"] * (status == 204)
    if status == 404:
        assert (
            f"the subscriptions are projects/{project or '-'}/subscriptions/checkouts-landing, projects/" in answer.text
        )
        assert "users-landing," not in answer.text
        assert "\n" not in answer.text


@pytest.mark.parametrize(
    ("changes", "subscription", "status"),
    [
        (
            {"subscriptions": {"clicks": "projects/marketing/subscriptions/site"}},
            "projects/marketing/subscriptions/site",
            204,
        ),
        (
            {"subscriptions": {"clicks": "projects/marketing/subscriptions/site"}},
            "projects/shop/subscriptions/site",
            404,
        ),
        ({"streams": ["clicks"]}, SUBSCRIPTION, 204),
        ({"streams": ["checkouts"]}, SUBSCRIPTION, 404),
    ],
)
def test_subscriptions_of_other_projects_are_accepted_and_those_of_disabled_streams_are_not(
    changes: dict[str, Any], subscription: str, status: int
) -> None:
    settings = Settings(_env_file=None, pubsub_project="shop", **changes)
    body = envelope(subscription=subscription)
    assert in_process(settings, Sink(), lambda endpoint: endpoint.post(body)).result.status_code == status


def test_other_methods_and_paths_are_rejected(serve: Serve) -> None:
    server = serve()
    statuses = {
        (method, path): server.client.request(method, server.url.replace("/push", path)).status_code
        for method, path in (
            *(("GET", "/push"), ("PUT", "/push"), ("POST", "/"), ("POST", "/healthz"), ("GET", "/nope")),
            ("POST", "/push//"),
        )
    }
    assert list(statuses.values()) == [405, 405, 404, 405, 404, 404]
    _, err = server.stop()
    logged = [json.loads(line) for line in err.splitlines()][1:]
    assert [(line["event"], line["status"]) for line in logged] == [("push rejected", 405), ("push rejected", 404)]


@pytest.mark.slow
def test_a_trailing_slash_is_accepted(serve: Serve, settings: Settings) -> None:
    """Since Pub/Sub does not follow redirects."""
    server = serve()
    assert server.client.post(f"{server.url}/", json=envelope(message_id="slash")).status_code == 204
    assert server.post(envelope(message_id="none")).status_code == 204
    server.stop()
    assert landed_ids(settings) == ["slash", "none"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 204),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_tokens_web_pages_cannot_push(
    headers: dict[str, str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Web pages can send forms to any address; the browser adds the headers Origin and Host."""
    sink = Sink()

    async def push(endpoint: InProcess) -> httpx.Response:
        return await endpoint.post(envelope(), headers={"Content-Type": "text/plain", **headers})

    def count() -> float:
        return telemetry.PUSHES.labels(status)._value.get()

    before = count()
    answer = in_process(Settings(_env_file=None), sink, push).result
    assert answer.status_code == status
    assert sink.ids == ["1"] * (status == 204)
    assert count() == before + 1
    assert ("push rejected" in capsys.readouterr().out) == (status == 403)


def test_with_tokens_any_host_name_is_accepted() -> None:
    class Verifier(TokenVerifier):
        def is_verified(self, token: str) -> bool:
            return token == AUDIENCE

    async def push(endpoint: InProcess) -> httpx.Response:
        headers = {
            "Host": "warehouse.example",
            "Origin": "https://other.example",
            "Authorization": f"Bearer {AUDIENCE}",
        }
        return await endpoint.post(envelope(), headers=headers)

    sink = Sink()
    answer = in_process(Settings(_env_file=None), sink, push, Verifier(AUDIENCE, ACCOUNT)).result
    assert (answer.status_code, sink.ids) == (204, ["1"])


def test_headers_above_the_limit_get_431_and_are_not_buffered(serve: Serve, settings: Settings) -> None:
    server = serve()
    before = peak_kilobytes(server.process.pid)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /push HTTP/1.1\r\nHost: localhost\r\nA: ")
        with suppress(ConnectionError):
            for _ in range(300):
                client.sendall(b"a" * 1_000_000)
    assert time.monotonic() - started < 5
    assert peak_kilobytes(server.process.pid) - before < 20_000
    assert server.post(envelope()).status_code == 204
    server.stop()
    assert landed_ids(settings) == ["1"]


def peak_kilobytes(pid: int) -> int:
    """Return the peak memory of a process."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize("is_chunked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_body_above_the_limit_gets_413_and_is_not_buffered(
    serve: Serve, settings: Settings, is_chunked: bool
) -> None:
    server = serve()
    before = peak_kilobytes(server.process.pid)
    chunk = b" " * 1_000_000
    length = {} if is_chunked else {"content-length": str(200 * len(chunk))}
    answer = server.client.post(server.url, content=(chunk for _ in range(200)), headers=length)
    assert (answer.status_code, answer.text) == (413, f"the push is too large: the limit is {MAX_BODY_BYTES} bytes")
    assert peak_kilobytes(server.process.pid) - before < 60_000
    assert server.post(envelope()).status_code == 204
    server.stop()
    assert landed_ids(settings) == ["1"]


@pytest.mark.parametrize("limit", ["LANDING_MAX_ROWS", pytest.param("LANDING_MAX_BYTES", marks=pytest.mark.slow)])
def test_pushes_above_the_limit_get_429_and_the_waiting_ones_land(serve: Serve, settings: Settings, limit: str) -> None:
    bodies = {str(number): json.dumps(envelope(b"x" * 1_000, str(number))).encode() for number in range(10, 40)}
    size = len(bodies["10"])
    server = serve(**{limit: "7" if limit == "LANDING_MAX_ROWS" else str(8 * size - 1)})
    with ThreadPoolExecutor(len(bodies)) as pool:
        with DuckDBSink(settings.warehouse_path).connection():
            answers = {id_: pool.submit(server.post, body) for id_, body in bodies.items()}
            wait_for(lambda: sum(map(Future.done, answers.values())) == 23)
            full = {answer.result().status_code for answer in answers.values() if answer.done()}
            assert full == {429}
            what = {"LANDING_MAX_ROWS": "pushes", "LANDING_MAX_BYTES": "bytes"}[limit]
            assert server.post(bodies["10"]).text == f"{limit} {what} are already waiting for their commit"
            waiting = [id_ for id_, answer in answers.items() if not answer.done()]
        assert {answers[id_].result().status_code for id_ in waiting} == {204}
    assert sorted(landed_ids(settings)) == waiting
    # answered and rejected requests no longer count
    for body in bodies.values():
        assert server.post(body).status_code == 204


# -- the warehouse ----------------------------------------------------------------------------------------------------


def test_pushes_get_503_while_the_warehouse_is_held(serve: Serve, settings: Settings) -> None:
    server = serve(LOCK_TIMEOUT_SECONDS="0.3")
    with DuckDBSink(settings.warehouse_path).connection():
        for number in range(2):
            answer = server.post(envelope(message_id=f"rejected-{number}"))
            assert (answer.status_code, answer.text) == (503, "the warehouse cannot commit now")
        assert server.health() == 200
    assert server.post(envelope(message_id="taken")).status_code == 204
    _, err = server.stop()
    assert landed_ids(settings) == ["taken"]
    assert err.count("pushes rejected") == 2
    assert f"PID {os.getpid()}" in err


def test_pushes_get_503_while_the_disk_is_full(serve: Serve, settings: Settings) -> None:
    server = serve()
    assert server.post(envelope(message_id="before")).status_code == 204
    limit = settings.warehouse_path.stat().st_size + 200_000
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    large = envelope(os.urandom(8_000_000), "large")
    for _ in range(2):
        answer = server.post(large)
        assert (answer.status_code, answer.text) == (503, "the warehouse cannot commit now")
    assert server.health() == 200
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server.post(large).status_code == 204
    _, err = server.stop()
    assert landed_ids(settings) == ["before", "large"]
    assert "free some space: nothing is lost" in err


@pytest.mark.slow
def test_a_replaced_warehouse_is_reported_once(serve: Serve, settings: Settings) -> None:
    """The log must say so, since Pub/Sub does not redeliver acknowledged messages."""
    server = serve()
    assert server.post(envelope(message_id="before")).status_code == 204
    time.sleep(1)  # until the server has released the file
    settings.warehouse_path.rename(settings.warehouse_path.with_name("elsewhere"))
    statuses = [server.post(envelope(message_id="after")).status_code for _ in range(2)]
    assert statuses == [503, 204]
    _, err = server.stop()
    assert landed_ids(settings) == ["after"]
    assert err.count("the warehouse was replaced") == 2  # once in the log of the landing, once in the rejected push
    assert "from pubsub clicks up to 0, and 1 was landed" in err


def test_the_server_starts_while_the_warehouse_is_held(serve: Serve, settings: Settings) -> None:
    with DuckDBSink(settings.warehouse_path).connection():
        server = serve()
    assert server.post(envelope()).status_code == 204


def test_a_failed_commit_gets_503_and_the_next_can_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Sink(OSError("no space left\nSECRET"), None, WarehouseHeldError("held"), None)

    async def push(endpoint: InProcess) -> list[tuple[int, str]]:
        answers = [await endpoint.post(envelope(message_id=str(number))) for number in range(4)]
        return [(answer.status_code, answer.text) for answer in answers]

    endpoint = in_process(Settings(_env_file=None), sink, push)
    unavailable = "the warehouse cannot commit now"
    assert endpoint.result == [(503, "the commit failed"), (204, ""), (503, unavailable), (204, "")]
    assert sink.ids == ["1", "3"]
    logged = capsys.readouterr().out
    assert "no space left" in logged
    assert "SECRET" not in logged


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_health_check_fails_without_the_committer() -> None:
    gate = threading.Event()

    class DeadlySink(Sink):
        def commit(self, batches: Sequence[Batch]) -> Mapping[str, int]:
            assert gate.wait(30)
            raise GeneratorExit  # not an Exception, so it ends the committer

    async def push(endpoint: InProcess) -> list[int]:
        answers = [await endpoint.client.get("/healthz")]
        pending = [asyncio.create_task(endpoint.post(envelope()))]
        await until(lambda: endpoint.rows == 1 and endpoint.committer._queue.empty())
        pending.append(asyncio.create_task(endpoint.post(envelope())))
        await until(lambda: endpoint.committer._queue.qsize() == 1)
        gate.set()
        answers += await asyncio.gather(*pending)
        answers += [await endpoint.post(envelope()), await endpoint.client.get("/healthz")]
        return [answer.status_code for answer in answers]

    assert in_process(Settings(_env_file=None), DeadlySink(), push).result == [200, 503, 503, 503, 503]


def test_the_warehouse_is_released_regularly_under_constant_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.push, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(ingest.push, "MAX_SESSION_SECONDS", 0.1)
    holds: list[float] = []
    """Seconds for which the warehouse was free before each session."""
    free_since = 0.0

    class TimedSink(Sink):
        @contextmanager
        def session(self) -> Iterator[None]:
            nonlocal free_since
            holds.append(time.monotonic() - free_since)
            yield
            free_since = time.monotonic()

    async def push(endpoint: InProcess) -> None:
        deadline = time.monotonic() + 30
        while len(holds) < 3:
            assert (await endpoint.post(envelope())).status_code == 204
            assert time.monotonic() < deadline, "held all the time"

    in_process(Settings(_env_file=None), TimedSink(), push)
    assert min(holds) >= 0.2, "a process that polls every 0.1 s may have missed it"


def test_a_shared_warehouse_is_committed_to_without_sessions_and_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.push, "RELEASE_SECONDS", 3600.0)

    class SharedSink(Sink):
        def session(self) -> NoReturn:
            raise AssertionError("a session would keep other threads out")

    async def push() -> list[str | None]:
        committer = Committer(sink, Settings(_env_file=None), is_shared=True)
        message = PubSubMessage("1", "", {}, None, b"{}")
        answers = [await committer.commit("clicks", message) for _ in range(3)]
        await asyncio.to_thread(committer.close)
        return answers

    sink = SharedSink(None, RuntimeError("disk"), None)
    assert asyncio.run(push()) == [None, "the commit failed", None]
    assert len(sink.ids) == 2


@pytest.mark.slow
def test_other_processes_can_open_the_warehouse_under_load(serve: Serve, settings: Settings) -> None:
    server = serve()
    with Load(server) as load:
        for _ in range(3):
            wait_for(load.goes_on())
            with DuckDBSink(settings.warehouse_path, lock_timeout_seconds=10).connection() as connection:
                connection.execute("create or replace table mine as select 1 as one")
    server.stop()
    assert list(load.answered) == [204]
    assert sorted(landed_ids(settings)) == sorted(load.answered[204])


@pytest.mark.slow
def test_a_build_succeeds_under_load(serve: Serve, settings: Settings, tmp_path: Path) -> None:
    server = serve()
    variables = {"WAREHOUSE_PATH": str(settings.warehouse_path), "DBT_TARGET_PATH": str(tmp_path / "target")}
    command = [sys.executable, "-m", "dbt_project", "build", "--select", "stg_clicks"]
    with Load(server, clients=2) as load:
        wait_for(load.goes_on())
        build = subprocess.run(
            command,
            cwd=PROJECT,
            env=os.environ | variables | {"DBT_LOG_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        wait_for(load.goes_on())
    assert build.returncode == 0, build.stdout + build.stderr
    server.stop()
    assert sorted(landed_ids(settings)) == sorted(load.answered[204])


@pytest.mark.slow
def test_204_means_landed_under_load_and_while_others_hold_the_warehouse(serve: Serve, settings: Settings) -> None:
    server = serve(LOCK_TIMEOUT_SECONDS="0.2")
    with Load(server) as load:
        for count in (10, 20, 30):
            with DuckDBSink(settings.warehouse_path).connection():
                wait_for(lambda count=count: len(load.answered[503]) >= count)  # type: ignore[misc]
            wait_for(load.goes_on())
    server.stop()
    assert set(load.answered) == {204, 503}
    assert sorted(landed_ids(settings)) == sorted(load.answered[204])


@pytest.mark.parametrize(
    "answers", [pytest.param(1, marks=pytest.mark.slow), 150, pytest.param(400, marks=pytest.mark.slow)]
)
def test_after_a_kill_under_load_all_acknowledged_messages_are_landed(
    serve: Serve, settings: Settings, answers: int
) -> None:
    server = serve()
    with Load(server) as load:
        wait_for(lambda: len(load.answered[204]) >= answers)
        server.process.kill()
        server.process.wait()
    assert set(load.answered) == {204}
    ids = landed_ids(settings)
    assert len(set(ids)) == len(ids)
    assert set(load.answered[204]) <= set(ids)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_after_a_signal_under_load_every_request_is_answered(
    serve: Serve, settings: Settings, number: signal.Signals
) -> None:
    server = serve()
    with Load(server) as load:
        wait_for(lambda: len(load.answered[204]) >= 100)
        out, err = server.stop(number)
    ids = landed_ids(settings)
    assert set(load.answered) == {204}
    assert sorted(ids) == sorted(load.answered[204])
    assert out == f"landed {len(ids):,} messages\n"
    assert err.count("\n") == 1, err


def test_after_a_signal_waiting_requests_are_answered_while_the_warehouse_is_held(
    serve: Serve, settings: Settings
) -> None:
    server = serve(LOCK_TIMEOUT_SECONDS="1", LANDING_MAX_ROWS="1")
    with DuckDBSink(settings.warehouse_path).connection(), ThreadPoolExecutor() as pool:
        answer = pool.submit(server.post, envelope())
        wait_for(lambda: answer.done() or server.post(b"").status_code == 429)
        out, _ = server.stop()
        assert (answer.result().status_code, out) == (503, "landed 0 messages\n")


def test_a_message_lands_even_if_its_client_disconnects(serve: Serve, settings: Settings) -> None:
    server = serve(LANDING_MAX_ROWS="1")
    body = json.dumps(envelope(message_id="orphan")).encode()
    address = ("127.0.0.1", server.port)
    request = b"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with DuckDBSink(settings.warehouse_path).connection(), socket.create_connection(address) as client:
        client.sendall(request)
        wait_for(lambda: server.post(b"").status_code == 429)
        client.close()
    wait_for(lambda: landed_ids(settings) == ["orphan"])
    # a client that disconnects before the end of its push frees its share of the limit
    with socket.create_connection(address) as client:
        client.sendall(request[:-1])
        wait_for(lambda: server.post(b"").status_code == 429)
    wait_for(lambda: server.post(envelope(message_id="next")).status_code == 204)
    assert landed_ids(settings) == ["orphan", "next"]


@pytest.mark.slow
def test_a_port_in_use_is_reported_in_one_line(serve: Serve, start: Start) -> None:
    server = serve()
    second = start("push", "--port", str(server.port))
    out, err = second.communicate(timeout=30)
    expected = f"error: cannot listen on 127.0.0.1, port {server.port}: Address already in use; choose another --port\n"
    assert (second.returncode, out, err) == (2, "", expected)


# -- authentication of pushes -----------------------------------------------------------------------------------------

AUDIENCE = "https://warehouse.example/push"
ACCOUNT = "pusher@shop.iam.gserviceaccount.com"


class Google:
    """A fake of Google: signs tokens with its own keys, and serves the certificates."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self.certificates: dict[str, str] = {}
        self.fetches = 0
        self.is_down = False
        self.add_key("one")

    def add_key(self, key_id: str) -> None:
        key = rsa.generate_private_key(65537, 2048)
        self._keys[key_id] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.certificates[key_id] = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def token(self, key_id: str = "one", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a valid token with these claims changed; None removes a claim."""
        now = int(time.time())
        valid = {"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": ACCOUNT, "email_verified": True}
        payload = valid | {"iat": now - 60, "exp": now + 3540} | claims
        signer = crypt.RSASigner.from_string(self._keys[key_id], key_id)
        present = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(signer, present, header=header).decode()

    def __call__(self, url: str, timeout: float) -> Any:
        self.fetches += 1
        assert url == "https://www.googleapis.com/oauth2/v1/certs"
        if self.is_down:
            raise OSError("unreachable")
        headers = {"Cache-Control": "public, max-age=19800, must-revalidate"}
        return SimpleNamespace(status=200, data=json.dumps(self.certificates).encode(), headers=headers)


@pytest.fixture(scope="module")
def google_keys() -> Google:
    return Google()


@pytest.fixture
def google(google_keys: Google) -> Iterator[Google]:
    certificates = dict(google_keys.certificates)
    google_keys.fetches = 0
    yield google_keys
    google_keys.certificates, google_keys.is_down = certificates, False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Number of seconds to add to all clocks that the verification uses."""
    ahead = SimpleNamespace(seconds=0.0)
    real = SimpleNamespace(time=time.time, monotonic=time.monotonic, utcnow=_helpers.utcnow)
    faked = SimpleNamespace(
        time=lambda: real.time() + ahead.seconds, monotonic=lambda: real.monotonic() + ahead.seconds
    )
    monkeypatch.setattr(oidc, "time", faked)
    monkeypatch.setattr(_helpers, "utcnow", lambda: real.utcnow() + timedelta(seconds=ahead.seconds))
    return ahead


def forged(token: str, **claims: Any) -> str:
    """Return a token with changed claims under the same signature."""
    header, payload, signature = token.split(".")
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{segment(decoded | claims)}.{signature}"


def segment(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def unsigned(token: str, algorithm: str) -> str:
    return f"{segment({'alg': algorithm, 'kid': 'one', 'typ': 'JWT'})}.{token.split('.')[1]}."


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (204, lambda google: f"Bearer {google.token()}"),
        (204, lambda google: f"bearer {google.token(iss='accounts.google.com')}"),
        (401, lambda google: None),
        (401, lambda google: ""),
        (401, lambda google: google.token()),
        (401, lambda google: f"Basic {google.token()}"),
        (401, lambda google: "Bearer"),
        (401, lambda google: "Bearer "),
        (401, lambda google: "Bearer SECRET"),
        (401, lambda google: "Bearer a.b.c"),
        (401, lambda google: "Bearer \u00fc.\u00fc.\u00fc"),
        (401, lambda google: f"Bearer {segment([])}.{segment({})}."),
        (401, lambda google: f"Bearer {segment({'alg': 'RS256', 'kid': []})}.{segment({})}.AAAA"),
        (401, lambda google: f"Bearer {base64.b64encode(b'[' * 100_000).decode()}.e30.AAAA"),
        (401, lambda google: f"Bearer {forged(google.token(), exp=int(time.time()) + 9_999)}"),
        (401, lambda google: f"Bearer {forged(google.token(email='other@x'), email=ACCOUNT)}"),
        (401, lambda google: f"Bearer {google.token()[:-8]}AAAAAAAA"),
        (401, lambda google: f"Bearer {Google().token()}"),  # another key with the same key id
        (401, lambda google: f"Bearer {unsigned(google.token(), 'none')}"),
        (401, lambda google: f"Bearer {unsigned(google.token(), 'HS256')}"),
        (401, lambda google: f"Bearer {google.token(iat=int(time.time()) - 7_200, exp=int(time.time()) - 60)}"),
        (401, lambda google: f"Bearer {google.token(iat=int(time.time()) + 60)}"),
        (401, lambda google: f"Bearer {google.token(exp=None)}"),
        (401, lambda google: f"Bearer {google.token(aud='https://other.example/push')}"),
        (401, lambda google: f"Bearer {google.token(aud=None)}"),
        (401, lambda google: f"Bearer {google.token(iss='https://accounts.google.com.evil.example')}"),
        (401, lambda google: f"Bearer {google.token(iss=None)}"),
        (401, lambda google: f"Bearer {google.token(email_verified=False)}"),
        (401, lambda google: f"Bearer {google.token(email_verified='true')}"),
        (401, lambda google: f"Bearer {google.token(email_verified=None)}"),
        (403, lambda google: f"Bearer {google.token(email='other@shop.iam.gserviceaccount.com')}"),
        (403, lambda google: f"Bearer {google.token(email=None)}"),
    ],
)
def test_only_googles_token_for_this_audience_and_account_may_push(
    google: Google, status: int, header: Callable[[Google], str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    value = header(google)
    headers = {} if value is None else {"Authorization": value.encode()}
    sink = Sink()

    async def push(endpoint: InProcess) -> list[httpx.Response]:
        return [await endpoint.post(envelope(), headers=headers) for _ in range(2)]

    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    answers = in_process(Settings(_env_file=None), sink, push, verifier).result
    assert [answer.status_code for answer in answers] == [status] * 2
    assert [answer.headers.get("www-authenticate") for answer in answers] == ["Bearer" if status == 401 else None] * 2
    assert sink.ids == ["1", "1"] * (status == 204)
    assert google.fetches <= 1
    said = capsys.readouterr().out + answers[0].text
    assert "SECRET" not in said
    if value is not None and len(value) > 20:
        assert value.split()[-1][:20] not in said


def test_a_verified_token_is_cached_until_it_expires(google: Google, clock: SimpleNamespace) -> None:
    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    token = google.token()
    assert not verifier.is_verified(token)
    verifier.verify(token)
    assert verifier.is_verified(token)
    assert not verifier.is_verified(token + "A")
    clock.seconds = 3_600
    assert not verifier.is_verified(token)
    with pytest.raises(IdentityError, match="expired"):
        verifier.verify(token)


def test_the_number_of_cached_tokens_is_bounded(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc, "MAX_TOKENS", 2)
    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    tokens = [google.token(nonce=number) for number in range(3)]
    for token in tokens:
        verifier.verify(token)
    assert [verifier.is_verified(token) for token in tokens] == [False, True, True]


def test_certificates_are_fetched_once_and_again_after_they_expire(google: Google, clock: SimpleNamespace) -> None:
    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    for number in range(5):
        verifier.verify(google.token(nonce=number))
    assert google.fetches == 1
    clock.seconds = 19_700
    verifier.verify(google.token(exp=int(time.time()) + 30_000))
    assert google.fetches == 1
    clock.seconds = 19_900
    verifier.verify(google.token(exp=int(time.time()) + 30_001))
    assert google.fetches == 2


def test_an_unknown_key_id_triggers_a_fetch_but_not_too_often(google: Google, clock: SimpleNamespace) -> None:
    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    verifier.verify(google.token())
    google.add_key("two")
    clock.seconds = 11
    verifier.verify(google.token("two"))
    assert google.fetches == 2
    for number in range(50):
        clock.seconds += 0.5
        invented = {"alg": "RS256", "kid": f"invented-{number}"}
        with pytest.raises(IdentityError) as raised:
            verifier.verify(".".join([segment(invented), *google.token().split(".")[1:]]))
        assert raised.value.status == 401
    assert google.fetches <= 5
    verifier.verify(google.token(nonce=1))


def test_pushes_get_503_until_certificates_are_available(google: Google, clock: SimpleNamespace) -> None:
    verifier = TokenVerifier(AUDIENCE, ACCOUNT, google)
    google.is_down = True
    for _ in range(5):
        with pytest.raises(IdentityError) as raised:
            verifier.verify(google.token())
        assert raised.value.status == 503
    assert google.fetches == 1
    google.is_down = False
    clock.seconds = 11
    verifier.verify(google.token())


def test_fetching_certificates_does_not_block_other_requests(google: Google) -> None:
    begun, gate = threading.Event(), threading.Event()

    def slow(url: str, timeout: float) -> Any:
        begun.set()
        assert gate.wait(30)
        return google(url, timeout)

    async def push(endpoint: InProcess) -> int:
        pending = asyncio.create_task(endpoint.post(envelope(), headers={"Authorization": f"Bearer {google.token()}"}))
        await until(begun.is_set)
        assert (await endpoint.client.get("/healthz")).status_code == 200
        assert not pending.done()
        gate.set()
        return (await pending).status_code

    verifier = TokenVerifier(AUDIENCE, ACCOUNT, slow)  # type: ignore[arg-type]
    assert in_process(Settings(_env_file=None), Sink(), push, verifier).result == 204


def test_with_an_audience_requests_without_a_token_are_rejected(start: Start) -> None:
    port = free_port()
    process = start("push", "--port", str(port), PUSH_AUDIENCE=AUDIENCE, PUSH_SERVICE_ACCOUNT=ACCOUNT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            transport_errors = 0

            def answers() -> bool:
                nonlocal transport_errors
                try:
                    return client.get("/healthz").status_code == 200
                except httpx.TransportError:
                    transport_errors += 1
                    return process.poll() is not None

            wait_for(answers)
            assert client.post("/push", json=envelope()).status_code == 401
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_with_an_audience_the_server_can_listen_on_any_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listened = []

    def listen(address: tuple[str, int], **_: Any) -> None:
        listened.append(address)
        raise OSError(errno.EADDRINUSE, "")  # ends the server at once

    monkeypatch.setattr("socket.create_server", listen)
    sink = DuckDBSink(tmp_path / "warehouse.duckdb")
    anybody = Settings(_env_file=None)
    with pytest.raises(UserError, match="set PUSH_AUDIENCE"):
        ingest.push.serve(anybody, sink, "0.0.0.0", 8080)  # noqa: S104
    with pytest.raises(UserError, match="already in use"):
        ingest.push.serve(anybody, sink, "127.0.0.1", 8080)
    signed = Settings(_env_file=None, push_audience=AUDIENCE, push_service_account=ACCOUNT)
    with pytest.raises(UserError, match="already in use"):
        ingest.push.serve(signed, sink, "0.0.0.0", 8080)  # noqa: S104
    assert listened == [("127.0.0.1", 8080), ("0.0.0.0", 8080)]  # noqa: S104


# -- Pub/Sub itself ---------------------------------------------------------------------------------------------------


@pytest.mark.brokers
def test_messages_published_to_the_emulator_are_pushed_and_land(
    serve: Serve, settings: Settings, pubsub_emulator: PubSubEmulator
) -> None:
    stream = STREAMS["clicks"]
    pubsub = settings.model_copy(
        update={
            "pubsub_project": pubsub_emulator.project,
            "pubsub_emulator_host": pubsub_emulator.host,
            "topics": {"clicks": "pushed-clicks"},
        }
    )
    provision(pubsub, [stream])
    server = serve(PUBSUB_PROJECT=pubsub_emulator.project, TOPICS='{"clicks": "pushed-clicks"}')
    subscription = pubsub.subscription(stream)
    subscriber, publisher = open_subscriber(pubsub), open_publisher(pubsub)
    subscriber.modify_push_config(subscription=subscription, push_config={"push_endpoint": server.url})
    topic = f"projects/{pubsub.pubsub_project}/topics/pushed-clicks"
    messages = [{"data": b"%d" % number, "attributes": {"number": str(number)}} for number in range(50)]
    messages += [{"attributes": {"empty": "yes"}}, {"data": bytes(range(256)) * 4_000}]
    ids = publisher.publish(topic=topic, messages=messages).message_ids
    published = {
        id_: (message.get("data", b""), json.dumps(message.get("attributes"), separators=(",", ":")))
        for id_, message in zip(ids, messages, strict=True)
    }
    wait_for(lambda: set(landed_ids(settings)) >= set(ids))
    subscriber.modify_push_config(subscription=subscription, push_config={})
    subscriber.close()
    publisher.transport.close()
    server.stop()
    rows = landed(settings)
    assert {row["message_id"]: (row["payload"], row["attributes"] or "null") for row in rows} == published
    assert {(row["source"], row["topic"], row["key"]) for row in rows} == {("pubsub", "pushed-clicks", None)}
    now = datetime.now(UTC).replace(tzinfo=None)
    assert all(abs(row["published_at"] - now) < timedelta(minutes=10) for row in rows)
