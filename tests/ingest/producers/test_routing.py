"""RoutingProducer: each stream to its transport, all of them flushed and closed."""

from collections.abc import Iterable
from typing import Any

import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from ingest.message import Message
from ingest.producers import RoutingProducer


class Recorder:
    """A producer that records its calls, and raises an error on close if requested."""

    def __init__(self, transport: str, calls: list[tuple[str, str]], fails: bool) -> None:
        self.transport, self.calls, self.fails = transport, calls, fails

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.calls.append((self.transport, "close"))
        if self.fails:
            raise UserError(f"{self.transport} lost a message")

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        self.calls.append((self.transport, stream.name))
        return len(list(messages))

    def flush(self) -> None:
        self.calls.append((self.transport, "flush"))


def routing(monkeypatch: pytest.MonkeyPatch, *failing: str, **settings: Any) -> tuple[RoutingProducer, list[Any]]:
    calls: list[tuple[str, str]] = []
    producer = RoutingProducer(Settings(_env_file=None, **settings))
    monkeypatch.setattr(producer, "_open", lambda transport: Recorder(transport, calls, transport in failing))
    return producer, calls


def test_each_stream_goes_to_its_transport_and_all_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, calls = routing(monkeypatch, kafka_bootstrap_servers="k", pubsub_project="p")
    with producer:
        assert producer.produce(STREAMS["users"], [Message(b"")]) == 1
        producer.produce(STREAMS["clicks"], [])
        producer.produce(STREAMS["posts"], [])
        producer.flush()
    assert calls == [
        *[("kafka", "users"), ("pubsub", "clicks"), ("kafka", "posts")],
        *[("kafka", "flush"), ("pubsub", "flush")],
        *[("pubsub", "close"), ("kafka", "close")],
    ]


@pytest.mark.parametrize("failing", [["kafka"], ["pubsub"], ["kafka", "pubsub"]])
def test_every_producer_is_closed_even_if_one_fails(monkeypatch: pytest.MonkeyPatch, failing: list[str]) -> None:
    producer, calls = routing(monkeypatch, *failing, kafka_bootstrap_servers="k", pubsub_project="p")
    with pytest.raises(UserError, match="lost a message"), producer:
        producer.produce(STREAMS["users"], [])
        producer.produce(STREAMS["clicks"], [])
    assert calls[2:] == [("pubsub", "close"), ("kafka", "close")]
