"""Appending to the spool: complete lines, with concurrent producers and after killed ones."""

import re
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from ingest.message import Message
from ingest.producers import RoutingProducer
from ingest.producers import spool as producers_spool
from ingest.producers.spool import SpoolProducer

from ..conftest import PROJECT

USERS = STREAMS["users"]


def log_of(settings: Settings) -> Path:
    return settings.spool_path / "users" / "0.ndjson"


def test_a_line_is_the_envelope_of_a_broker(settings: Settings) -> None:
    with RoutingProducer(settings) as producer:
        assert producer.produce(USERS, [Message(b"\xff\n", b"\x00", {"é": "\u2028"}, 5), Message(None)]) == 2
        producer.flush()
        first, second = [orjson.loads(line) for line in log_of(settings).read_bytes().splitlines()]
        del first["log_id"]
        assert first == {"key": "AA==", "attributes": {"é": "\u2028"}, "published_at": 5, "payload": "/wo="}
        assert second == {"key": None, "attributes": {}, "published_at": None, "payload": None}


def test_a_log_gets_its_own_id_with_its_first_line(settings: Settings) -> None:
    log = log_of(settings)
    ids = []
    for torn in (None, b"", b'{"log_id":"0123456789abcdef0123456789abcdef","key":nu'):
        if torn is not None:
            log.write_bytes(torn)
        SpoolProducer(settings).produce(USERS, [Message(b"1"), Message(b"2")])
        SpoolProducer(settings).produce(USERS, [Message(b"3")])
        lines = log.read_bytes().splitlines()
        ids += [orjson.loads(line).get("log_id") for line in lines]
        assert re.match(rb'\{"log_id":"[0-9a-f]{32}","key":', lines[0])
    assert ids[1::3] == ids[2::3] == [None] * 3
    assert len({*ids[::3], "0123456789abcdef0123456789abcdef"}) == 4


def test_an_existing_log_without_an_id_gets_none(settings: Settings) -> None:
    log = log_of(settings)
    log.parent.mkdir(parents=True)
    log.write_bytes(b'{"payload":"YQ=="}\n')
    SpoolProducer(settings).produce(USERS, [Message(b"x")])
    assert b"log_id" not in log.read_bytes()


def test_topics_does_not_change_the_spools_folders(settings: Settings) -> None:
    SpoolProducer(settings.model_copy(update={"topics": {"users": "shop-users"}})).produce(USERS, [Message(b"x")])
    assert log_of(settings).exists()


@pytest.mark.parametrize("torn", [b"{", b"x" * 200_000, b'{"key":null,"payload":"YQ=="}'])
@pytest.mark.parametrize("before", [b"", b'{"payload":"YQ=="}\n'])
def test_the_next_producer_removes_an_incomplete_line(settings: Settings, before: bytes, torn: bytes) -> None:
    log = log_of(settings)
    log.parent.mkdir(parents=True)
    log.write_bytes(before + torn)
    SpoolProducer(settings).produce(USERS, [Message(b"x")])
    content = log.read_bytes()
    assert content.startswith(before)
    assert orjson.loads(content.removeprefix(before))["payload"] == "eA=="


def test_two_producers_do_not_interleave_their_lines(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of `produce` holds the lock until its end, so that its messages are adjacent."""
    monkeypatch.setattr(producers_spool, "LINES_PER_WRITE", 10)
    barrier = threading.Barrier(4)

    def messages(writer: int, call: int) -> Iterator[Message]:
        for number in range(100):
            yield Message(b"%d %d %d" % (writer, call, number), attributes={"pad": "x" * 5_000})

    def write(writer: int) -> None:
        producer = SpoolProducer(settings)
        barrier.wait()
        for call in range(5):
            producer.produce(USERS, messages(writer, call))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = log_of(settings).read_bytes().splitlines()
    found = [tuple(map(int, b64decode(orjson.loads(line)["payload"]).split())) for line in lines]
    blocks = [found[start : start + 100] for start in range(0, len(found), 100)]
    for block in blocks:
        writer, call, _ = block[0]
        assert block == [(writer, call, number) for number in range(100)]
    assert sorted(block[0] for block in blocks) == [(writer, call, 0) for writer in range(4) for call in range(5)]


def test_a_producer_waits_for_one_in_another_process(settings: Settings) -> None:
    script = """
import sys
from pathlib import Path
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from common.settings import Settings
from common.streams import STREAMS

def messages():
    sys.stdout.write("locked\\n")
    sys.stdout.flush()
    sys.stdin.read()
    yield Message(b"first")

SpoolProducer(Settings(_env_file=None, spool_path=Path(sys.argv[1]))).produce(STREAMS["users"], messages())
"""
    command = [sys.executable, "-c", script, str(settings.spool_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        second = threading.Thread(target=SpoolProducer(settings).produce, args=(USERS, [Message(b"second")]))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert log_of(settings).read_bytes() == b""
        other.communicate("")
    second.join()
    lines = log_of(settings).read_bytes().splitlines()
    assert [orjson.loads(line)["payload"] for line in lines] == ["Zmlyc3Q=", "c2Vjb25k"]


def test_an_error_of_writing_names_the_spool(settings: Settings) -> None:
    settings.spool_path.write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*users.*; see SPOOL_PATH"):
        SpoolProducer(settings).produce(USERS, [Message(b"x")])


def test_a_full_disk_is_reported_and_leaves_no_incomplete_line(settings: Settings) -> None:
    """A limit on the file size has the effect of a full disk: a write fails after a part of it."""
    script = """
import resource, signal, sys
from pathlib import Path
from common.errors import UserError
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from common.settings import Settings
from common.streams import STREAMS

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
try:
    SpoolProducer(Settings(_env_file=None, spool_path=Path(sys.argv[1]))).produce(
        STREAMS["users"], [Message(b"x" * 100)] * 100
    )
except UserError as error:
    sys.exit(str(error))
"""
    command = [sys.executable, "-c", script, str(settings.spool_path)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "File too large; see SPOOL_PATH" in result.stderr
    assert result.stderr.count("\n") == 1
    assert log_of(settings).stat().st_size == 5_000
    SpoolProducer(settings).produce(USERS, [Message(b"x")])
    for line in log_of(settings).read_bytes().splitlines():
        orjson.loads(line)
