"""Reads the sample of messages from which `python -m ingest stream add` writes a contract: files or a topic."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

from common.errors import UserError
from common.settings import Settings
from common.streams import Stream, Transport
from ingest.files import find_files, read_bodies
from ingest.formats import Decoder
from ingest.sources import Source, open_sources

SAMPLE_MESSAGES = 5_000
"""Maximum messages of a sample."""
SAMPLE_BYTES = 64 * 1024 * 1024
"""A sample ends after this many bytes, to bound memory."""


class Number(str):
    """A number, in the digits of the JSON text."""

    __slots__ = ()


@dataclass
class Sample:
    """Messages that were read. A body that is repeated, byte for byte, is kept once."""

    origin: str
    """Where the messages come from, for comments and errors."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    """The Kafka message key of each body; None in files."""
    read: int = 0
    """Number of messages read, repeated and unreadable ones included."""
    unreadable: int = 0
    """Number of messages that are not JSON objects."""
    is_all: bool = True
    """Whether the sample has all messages of its origin."""
    format: str = "json"
    """Encoding of the messages, as `Stream.format`."""
    _size: int = 0
    _known: set[bytes] = field(default_factory=set)

    def add(self, body: bytes, key: bytes | None = None) -> None:
        """Take one message."""
        self.read += 1
        self._size += len(body)
        if body in self._known:
            return
        self._known.add(body)
        try:
            fields = json.loads(body.decode(), parse_int=Number, parse_float=Number, parse_constant=_refuse)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            self.bodies.append(fields)
            self.keys.append(key)
        else:
            self.unreadable += 1

    @property
    def is_full(self) -> bool:
        return self.read >= SAMPLE_MESSAGES or self._size >= SAMPLE_BYTES


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_files(names: Sequence[str]) -> Sample:
    """Read a sample of files; of several files, an equal share of each.

    Args:
        names: Files, folders, globs, or `-` for standard input; see `ingest.files.find_files`.

    Raises:
        UserError: for a file that cannot be read, or if no message is a JSON object.
    """
    files = find_files(names)
    sample = Sample(files[0].name if len(files) == 1 else f"{len(files):,} files")
    share = max(1, SAMPLE_MESSAGES // len(files))
    for file in files:
        if sample.is_full:
            sample.is_all = False
            break
        with file.reading():
            bodies = read_bodies(file)
            for body in islice(bodies, share):
                sample.add(body)
                if sample.is_full:
                    break
            sample.is_all &= next(bodies, None) is None
    return _readable(sample)


def read_topic(settings: Settings, topic: str, transport: Transport) -> Sample:
    """Read the oldest messages of a Kafka topic, or of the spool's log of this name. Nothing is committed, so landing
    reads them again.

    Raises:
        UserError: for a topic of Pub/Sub, a broker that does not answer, or if no message is a JSON object.
    """
    # not validated: a topic or log may have a name that a stream cannot have
    stream = Stream.model_construct(
        name=topic, transport=transport, topic=topic, kind="event", description=topic, fields=()
    )
    if settings.transport(stream) == "pubsub":
        raise UserError(
            f"{topic} cannot be sampled from Pub/Sub: a pulled message is either acknowledged or delayed. Save"
            " some messages as NDJSON, and give the file with --sample"
        )
    settings = settings.model_copy(
        update={
            # its own consumer group, so that a running loader keeps its partitions
            "kafka_group_id": f"{settings.kafka_group_id}-sample-{uuid.uuid4().hex}",
            "topics": {},
            "landing_max_rows": SAMPLE_MESSAGES,
        }
    )
    sample = Sample(f"{'Kafka topic' if settings.transport(stream) == 'kafka' else 'spool log'} {topic}")
    with open_sources(settings, [stream], lambda transport, ids: {}) as [source]:
        for body, key in _fetched(source, Decoder(settings, follow=False, should_stop=lambda: False), sample):
            if sample.is_full:
                sample.is_all = False
                break
            sample.add(body, key)
    return _readable(sample)


def _fetched(source: Source, decoder: Decoder, sample: Sample) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the bodies and keys of all waiting messages."""
    while (batch := source.fetch(source.idle_timeout_seconds)) is not None:
        for table in batch.tables.values():
            if not table.num_rows:
                continue
            columns = (table["topic"][0].as_py(), table["payload"].to_pylist(), table["key"].to_pylist())
            payloads, keys, found = decoder.decode_any(*columns)
            sample.format = found if sample.format == "json" else sample.format
            for payload, key, attributes in zip(payloads, keys, table["attributes"].to_pylist(), strict=True):
                if (body := _structured(payload, attributes)) is not None:  # a tombstone has no fields
                    yield body, key
        if batch.is_end:
            return


def _structured(body: bytes | None, attributes: str | None) -> bytes | None:
    """Return a CloudEvent in binary mode, whose attributes are Kafka headers, in structured mode, and other bodies as
    they are."""
    headers = json.loads(attributes or "{}")
    event = {name.removeprefix("ce_"): value for name, value in headers.items() if name.startswith("ce_")}
    if "specversion" not in event:
        return body
    return b'%s,"data":%s}' % (json.dumps(event).encode()[:-1], body) if body else json.dumps(event).encode()


def _readable(sample: Sample) -> Sample:
    if not sample.bodies:
        found = f"none of {sample.read:,} messages is a JSON object" if sample.read else "there is no message"
        raise UserError(f"{sample.origin}: {found}, so there is nothing to infer fields from")
    return sample
