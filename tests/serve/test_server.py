"""The server as users start it: a process, over HTTP."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from common import web
from common.settings import Settings
from engines.query import Query
from serve.__main__ import main
from tests.command_line import run_main
from tests.serve.publishing import publish_again
from tools import ROOT

SECONDS = 60
EVERYWHERE = "0.0.0.0"  # noqa: S104


def environment(settings: Settings, **variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SERVE_", "WAREHOUSE"))}
    return {**ours, "WAREHOUSE_PATH": str(settings.warehouse_path), **variables}


@contextmanager
def server(settings: Settings, *options: str, level: str = "info", **variables: str) -> Iterator[str]:
    """Its URL. It must end well, and log nothing above the level."""
    command = [sys.executable, "-m", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(settings, **variables), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    watch = threading.Timer(SECONDS, process.kill)
    watch.start()
    lines = []
    drain = threading.Thread(target=lambda: lines.extend(process.stderr or []))
    try:
        listening = json.loads(process.stderr.readline())
        assert listening["event"] == "listening"
        drain.start()
        assert re.fullmatch(rf"http://(127\.0\.0\.1|localhost):{listening['port']}/", listening["url"])
        yield f"http://127.0.0.1:{listening['port']}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        watch.cancel()
        if drain.ident:
            drain.join(SECONDS)
    assert process.returncode == 0, lines
    assert all(json.loads(line)["level"] in ("info", level) for line in lines), lines


def test_versions_swap_under_concurrent_requests(published: Settings, queries: list[Query]) -> None:
    """Every event of version k has the brand k: an answer of two versions would have two."""
    done = threading.Event()

    def ask(number: int) -> list[int]:
        seen = []
        with httpx.Client(base_url=url, timeout=SECONDS) as client:
            while not done.is_set():
                # some from memory, some together, some that nobody asked
                response = client.get(f"/v0/pipes/top_products.json?limit={10 + len(seen) % (5 * number)}")
                assert response.status_code == 200, response.text
                [brand] = {row["brand"] for row in response.json()["data"]}
                seen.append(int(brand))
        return seen

    publish_again(published, queries, "update analytics.fct_events set brand = '0'")
    with server(published) as url, ThreadPoolExecutor(6) as pool:
        pending = [pool.submit(ask, number) for number in range(1, 7)]
        try:
            for version in range(1, 6):
                publish_again(published, queries, f"update analytics.fct_events set brand = '{version}'")
                # who publishes asks of what was published
                answer = httpx.get(f"{url}/v0/pipes/top_products.json?limit=1", timeout=SECONDS).json()
                assert answer["data"][0]["brand"] == str(version)
        finally:
            done.set()
        seen = [one.result() for one in pending]
    assert all(one == sorted(one) for one in seen), "nobody is answered from an older version than before"
    assert {version for one in seen for version in one} >= set(range(1, 5))


def test_metrics_count_by_query_and_status(published: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with server(published, "--metrics-port", str(port)) as url:
        for query in ("limit=1", "limit=2", "limit=none"):
            httpx.get(f"{url}/v0/pipes/top_products.json?{query}", timeout=SECONDS)
        httpx.get(f"{url}/v0/pipes/s3cret.json", timeout=SECONDS)
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS).text.splitlines()
    assert 'serve_request_seconds_count{query="top_products",status="200"} 2.0' in lines
    assert 'serve_request_seconds_count{query="top_products",status="400"} 1.0' in lines
    assert 'serve_request_seconds_count{query="",status="404"} 1.0' in lines
    assert not any("s3cret" in line for line in lines)
    [published_at] = [float(line.split()[1]) for line in lines if line.startswith("serve_published_timestamp_seconds ")]
    assert abs(time.time() - published_at) < 600


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
def test_without_tokens_only_loopback_is_listened_on(settings: Settings, host: str) -> None:
    refused = run_main(main, ["--port", "0", "--host", host], environment(settings))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "SERVE_TOKENS" in refused.stderr


def test_with_tokens_every_address_may_be_listened_on(published: Settings) -> None:
    with server(published, "--host", EVERYWHERE, SERVE_TOKENS='{"s3cret": ["top_products"]}') as url:
        path = f"{url}/v0/pipes/top_products.json"
        assert httpx.get(path, timeout=SECONDS).status_code == 401
        assert httpx.get(path, headers={"Authorization": "Bearer s3cret"}, timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    "tokens", ['{"s3cret": "top_products"}', '{"s3cret": 1}', '["s3cret"]', "s3cret", '{"s3cret ": "*"}', '{"": "*"}']
)
def test_tokens_that_cannot_be_read_are_not_printed(settings: Settings, tokens: str) -> None:
    refused = run_main(main, ["--port", "0"], environment(settings, SERVE_TOKENS=tokens))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: SERVE_TOKENS: ")
    assert "s3cret" not in refused.stderr


@pytest.mark.parametrize("command", [[], ["dashboard"]])
def test_on_a_terminal_the_address_is_a_line_to_click(published: Settings, command: list[str]) -> None:
    """And in a log an attribute."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    terminal, of_process = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", *command, "--port", str(port)],
        cwd=ROOT,
        env=environment(published),
        stderr=of_process,
    )
    os.close(of_process)
    watch = threading.Timer(SECONDS, process.kill)
    watch.start()
    shown = b""
    try:
        while b"Ctrl-C" not in shown:
            shown += os.read(terminal, 10_000)
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=SECONDS, follow_redirects=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        watch.cancel()
        os.close(terminal)
    assert f"\r\n  http://127.0.0.1:{port}/\r\n" in shown.decode()
    assert page.status_code == 200
    assert "<html" in page.text


def test_a_log_has_the_address_as_json(published: Settings) -> None:
    with server(published) as url:
        assert httpx.get(url, timeout=SECONDS).headers["location"] == "docs"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/x"),
        ("::1", "http://[::1]:{port}/x"),
        (EVERYWHERE, "http://localhost:{port}/x"),
    ],
)
def test_an_address_is_one_for_a_browser_on_this_machine(host: str, url: str) -> None:
    with web.listen(host, 0, None) as listener:
        assert web.url_of(listener, "/x") == url.format(port=listener.getsockname()[1])


def test_a_head_above_the_limit_is_rejected(published: Settings) -> None:
    with server(published, level="warning") as url:
        answer = httpx.get(url, headers={"A": "a" * 70_000}, timeout=SECONDS)
        assert answer.status_code == 431
        assert httpx.get(f"{url}/healthz", timeout=SECONDS).status_code == 200
