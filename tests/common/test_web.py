"""Several servers in one thread."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from common import web

SECONDS = 30


def site(name: str, started: threading.Event | None = None, seconds: float = 0) -> web.Site:
    """A site that answers with its name, after some seconds."""

    def answer(request: Request) -> PlainTextResponse:
        if started:
            started.set()
        time.sleep(seconds)
        return PlainTextResponse(name)

    return web.Site(Starlette(routes=[Route("/", answer)]), web.listen("127.0.0.1", 0, None), "/")


def url(site: web.Site) -> str:
    return web.url_of(site.listener, "/")


@contextmanager
def serving(sites: list[web.Site], stop: threading.Event) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=web.serve_all, args=(sites, stop, SECONDS), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_several_sites_are_served_in_one_thread_until_the_event() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    sites = [site("one"), site("two")]
    urls = [url(one) for one in sites]
    with serving(sites, threading.Event()):
        assert [httpx.get(one, timeout=SECONDS).text for one in urls] == ["one", "two"]
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    for one in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(one, timeout=SECONDS)


def test_in_the_main_thread_the_handlers_of_the_caller_stay() -> None:
    stop = threading.Event()
    during = []

    def handler(*_: object) -> None:
        stop.set()

    def interrupt() -> None:
        during.extend([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)])
        signal.raise_signal(signal.SIGTERM)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    threading.Timer(0.5, interrupt).start()
    try:
        web.serve_all([site("one")], stop, SECONDS)
    finally:
        for number, one in before.items():
            signal.signal(number, one)
    assert during == [handler, handler]


def test_a_request_is_answered_after_the_event() -> None:
    started, stop = threading.Event(), threading.Event()
    slow = site("slow", started, seconds=0.5)
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(httpx.get(url(slow), timeout=SECONDS).text))
    with serving([slow, site("other")], stop):
        client.start()
        assert started.wait(SECONDS)
    client.join(SECONDS)
    assert answers == ["slow"]
