"""Reads a sample of messages, and infers what fields they have: the first half of `python -m ingest stream add`."""

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from ipaddress import ip_address
from itertools import islice
from typing import Any, Literal, NoReturn

from common.errors import UserError
from common.settings import Settings
from common.streams import PATH, Stream, Transport
from ingest.files import find_files, read_bodies
from ingest.formats import Decoder
from ingest.sources import Source, open_sources

SAMPLE_MESSAGES = 5_000
"""Maximum messages of a sample."""
SAMPLE_BYTES = 64 * 1024 * 1024
"""A sample ends after this many bytes, to bound memory."""
MOST_KEYS = 100
"""An object inside a body with more keys than this is a map, such as one of counts by user, and stays JSON."""
DEEPEST = 6
"""Objects nested deeper than this stay JSON."""
NULLS = {"null", "NULL", "None", "N/A", "n/a", "nan", "NaN", "\\N", "(null)", "(not set)", "undefined"}
"""What programs write for no value. Not NA: it is Namibia."""
TYPES_OF_ONE = 20
"""Maximum number of values of a field that tells the types of events apart."""


class _Number(str):
    """A number of a JSON text, as it is written."""

    __slots__ = ()


@dataclass
class Sample:
    """Messages that were read, each body once: a body that comes again, byte for byte, tells nothing new."""

    origin: str
    """Where they come from, for people."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    """The Kafka message key of each body; None in files."""
    read: int = 0
    unreadable: int = 0
    """Number of messages that are not JSON objects."""
    is_all: bool = True
    """Whether there was no more to read."""
    format: str = "json"
    """How the messages are written; see `Stream.format`."""
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
            fields = json.loads(body.decode(), parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
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
    """Read a sample of files, of several a part of each.

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
    # Neither the topic nor the name of a log needs to be a valid name of a stream.
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
            "kafka_group_id": f"{settings.kafka_group_id}-sample-{uuid.uuid4().hex}",  # takes no partition of a loader
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
    """The bodies and keys of all messages that wait."""
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
    """A CloudEvent in binary mode, whose attributes are Kafka headers, as a contract reads it; other bodies as they
    are."""
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


# -- fields -----------------------------------------------------------------------------------------------------------

FieldType = Literal["string", "id", "integer", "amount", "boolean", "timestamp", "json"]


@dataclass(frozen=True)
class SampledField:
    """A field that the messages have."""

    path: str
    present: int
    """Number of messages in which it has a value."""
    texts: tuple[str, ...]
    """Its values, as text."""
    type: FieldType
    unit: str | None = None
    format: str | None = None
    guess: str = ""
    """Why the type is a guess; empty where it is plain."""
    nulls: tuple[str, ...] = ()
    """Texts for no value that it has, such as `null`; they are not among its values."""
    looks_personal: str = ""
    """What its values look like, such as e-mail addresses."""

    @property
    def words(self) -> list[str]:
        return snake_case(self.path).split("_")

    @property
    def is_unique(self) -> bool:
        return 0 < self.present == len(set(self.texts))


@dataclass
class _Node:
    """What was seen at one path."""

    objects: int = 0
    others: int = 0
    """Number of lists, and of objects that stay JSON."""
    texts: list[str] = field(default_factory=list)
    strings: int = 0
    inner: dict[str, "_Node"] = field(default_factory=dict)
    is_map: bool = False

    @property
    def present(self) -> int:
        return self.objects + self.others + len(self.texts)

    def add(self, value: Any, depth: int = 0) -> None:
        if isinstance(value, dict) and depth <= DEEPEST:
            self.objects += 1
            for name, inner in () if self.is_map else value.items():
                self.inner.setdefault(name, _Node()).add(inner, depth + 1)
            if depth and len(self.inner) > MOST_KEYS:
                self.is_map = True
                self.inner.clear()
        elif isinstance(value, dict | list):
            self.others += 1
        elif isinstance(value, bool):
            self.texts.append("true" if value else "false")
        elif isinstance(value, str) and value:
            self.strings += not isinstance(value, _Number) and value not in NULLS
            self.texts.append(str(value))


def infer_fields(bodies: Iterable[dict[str, Any]]) -> tuple[list[SampledField], list[str]]:
    """Infer the fields of bodies, in the order in which they appear; and the paths that no contract can name."""
    root = _Node()
    for body in bodies:
        root.add(body)
    left_out: list[str] = []
    return list(_fields("", root, left_out)), left_out


def _fields(prefix: str, node: _Node, left_out: list[str]) -> Iterator[SampledField]:
    names: dict[str, str] = {}
    for name, inner in node.inner.items():  # a contract reads one of two names that differ in case only
        other = names.get(name.lower())
        if other is None or inner.present > node.inner[other].present:
            names[name.lower()] = name
    for name, inner in node.inner.items():
        path = f"{prefix}{name}"
        if names[name.lower()] != name:
            left_out.append(f"{path} (differs from {names[name.lower()]} in case only)")
        elif not PATH.fullmatch(name) or "." in name or "[" in name:
            left_out.append(f"{path} (a path has only ASCII letters, digits, spaces and _@$:/-)")
        elif inner.inner and not inner.is_map and not inner.others and not inner.texts:
            yield from _fields(f"{path}.", inner, left_out)
        else:
            yield _field(path, inner)


def _field(path: str, node: _Node) -> SampledField:
    texts = tuple(text for text in node.texts if text not in NULLS)
    nulls = tuple(dict.fromkeys(text for text in node.texts if text in NULLS))
    found = SampledField(path, node.present - len(node.texts) + len(texts), texts, "string", nulls=nulls)
    if node.objects or node.others:
        guess = "objects of many keys" if node.is_map else "lists, or objects and other values" if node.texts else ""
        return replace(found, type="json", guess=guess)
    if not texts:
        kind: FieldType = "timestamp" if found.words[-1] == "at" else "boolean" if "is" in found.words[:1] else "string"
        return replace(found, type=kind, guess="no message of the sample has a value")
    typed = _typed(found)
    if typed.type in ("integer", "amount", "boolean") and node.strings and not typed.guess:
        typed = replace(typed, guess=f"all of {len(texts):,} texts could be this")
    return replace(typed, looks_personal=looks_personal(texts))


DIGITS_AS_TEXT = {"zip", "zipcode", "postal", "postcode", "code", "phone", "mobile", "isbn", "ean", "sku", "number"}
"""Words in the names of fields whose digits are no number, even without a zero at the beginning."""
ID_WORDS = {"id", "ids", "uuid", "guid"}
TIME_WORDS = {"at", "time", "timestamp", "ts", "date", "datetime", "dtm", "when", "ms", "millis", "occurred", "occured"}
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?( UTC|Z|[+-]\d\d(:?\d\d)?)?)?")
DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y.%m.%d")
FORMATS = (*(f"{day}{time}" for day in DAYS for time in (" %H:%M:%S", " %H:%M", "")), "%Y-%m-%d %H:%M:%S %z")
DIGIT_FORMATS = ("%Y%m%d%H%M%S", "%Y%m%d")
"""Formats that are digits alone: only a field that is named like a time has them."""
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", re.ASCII)
MOST = 0.95
"""Share of the values that tell the type, if not all do."""
UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000}
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800
"""2000 to 2100."""


def _typed(found: SampledField) -> SampledField:
    if found.words[-1] in ID_WORDS or all(map(_is_uuid, found.texts)):
        return replace(found, type="id")
    if all(text.lower() in ("true", "false") for text in found.texts):
        return replace(found, type="boolean")
    return _as_time(found) or _as_number(found) or _as_most(found) or found


def _as_most(found: SampledField) -> SampledField | None:
    """The type that nearly all values have: staging rejects messages with the others. Of a field that is named like a
    time, more than half of the values are enough."""
    share = MOST
    times = [text for text in found.texts if ISO_TIME.fullmatch(text) and _parses(text)]
    if _is_named_time(found):
        share = 0.5
        formats = {one: [text for text in found.texts if _fits_format([text], one)] for one in FORMATS}
        times = max(times, *formats.values(), key=len)
    for texts in (times, [text for text in found.texts if NUMBER.fullmatch(text)]):
        if share * len(found.texts) < len(texts) < len(found.texts):
            typed = _typed(replace(found, texts=tuple(texts)))
            if typed.type != "string":
                rejected = (
                    f"{len(found.texts) - len(texts):,} of {len(found.texts):,} values do not fit and are rejected"
                )
                return replace(typed, texts=found.texts, guess=rejected)
        share = MOST
    return None


def _is_named_time(found: SampledField) -> bool:
    return not TIME_WORDS.isdisjoint(found.words)


def _as_time(found: SampledField) -> SampledField | None:
    texts = found.texts
    if all(ISO_TIME.fullmatch(text) and _parses(text) for text in texts):
        return replace(found, type="timestamp")
    is_named_time = _is_named_time(found)
    formats = [one for one in (*FORMATS, *(DIGIT_FORMATS if is_named_time else ())) if _fits_format(texts, one)]
    if formats:
        guess = f"or is it {formats[1]}?" if len(formats) > 1 else f"all of {len(texts):,} fit the format"
        return replace(found, type="timestamp", format=formats[0], guess=guess)
    if is_named_time and all(re.fullmatch(r"[0-9]{9,16}", text) for text in texts):
        for unit, factor in UNITS.items():
            if all(FIRST_SECOND * factor <= int(text) < LAST_SECOND * factor for text in texts):
                return replace(found, type="timestamp", unit=unit, guess=f"as {unit} they are of 2000 to 2100")
    return None


def _as_number(found: SampledField) -> SampledField | None:
    texts = found.texts
    if not all(NUMBER.fullmatch(text) for text in texts):
        return None
    is_whole = all(text.lstrip("-").isdigit() for text in texts)
    numbers = [Decimal(text) for text in texts]
    guess = ""
    if is_whole and (not DIGITS_AS_TEXT.isdisjoint(found.words) or any(re.match(r"-?0[0-9]", text) for text in texts)):
        guess = "digits, but hardly a number to count with"
    elif any(abs(number) >= (2**63 if is_whole else 10**14) for number in numbers):
        guess = "numbers too large for the types integer and amount"
    elif any(int(number.normalize().as_tuple().exponent) < -4 for number in numbers):
        guess = "numbers of more than four decimals, which the type amount rounds"
    if guess:
        return replace(found, guess=guess)
    return replace(found, type="integer" if is_whole else "amount")


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None


def _parses(text: str) -> bool:
    try:
        datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return False
    return True


def _fits_format(texts: Iterable[str], time_format: str) -> bool:
    try:  # strptime takes 1.2.2024 too
        return all(datetime.strptime(text, time_format).strftime(time_format) == text for text in texts)  # noqa: DTZ007
    except ValueError:
        return False


def looks_personal(texts: Sequence[str]) -> str:
    """What most of the values look like, such as e-mail addresses; empty where they look like nothing personal."""
    looked_at = texts[:100]
    for what, looks in (("e-mail addresses", _is_email), ("IP addresses", _is_ip), ("phone numbers", _is_phone)):
        if 2 * sum(map(looks, looked_at)) > len(looked_at):
            return what
    return ""


def _is_email(text: str) -> bool:
    return re.fullmatch(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}", text) is not None


def _is_ip(text: str) -> bool:
    with suppress(ValueError):
        return ("." in text or ":" in text) and bool(ip_address(text))
    return False


def _is_phone(text: str) -> bool:
    return re.fullmatch(r"\+[0-9]([ ()/.-]*[0-9]){6,14}", text) is not None


def snake_case(name: str) -> str:
    """A name in small letters with _ between words: `IPAddress` and `props.userId` are ip_address and props_user_id."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
