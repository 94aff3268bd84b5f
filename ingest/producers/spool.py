"""Appends messages to the spool: one NDJSON envelope per line, read back by `ingest.sources.spool`.

The first line of a log begins with a random id, by which a reader recognises that a log was replaced by another.
"""

import fcntl
import os
import uuid
from binascii import b2a_base64
from collections.abc import Iterable
from itertools import islice
from typing import Self

import orjson

from common.errors import write_error
from common.settings import Settings
from common.streams import Stream
from ingest.message import Message

PARTITION = 0
LINES_PER_WRITE = 10_000


def envelope(message: Message) -> dict[str, object]:
    """Return the fields that a broker would transport, with bytes in base64."""
    return {
        "key": None if message.key is None else b2a_base64(message.key, newline=False).decode(),
        "attributes": message.attributes,
        "published_at": message.published_at,
        "payload": None if message.payload is None else b2a_base64(message.payload, newline=False).decode(),
    }


class SpoolProducer:
    """Appends under a file lock, so that two producers never interleave lines."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.spool_path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def produce(self, stream: Stream, messages: Iterable[Message]) -> int:
        """Append messages; returns their number.

        Raises:
            UserError: if the log cannot be written; UnavailableError while the disk is full.
        """
        path = self._root / stream.name / f"{PARTITION}.ndjson"
        published = 0
        remaining = iter(messages)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            log = path.open("a+b", buffering=0)
        except OSError as error:
            raise write_error(path, error, "SPOOL_PATH") from error
        with log:
            fcntl.flock(log, fcntl.LOCK_EX)
            is_new = _drop_torn_line(log.fileno()) == 0
            while lines := [
                orjson.dumps(envelope(message), option=orjson.OPT_APPEND_NEWLINE)
                for message in islice(remaining, LINES_PER_WRITE)
            ]:
                if is_new:
                    lines[0] = b'{"log_id":"%s",%s' % (uuid.uuid4().hex.encode(), lines[0].removeprefix(b"{"))
                    is_new = False
                unwritten = memoryview(b"".join(lines))
                try:
                    while unwritten:
                        unwritten = unwritten[log.write(unwritten) :]
                except OSError as error:  # such as a full disk
                    raise write_error(path, error, "SPOOL_PATH") from error
                published += len(lines)
        return published

    def flush(self) -> None:
        """Do nothing, since `produce` writes to the log at once."""


def _drop_torn_line(log: int) -> int:
    """Remove an incomplete last line, which a killed producer left and no reader has read. Returns the new size."""
    size = os.fstat(log).st_size
    end = size
    while end and os.pread(log, 1, end - 1) != b"\n":
        start = max(0, end - 65536)
        newline = os.pread(log, end - start, start).rfind(b"\n")
        end = start + newline + 1 if newline >= 0 else start
    if end < size:
        os.ftruncate(log, end)
    return end
