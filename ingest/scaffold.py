"""Writes contracts: `python -m ingest stream add` from a sample, `stream promote` one more field."""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any, Literal

import yaml

from common.errors import UserError
from common.streams import (
    FOLDER,
    NAME,
    OWN_COLUMNS,
    OWN_PREFIXES,
    PATH,
    RESERVED,
    VOCABULARY,
    BodyField,
    Stream,
    Transport,
    read_contracts,
)
from engines.warehouse import UnlistedField
from ingest.samples import (
    ID_WORDS,
    NUMBER,
    TYPES_OF_ONE,
    Sample,
    SampledField,
    infer_fields,
    looks_personal,
    snake_case,
)

FEW = 100
"""With fewer messages, that a field is in all of them means little."""
SHOWN_PATHS = 20
"""Maximum paths that a comment lists."""
SHOWN_CLOSE = 5
"""Maximum paths that an error lists."""

EVENT_TIMES = (
    "event_time event_at event_timestamp event_timestamp_ms occurred_at happened_at datetime_occured timestamp time ts"
    " at created_at datetime sent_at received_at date"
)
"""Names of the time of an event, best first."""
VERSION_TIMES = "updated_at modified_at changed_at last_modified last_updated updated modified ts_ms version_at"
"""Names of the time of an entity's version, best first."""
EVENT_TYPES = "event_type event_name event type action kind"
"""Names of a field that tells the types of events apart, best first."""
OTHER_TIMES = {"updated", "modified", "deleted", "expires", "expired", "birth", "ends", "scheduled"}
"""Words in the names of times that are not when something happened."""
THINGS = "user customer account person member visitor device session anonymous client product item post page"
"""What an event is about: the id of one of these is not the id of the event, even if a sample has each once."""
PERSONAL = "email mail phone mobile ip address street ssn iban passport birthday birthdate dob fax surname"
ABOUT_THE_ENVELOPE = ("specversion", "datacontenttype", "dataschema")
"""Attributes of CloudEvents that say nothing of the event."""
NAMES_OF_PEOPLE = "first last middle full given family maiden nick user customer person contact"
"""Words before `name` in the names of fields that name people."""


@dataclass(frozen=True)
class Written:
    """A contract that was written."""

    path: Path
    fields: int
    guesses: int
    """Number of comments that say what was guessed."""
    left_out: list[str]
    """Paths that are no fields, each with the reason."""


def add_stream(
    name: str,
    sample: Sample,
    *,
    transport: Transport = "kafka",
    topic: str | None = None,
    is_entity: bool = False,
    force: bool = False,
    folder: Path = FOLDER,
) -> Written:
    """Write the contract of a new stream, with a comment wherever it is guessed.

    Args:
        name: The name of the stream and of the file.
        sample: Messages of it.
        transport: How it arrives.
        topic: The topic, if it is not called like the stream.
        is_entity: The messages are versions of things, not events.
        force: Replace a file that exists.
        folder: Where contracts are.

    Raises:
        UserError: for a name that a stream cannot have, a file that exists, and a sample without what a contract needs.
    """
    path = new_file(name, folder=folder, force=force)
    draft = _Draft(name, sample, transport, topic, is_entity)
    text = draft.text()
    fields = _validated(path, text)
    path.write_text(text, encoding="utf-8")
    return Written(path, fields, text.count("# guessed:"), draft.left_out)


def new_file(name: str, *, folder: Path = FOLDER, force: bool = False) -> Path:
    """Return the file of a new contract.

    Raises:
        UserError: for a name that a stream cannot have, or a file that exists.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a stream: use lowercase letters, digits and _, such as signups")
    if name in RESERVED.split():
        raise UserError(f"{name} cannot name a stream: it is a reserved word of SQL; use {name}_events")
    path = folder / f"{name}.yml"
    if path.exists() and not force:
        raise UserError(f"{folder.name}/{name}.yml exists; --force replaces it")
    return path


def _validated(path: Path, text: str) -> int:
    """Read a contract back, beside the others, before it is written; returns the number of its fields."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / path.parent.name  # which an error names
        folder.mkdir()
        for other in path.parent.glob("*.yml"):
            shutil.copy(other, folder)
        (folder / path.name).write_text(text, encoding="utf-8")
        return len(read_contracts(folder)[path.stem].fields)


# -- add --------------------------------------------------------------------------------------------------------------


@dataclass
class _Line:
    """A field of the contract."""

    field: SampledField
    name: str
    guesses: list[str]
    personal: Literal["drop", "hash"] | None = None

    @property
    def path(self) -> str:
        return self.field.path


Choice = tuple[Any, str]
"""A value of the contract, and why it is a guess."""


class _Draft:
    """A contract in the making."""

    def __init__(self, name: str, sample: Sample, transport: Transport, topic: str | None, is_entity: bool) -> None:
        self._name = name
        self._singular = singular(name)
        self._sample = sample
        self._transport = transport
        self._topic = topic
        self._envelope = _envelope(sample.bodies)
        bodies = sample.bodies
        if self._envelope == "debezium":
            bodies = [_row(body) for body in bodies]
        elif self._envelope == "cloudevents":
            bodies = [{name: body[name] for name in body if name not in ABOUT_THE_ENVELOPE} for body in bodies]
        self._is_entity = is_entity or self._envelope == "debezium"
        self._messages = len(bodies)
        fields, self.left_out = infer_fields(bodies)
        if not fields:
            raise UserError(f"{sample.origin}: the messages have no field that a contract can name")
        self._lines = [_Line(one, self._base_name(one.path), [one.guess] if one.guess else []) for one in fields]
        self._contract: dict[str, Choice] = {}
        self._judged: set[str] = set()
        """Paths that make a message what it is; they cannot be personal."""
        self._exempt: set[str] = set()
        """Paths whose columns staging names itself."""

    def text(self) -> str:
        """Return the file."""
        self._name_by_vocabulary()
        self._choose()
        self._mark_personal()
        self._make_valid()
        return "\n".join([*self._header(), *self._keys(), *self._field_lines(), ""])

    def _base_name(self, path: str) -> str:
        if self._envelope == "cloudevents":
            path = path.removeprefix("data.")
        return snake_case(path)

    def _name_by_vocabulary(self) -> None:
        """Give an inner field the column of fct_events that it is named after, unless another has it."""
        last = [snake_case(line.path.rpartition(".")[2]) for line in self._lines]
        names = {line.name for line in self._lines}
        for line, name in zip(self._lines, last, strict=True):
            is_one = name in VOCABULARY and name not in names and last.count(name) == 1
            if "." in line.path and is_one and line.field.type != "json":
                line.guesses.append(f"{name} of fct_events by its name")
                line.name = name

    # -- what the messages are ----------------------------------------------------------------------------------------

    def _choose(self) -> None:
        contract = self._contract
        contract["description"] = (sentence(self._name), "")
        contract["transport"] = (self._transport, "")
        if self._topic not in (None, self._name):
            contract["topic"] = (self._topic, "")
        if self._sample.format != "json":
            contract["format"] = (self._sample.format, "")
        key = self._entity_key() if self._is_entity else self._event_key()
        if key:
            contract["key"] = key
        if self._envelope:
            contract["envelope"] = (self._envelope, "the messages have the fields of one")
        contract["kind"] = ("entity" if self._is_entity else "event", "")
        if self._is_entity:
            self._judged |= {key[0]} if key else set()
            self._choose_versions()
        else:
            self._choose_event()
        if nulls := list(dict.fromkeys(text for line in self._lines for text in line.field.nulls)):
            contract["nulls"] = (nulls, "texts that mean no value")

    def _choose_event(self) -> None:
        event_id = self._event_id()
        if event_id:
            self._contract["id"] = event_id
        self._contract["event_type"] = self._event_type()
        self._contract["time"] = self._time(EVENT_TIMES.split(), "an event needs one")
        chosen = {*self._contract["time"][0], *(event_id[0] if event_id else [])}
        if isinstance(of_type := self._contract["event_type"][0], dict):
            chosen.add(of_type["field"])
        self._judged |= chosen
        self._exempt |= chosen - set(event_id[0][1:] if event_id else [])

    def _choose_versions(self) -> None:
        created = next((line.path for line in self._lines if self._is(line, "created_at", "timestamp")), None)
        deleted = [*(line.path for line in self._lines if self._is(line, "deleted_at", "timestamp"))] + [
            line.path for line in self._lines if line.name in ("deleted", "is_deleted") and self._is_boolean(line)
        ]
        # Debezium's changes have times of their own
        if self._envelope != "debezium" or any(line.name in VERSION_TIMES.split() for line in self._times()):
            self._contract["time"] = self._time(
                VERSION_TIMES.split(), "an entity needs one of when a version came to be"
            )
        if created:
            self._contract["created"] = (created, "by its name")
        if deleted:
            self._contract["deleted"] = (deleted, "by its name")
        chosen = {*self._contract.get("time", ([], ""))[0], *deleted, *([created] if created else [])}
        self._judged |= chosen
        self._exempt |= chosen

    @staticmethod
    def _is(line: _Line, name: str, kind: str) -> bool:
        return line.name == name and line.field.type == kind

    @staticmethod
    def _is_boolean(line: _Line) -> bool:
        """Whether it is one; what no message has a value of becomes one."""
        if line.field.type == "string" and not line.field.texts:
            line.field = replace(line.field, type="boolean")
        return line.field.type == "boolean"

    def _is_in_all(self, line: _Line) -> bool:
        return line.field.present == self._messages

    def _ids(self) -> tuple[list[_Line], list[_Line]]:
        """The fields that are named after the event or entity, best first, and others that are named like an id."""
        thing = self._singular.rpartition("_")[2]
        names = (f"{self._singular}_id", f"{thing}_id", "event_id", "id", "message_id", f"{thing}_uuid", "uuid")
        lines = [line for line in self._lines if line.field.type != "json"]
        own = [line for name in dict.fromkeys(names) for line in lines if line.name == name]
        others = [line for line in lines if line.name.rpartition("_")[2] in ID_WORDS and line not in own]
        return own, others

    def _event_id(self) -> Choice | None:
        own, others = self._ids()
        everywhere = [line for line in own if self._is_in_all(line)]
        number = _messages(self._messages)
        for line in everywhere:
            if line.field.is_unique:
                return [self._as_id(line).path], f"each of {number} has another"
        for line in everywhere:
            for other in others:
                pairs = set(zip(line.field.texts, other.field.texts, strict=False))
                if self._is_in_all(other) and len(pairs) == self._messages:
                    return [self._as_id(line).path, other.path], f"each of {number} has another pair of these"
        for line in others if self._messages > 1 else ():
            is_of_other = not set(THINGS.split()).isdisjoint(line.name.split("_"))
            if self._is_in_all(line) and line.field.is_unique and not is_of_other:
                return [self._as_id(line).path], f"each of {number} has another"
        for line in own:
            if line.field.is_unique:
                return [self._as_id(line).path], f"{line.field.present:,} of {number} have one, each another"
        return None

    @staticmethod
    def _as_id(line: _Line) -> _Line:
        line.field = replace(line.field, type="id", unit=None, format=None)
        return line

    def _event_key(self) -> Choice | None:
        """The field that is the Kafka message key, as far as the sample has keys; in files, often the person."""
        if self._transport != "kafka":
            return None
        keys = [key.decode(errors="replace") for key in self._sample.keys if key is not None]
        if keys:
            for line in self._lines:
                if line.field.texts == tuple(keys) and line.field.type != "json":
                    return line.path, "" if len(keys) >= FEW else f"the keys of {_messages(len(keys))} are its values"
            return None
        for line in sorted(self._lines, key=lambda line: line.path != line.name):
            if line.name == "user_id" and line.field.type != "json":
                return line.path, "a file does not tell the message keys"
        return None

    def _entity_key(self) -> Choice:
        own, others = self._ids()
        for line in (*own, *others):
            if self._is_in_all(line):
                return self._as_id(line).path, "by its name"
        raise UserError(
            f"{self._sample.origin}: an entity needs a key, but no field that is named like an id, such as"
            f" {self._singular}_id, has a value in all messages; fields: {self._found()}"
        )

    def _event_type(self) -> Choice:
        for name in EVENT_TYPES.split():
            for line in self._lines:
                if line.name != name or line.field.type != "string" or not self._is_in_all(line):
                    continue
                values = sorted(set(line.field.texts))
                if len(values) <= TYPES_OF_ONE and max(map(len, values)) <= 64:
                    kinds = {"field": line.path, "values": {value: value for value in values}, "others": "keep"}
                    return kinds, "the values of the sample; others: reject makes dead letters of other values"
        return self._singular, "by the name of the stream"

    def _times(self) -> list[_Line]:
        return [line for line in self._lines if line.field.type == "timestamp" and line.field.texts]

    def _time(self, names: Sequence[str], need: str) -> Choice:
        ranks = {name: float(rank) for rank, name in enumerate(dict.fromkeys([*names, *EVENT_TIMES.split()]))}
        # signed_up_at says more than created_at
        verb = ranks["created_at"] - 0.5

        def rank(line: _Line) -> tuple[bool, float]:
            last = snake_case(line.path.rpartition(".")[2])
            is_verb = last.endswith("_at") and OTHER_TIMES.isdisjoint(last.split("_"))
            return not self._is_in_all(line), ranks.get(line.name, ranks.get(last, verb if is_verb else len(ranks)))

        if not (found := sorted(self._times(), key=rank)):
            raise UserError(
                f"{self._sample.origin}: no field looks like a time (ISO 8601, a date such as 31.12.2025, or a number"
                f" since 1970 in a field whose name says so), and {need}; fields: {self._found()}"
            )
        if missing := self._messages - found[0].field.present:
            found[0].guesses.append(f"{missing:,} of {_messages(self._messages)} have no time and are rejected")
        others = f"; other times: {', '.join(line.path for line in found[1:4])}" if found[1:] else ""
        return [found[0].path], f"by its name and values{others}"

    def _found(self) -> str:
        more = ", ..." if len(self._lines) > SHOWN_PATHS else ""
        return f"{', '.join(line.path for line in self._lines[:SHOWN_PATHS])}{more}"

    # -- fields -------------------------------------------------------------------------------------------------------

    def _mark_personal(self) -> None:
        for line in self._lines:
            why = why_personal(line.name, line.field.looks_personal)
            if not why or line.path in self._judged or line.field.type == "boolean":
                continue
            can_hash = line.name in VOCABULARY and line.field.type in ("string", "id")
            line.personal = "hash" if can_hash else "drop"
            line.guesses.append(f"personal by {why}")

    def _make_valid(self) -> None:
        """Give each field a name and a type that a contract takes."""
        reserved = reserved_names("entity" if self._is_entity else "event")
        for line in self._lines:
            self._fit_vocabulary(line)
        taken: set[str] = set()
        # names that stay as they are come first
        for line in sorted(self._lines, key=lambda line: (line.path not in self._judged, line.path != line.name)):
            is_reserved = line.name in reserved and line.path not in self._exempt
            line.name = valid_name(line.name, taken, is_reserved=is_reserved)
            taken.add(line.name)

    @staticmethod
    def _fit_vocabulary(line: _Line) -> None:
        kind, column = line.field.type, VOCABULARY.get(line.name)
        if column == "text" and kind in ("integer", "amount", "boolean", "timestamp"):
            line.field = replace(line.field, type="string", unit=None, format=None)
            line.guesses = []
        elif column == "amount" and all(map(NUMBER.fullmatch, line.field.texts)) and kind != "json":
            line.field = replace(line.field, type="amount", unit=None, format=None)
        elif column == "amount" or (column == "text" and kind == "json"):
            line.guesses.append(f"not {line.name} of fct_events, which is {column}")
            line.name = f"body_{line.name}"

    # -- the file -----------------------------------------------------------------------------------------------------

    def _header(self) -> Iterator[str]:
        sample = self._sample
        yield f"# From {'' if sample.is_all else 'the first '}{_messages(sample.read)} of {_printable(sample.origin)}."
        yield "# `# guessed` marks what to check; `stream check` reports what the contract rejects."
        if sample.unreadable:
            yield f"# {sample.unreadable:,} of them are not JSON objects; staging makes dead letters of such messages."
        if self.left_out:
            yield f"# Left out: {shown_paths(self.left_out)}."

    def _keys(self) -> Iterator[str]:
        for key, (value, guess) in self._contract.items():
            comment = _comment([guess] if guess else [])
            if isinstance(value, dict):
                yield f"{key}:{comment}"
                yield from (f"  {inner}: {_yaml(one)}" for inner, one in value.items())
            else:
                yield f"{key}: {_yaml(value)}{comment}"
        if self._contract["kind"][0] == "event" and "id" not in self._contract:
            yield "# guessed: no field identifies an event, so its content does; id: [FIELD] names one that does."

    def _field_lines(self) -> Iterator[str]:
        few = [f"required is what {_messages(self._messages)} have, which are few"] if self._messages < FEW else []
        yield f"fields:{_comment(few)}"
        required = {*self._contract.get("time", ([], ""))[0][: 0 if self._is_entity else 1]}
        for line in self._lines:
            field = line.field
            values: Mapping[str, Any] = {
                "name": line.name,
                "path": line.path if line.path != line.name else None,
                "type": field.type if field.type != "string" else None,
                "unit": field.unit,
                "format": field.format,
                "required": True if self._is_in_all(line) or line.path in required else None,
                "personal": line.personal,
                "description": sentence(self._base_name(line.path)),
            }
            entries = [f"{key}: {_yaml(value)}" for key, value in values.items() if value is not None]
            yield f"  - {entries[0]}{_comment(line.guesses)}"
            yield from (f"    {entry}" for entry in entries[1:])


def _envelope(bodies: Sequence[Mapping[str, Any]]) -> Literal["debezium", "cloudevents"] | None:
    if all({"specversion", "type", "source", "id", "time"} <= body.keys() for body in bodies):
        return "cloudevents"
    if all(_row(body) or _change(body).get("op") == "d" for body in bodies) and any(map(_row, bodies)):
        return "debezium"
    return None


def _change(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The change in a message of Debezium, with or without its schema."""
    return body["payload"] if isinstance(body.get("payload"), dict) else body


def _row(body: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a change as Debezium writes it; empty where there is none."""
    change = _change(body)
    row = change.get("after") or change.get("before")
    return row if change.get("op") in ("c", "u", "r", "d") and isinstance(row, dict) else {}


def singular(name: str) -> str:
    """What one of a stream's messages is called: page_view of page_views."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith(("sses", "xes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name


def reserved_names(kind: Literal["event", "entity"]) -> set[str]:
    """Names that fields cannot have, unless they are the time, the type or the id."""
    return {*RESERVED.split(), *OWN_COLUMNS[kind].split()}


def valid_name(name: str, taken: Collection[str], *, is_reserved: bool) -> str:
    """A name that a field can have, with body_ before one that is reserved, and a number after one that is taken."""
    name = name[:55].rstrip("_")
    if is_reserved or name.startswith(OWN_PREFIXES) or not re.match("[a-z]", name):
        name = f"body_{name}".rstrip("_")
    numbered = (name if number == 1 else f"{name}_{number}" for number in count(1))
    return next(one for one in numbered if one not in taken)


def sentence(name: str) -> str:
    """A name as a description: `Signed up at.`"""
    text = name.strip("_").replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}."


def why_personal(name: str, looks: str) -> str:
    """By what a field seems to be personal; empty if it does not.

    Args:
        name: In snake case.
        looks: What its values look like; see `ingest.samples.looks_personal`.
    """
    words = name.split("_")
    is_name = words[-1] == "name" and (words == ["name"] or not set(NAMES_OF_PEOPLE.split()).isdisjoint(words))
    if looks:
        return f"values that look like {looks}"
    return "its name" if is_name or not set(PERSONAL.split()).isdisjoint(words) else ""


def shown_paths(paths: Sequence[str]) -> str:
    """The first of some paths, on one line."""
    more = f" and {len(paths) - SHOWN_PATHS:,} more" if len(paths) > SHOWN_PATHS else ""
    return f"{_printable(', '.join(path[:100] for path in paths[:SHOWN_PATHS]))}{more}"


def _yaml(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    return str(text).removesuffix("\n").removesuffix("\n...").strip()


def _messages(number: int) -> str:
    return f"{number:,} message{'' if number == 1 else 's'}"


def _comment(guesses: Sequence[str]) -> str:
    return f"  # guessed: {_printable('; '.join(guesses))}" if guesses else ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


# -- promote ----------------------------------------------------------------------------------------------------------


MOST_UNLISTED = 20
"""Staging tells at most so many unlisted fields of one message."""
UNLISTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_:$-]{0,62}")
"""Staging does not tell fields of other names, which may be values."""


@dataclass(frozen=True)
class Promoted:
    """A field that was added to a contract."""

    name: str
    type: str
    personal: str
    """By what it seems to be personal, so that it is dropped; empty if it does not."""


def promote_field(
    name: str,
    path: str,
    kind: str | None = None,
    *,
    seen: Sequence[UnlistedField] | None = None,
    folder: Path = FOLDER,
) -> Promoted:
    """Append a field to a contract, whose text and comments stay as they are. One that looks personal is dropped at
    staging.

    Args:
        name: The stream.
        path: Where the field is in the body, such as `props.ref`.
        kind: Its type; without it, one that takes all values that were seen.
        seen: The fields that landed messages have and the contract does not list; None if that is not known.
        folder: Where contracts are.

    Raises:
        UserError: for a stream, path or type that is not valid, a field that is there already, and one that no message
            has.
    """
    streams = read_contracts(folder)
    if name not in streams:
        raise UserError(f"unknown stream {name!r}; the streams are {', '.join(streams)}")
    stream = streams[name]
    for field in stream.fields:
        if path in field.paths:
            raise UserError(f"{folder.name}/{name}.yml reads {path} already, as {field.name}")
    if not PATH.fullmatch(path):
        raise UserError(
            f"{path!r} is not a path; expected names with . between them, such as props.ref or items[0].sku"
        )
    for field in stream.fields:
        _check_not_inside(f"{folder.name}/{name}.yml", field, path)
    taken = {field.name.lower() for field in stream.fields}
    is_reserved = snake_case(path) in reserved_names(stream.kind)
    field_name = valid_name(snake_case(path), taken, is_reserved=is_reserved)
    of_path = [field for field in seen or () if field.path == path]
    kind = kind or _type_of(field_name, {field.type for field in of_path})
    # digits are masked as 9, of which no part of an IP address has three
    personal = why_personal(field_name, looks_personal([field.example.replace("9", "1") for field in of_path]))
    entries = {"name": field_name, "path": path, "type": kind, "description": sentence(field_name)}
    if path == field_name:
        del entries["path"]
    if kind == "string":
        del entries["type"]
    lines = [f"{key}: {_yaml(value)}" for key, value in entries.items()]
    if personal:
        lines.insert(-1, f"personal: drop  # guessed: personal by {personal}; review it")
    file = folder / f"{name}.yml"
    text = _with_field(file, lines)
    _validated(file, text)
    if seen is not None and not of_path and _would_be_told(stream, path, seen):
        raise UserError(_unseen(name, path, seen))
    file.write_text(text, encoding="utf-8")
    return Promoted(field_name, kind, personal)


def _check_not_inside(file: str, field: BodyField, path: str) -> None:
    """Raises: UserError where one is a part of the other."""
    for known in field.paths:
        if field.type == "json" and path.startswith((f"{known}.", f"{known}[")):
            raise UserError(
                f"{file} keeps {known} as json, so {path} cannot be read too: a list or an object is kept whole or read"
                f" by paths, not both; replace the field {field.name} by fields of its parts"
            )
        if known.startswith((f"{path}.", f"{path}[")):
            raise UserError(
                f"{file} reads {known}, so {path} cannot be kept too: a list or an object is kept whole or read by"
                " paths, not both"
            )


def _type_of(name: str, seen: set[str]) -> str:
    """A type that takes all values of these JSON types: one that rejects some would make dead letters of messages that
    are accepted today."""
    if seen & {"object", "array"}:
        return "json"
    if name.rpartition("_")[2] in ID_WORDS:
        return "id"
    if name in VOCABULARY:
        return "amount" if VOCABULARY[name] == "amount" else "string"
    return {frozenset(["number"]): "amount", frozenset(["boolean"]): "boolean"}.get(frozenset(seen), "string")


def _would_be_told(stream: Stream, path: str, seen: Sequence[UnlistedField]) -> bool:
    """Whether field_drift would have the path, or what it is in, if a message had it."""
    first, *rest = (step.partition("[")[0] for step in path.split("."))
    told = ".".join([first, *rest[:1]])
    known = [*stream.ignored, *(path for field in stream.fields for path in field.paths)]
    is_inside_known = any(
        one in (first, told) or one.startswith((f"{first}[", f"{told}.", f"{told}[")) for one in known
    )
    paths = {field.path for field in seen}
    return (
        all(UNLISTED_NAME.fullmatch(step) for step in (first, *rest[:1]))
        and not is_inside_known
        and paths.isdisjoint({first, told})
        and len(paths) < MOST_UNLISTED
    )


def _unseen(name: str, path: str, seen: Sequence[UnlistedField]) -> str:
    paths = [*dict.fromkeys(field.path for field in seen)]
    close = get_close_matches(path, paths, n=SHOWN_CLOSE, cutoff=0.5) or paths[:SHOWN_CLOSE]
    others = f"the closest unlisted fields are {', '.join(close)}" if close else "the contract lists all fields"
    return f"no message of {name} had {path} in the last build; {others}"


def _with_field(file: Path, entries: Sequence[str]) -> str:
    """The text of a contract with one more field after the last."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    root: Any = yaml.compose(text, yaml.CSafeLoader)
    [fields] = [value for key, value in root.value if key.value == "fields"]
    start = fields.value[0].start_mark
    indent = lines[start.line][: start.column]
    if not re.fullmatch(r" *- +", indent):
        raise UserError(f"{file.parent.name}/{file.name}: write each of the fields on lines of its own, after - name:")
    last = fields.value[-1]
    while isinstance(last, yaml.MappingNode) and not last.flow_style:
        last = last.value[-1][1]
    end = last.end_mark.line + (last.end_mark.column > 0)  # a block of text ends at the beginning of the next line
    added = [f"{indent}{entries[0]}", *(f"{' ' * len(indent)}{entry}" for entry in entries[1:])]
    return "\n".join([*lines[:end], *added, *lines[end:], ""])
