"""Guesses from a sample what the messages of a new stream are: their id, key, type and time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from common.console import count
from common.errors import UserError
from common.streams import Transport
from contracts.envelopes import guess_envelope, unwrap
from contracts.field_types import ID_WORDS
from contracts.inference import infer_fields
from contracts.lines import Line, make_valid, mark_personal, name_by_vocabulary
from contracts.names import sentence, singular, snake_case
from contracts.samples import Sample

FEW = 100
"""With fewer messages, it means little that all of them have a field."""
SHOWN_PATHS = 20
"""Maximum paths that a comment or an error lists."""
MOST_EVENT_TYPES = 20
"""Maximum number of values of a field that holds the type of an event."""
MOST_CHARACTERS = 64
"""Maximum length of such a value."""

EVENT_TIMES = (
    "event_time event_at event_timestamp event_timestamp_ms occurred_at happened_at datetime_occured timestamp time ts"
    " at created_at datetime sent_at received_at date"
)
"""Names of the time of an event, best first."""
VERSION_TIMES = "updated_at modified_at changed_at last_modified last_updated updated modified ts_ms version_at"
"""Names of the time of an entity's version, best first."""
EVENT_TYPES = "event_type event_name event type action kind"
"""Names of a field that holds the type of an event, best first."""
OTHER_TIMES = {"updated", "modified", "deleted", "expires", "expired", "birth", "ends", "scheduled"}
"""Words in the names of times other than that of the event."""
THINGS = "user customer account person member visitor device session anonymous client product item post page"
"""What events are about. The id of one of these does not identify an event, even if a sample has each only once."""


Choice = tuple[Any, str]
"""A value of the contract, and why it is a guess; the reason is empty if it is none."""


class Draft:
    """A new contract: its keys and its fields, with the reason for each guess.

    Raises:
        UserError: for a sample without a field, the time of an event or the key of an entity.
    """

    def __init__(self, name: str, sample: Sample, transport: Transport, topic: str | None, is_entity: bool) -> None:
        self.sample = sample
        self._name = name
        self._singular = singular(name)
        self._transport = transport
        self._topic = topic
        self._envelope = guess_envelope(sample.bodies)
        bodies = unwrap(sample.bodies, self._envelope)
        self.kind: Literal["event", "entity"] = "entity" if is_entity or self._envelope == "debezium" else "event"
        self.messages = len(bodies)
        fields, self.left_out = infer_fields(bodies)
        """Paths that no contract can name, each with the reason."""
        if not fields:
            raise UserError(f"{sample.origin}: the messages have no field that a contract can name")
        self.lines = [Line(one, self.base_name(one.path), [one.guess] if one.guess else []) for one in fields]
        self.contract: dict[str, Choice] = {}
        """Key of the contract to its value, except `fields`."""
        self._identifying: set[str] = set()
        """Paths that identify a message or say what it is."""
        self._exempt: set[str] = set()
        """Paths whose columns staging names itself."""
        name_by_vocabulary(self.lines)
        self._choose()
        mark_personal(self.lines, self._identifying)
        make_valid(self.lines, self.kind, self._identifying, self._exempt)

    def base_name(self, path: str) -> str:
        """The name that a path suggests for its field."""
        if self._envelope == "cloudevents":
            path = path.removeprefix("data.")
        return snake_case(path)

    def _choose(self) -> None:
        contract = self.contract
        contract["description"] = (sentence(self._name), "")
        contract["transport"] = (self._transport, "")
        if self._topic not in (None, self._name):
            contract["topic"] = (self._topic, "")
        if self.sample.format != "json":
            contract["format"] = (self.sample.format, "")
        key = self._entity_key() if self.kind == "entity" else self._event_key()
        if key:
            contract["key"] = key
        if self._envelope:
            contract["envelope"] = (self._envelope, "the messages have the fields of one")
        contract["kind"] = (self.kind, "")
        if self.kind == "entity":
            self._identifying |= {key[0]} if key else set()
            self._choose_versions()
        else:
            self._choose_event()
        if nulls := list(dict.fromkeys(text for line in self.lines for text in line.field.nulls)):
            contract["nulls"] = (nulls, "texts that mean no value")

    def _choose_event(self) -> None:
        event_id = self._event_id()
        if event_id:
            self.contract["id"] = event_id
        self.contract["event_type"] = self._event_type()
        self.contract["time"] = self._time(EVENT_TIMES.split(), "an event needs one")
        chosen = {*self.contract["time"][0], *(event_id[0] if event_id else [])}
        if isinstance(of_type := self.contract["event_type"][0], dict):
            chosen.add(of_type["field"])
        self._identifying |= chosen
        self._exempt |= chosen - set(event_id[0][1:] if event_id else [])

    def _choose_versions(self) -> None:
        created = next((line.path for line in self.lines if self._is(line, "created_at", "timestamp")), None)
        deleted = [*(line.path for line in self.lines if self._is(line, "deleted_at", "timestamp"))] + [
            line.path for line in self.lines if line.name in ("deleted", "is_deleted") and self._is_boolean(line)
        ]
        # a change of Debezium has its own time
        if self._envelope != "debezium" or any(line.name in VERSION_TIMES.split() for line in self._times()):
            self.contract["time"] = self._time(
                VERSION_TIMES.split(), "an entity needs one of when a version came to be"
            )
        if created:
            self.contract["created"] = (created, "by its name")
        if deleted:
            self.contract["deleted"] = (deleted, "by its name")
        chosen = {*self.contract.get("time", ([], ""))[0], *deleted, *([created] if created else [])}
        self._identifying |= chosen
        self._exempt |= chosen

    @staticmethod
    def _is(line: Line, name: str, kind: str) -> bool:
        return line.name == name and line.field.type == kind

    @staticmethod
    def _is_boolean(line: Line) -> bool:
        """Whether the field is a boolean. One without any value becomes a boolean."""
        if line.field.type == "string" and not line.field.texts:
            line.field = replace(line.field, type="boolean")
        return line.field.type == "boolean"

    def is_in_all(self, line: Line) -> bool:
        """Whether all messages have a value of this field."""
        return line.field.present == self.messages

    def _ids(self) -> tuple[list[Line], list[Line]]:
        """Return the fields named after the event or entity, best first, and other fields that are named like an id."""
        thing = self._singular.rpartition("_")[2]
        names = (f"{self._singular}_id", f"{thing}_id", "event_id", "id", "message_id", f"{thing}_uuid", "uuid")
        lines = [line for line in self.lines if line.field.type != "json"]
        own = [line for name in dict.fromkeys(names) for line in lines if line.name == name]
        others = [line for line in lines if line.name.rpartition("_")[2] in ID_WORDS and line not in own]
        return own, others

    def _event_id(self) -> Choice | None:
        own, others = self._ids()
        everywhere = [line for line in own if self.is_in_all(line)]
        number = count(self.messages)
        for line in everywhere:
            if line.field.is_unique:
                return [self._as_id(line).path], f"each of {number} has another"
        for line in everywhere:
            for other in others:
                pairs = set(zip(line.field.texts, other.field.texts, strict=False))
                if self.is_in_all(other) and len(pairs) == self.messages:
                    return [self._as_id(line).path, other.path], f"each of {number} has another pair of these"
        for line in others if self.messages > 1 else ():
            is_of_other = not set(THINGS.split()).isdisjoint(line.name.split("_"))
            if self.is_in_all(line) and line.field.is_unique and not is_of_other:
                return [self._as_id(line).path], f"each of {number} has another"
        for line in own:
            if line.field.is_unique:
                return [self._as_id(line).path], f"{line.field.present:,} of {number} have one, each another"
        return None

    @staticmethod
    def _as_id(line: Line) -> Line:
        line.field = replace(line.field, type="id", unit=None, format=None)
        return line

    def _event_key(self) -> Choice | None:
        """Return the field whose values are the Kafka message keys of the sample. Files have no keys: then, user_id."""
        if self._transport != "kafka":
            return None
        keys = [key.decode(errors="replace") for key in self.sample.keys if key is not None]
        if keys:
            for line in self.lines:
                if line.field.texts == tuple(keys) and line.field.type != "json":
                    return line.path, "" if len(keys) >= FEW else f"the keys of {count(len(keys))} are its values"
            return None
        for line in sorted(self.lines, key=lambda line: line.path != line.name):
            if line.name == "user_id" and line.field.type != "json":
                return line.path, "a file does not tell the message keys"
        return None

    def _entity_key(self) -> Choice:
        own, others = self._ids()
        for line in (*own, *others):
            if self.is_in_all(line):
                return self._as_id(line).path, "by its name"
        raise UserError(
            f"{self.sample.origin}: an entity needs a key, but no field that is named like an id, such as"
            f" {self._singular}_id, has a value in all messages; fields: {self._found()}"
        )

    def _event_type(self) -> Choice:
        for name in EVENT_TYPES.split():
            for line in self.lines:
                if line.name != name or line.field.type != "string" or not self.is_in_all(line):
                    continue
                values = sorted(set(line.field.texts))
                if len(values) <= MOST_EVENT_TYPES and max(map(len, values)) <= MOST_CHARACTERS:
                    kinds = {"field": line.path, "values": {value: value for value in values}, "others": "keep"}
                    return kinds, "the values of the sample; others: reject makes dead letters of other values"
        return self._singular, "by the name of the stream"

    def _times(self) -> list[Line]:
        return [line for line in self.lines if line.field.type == "timestamp" and line.field.texts]

    def _time(self, names: Sequence[str], need: str) -> Choice:
        ranks = {name: float(rank) for rank, name in enumerate(dict.fromkeys([*names, *EVENT_TIMES.split()]))}
        # any other verb in the past, such as signed_up_at, is better than created_at
        verb = ranks["created_at"] - 0.5

        def rank(line: Line) -> tuple[bool, float]:
            last = snake_case(line.path.rpartition(".")[2])
            is_verb = last.endswith("_at") and OTHER_TIMES.isdisjoint(last.split("_"))
            return not self.is_in_all(line), ranks.get(line.name, ranks.get(last, verb if is_verb else len(ranks)))

        if not (found := sorted(self._times(), key=rank)):
            raise UserError(
                f"{self.sample.origin}: no field looks like a time (ISO 8601, a date such as 31.12.2025, or a number"
                f" since 1970 in a field whose name says so), and {need}; fields: {self._found()}"
            )
        if missing := self.messages - found[0].field.present:
            found[0].guesses.append(f"{missing:,} of {count(self.messages)} have no time and are rejected")
        others = f"; other times: {', '.join(line.path for line in found[1:4])}" if found[1:] else ""
        return [found[0].path], f"by its name and values{others}"

    def _found(self) -> str:
        more = ", ..." if len(self.lines) > SHOWN_PATHS else ""
        return f"{', '.join(line.path for line in self.lines[:SHOWN_PATHS])}{more}"
