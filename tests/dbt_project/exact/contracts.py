"""Random contracts, and messages for them: valid, invalid, malformed, late and duplicate."""

import json
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dbt_project.exactness.message import Message
from tests.dbt_project.exact.worlds import FORMS, KEY_FORMS, TEXT_FORMS, epoch

Fields = list[dict[str, Any]]
Contract = dict[str, Any]
"""The contents of its file."""

COMMITS = 3
DAY = datetime(2026, 1, 5)
VOCABULARY = {
    **dict.fromkeys(("user_id", "source_session_id", "product_id", "post_id", "account_number"), "id"),
    **dict.fromkeys(("page_title", "category_code", "brand", "country", "city", "browser", "os", "url"), "string"),
    **dict.fromkeys(("price", "total_amount", "engaged_seconds"), "amount"),
}
NAMES = (
    "plan", "OrderNo", "_x", "flag", "step", "note", "score", "shop", "weight", "opened", "meta", "tags", "referrer",
    "campaign_2", "seats", "is_new", "amount_due", "spot", "reason", "level", "label", "owner", "ratio", "phase",
    "date", "value", "values", "count", "row", "position", "index", "rank", "text", "json", "day",
)  # fmt: skip
WORDS_OF_STAGING = ("created", "updated", "deleted", "time", "type")
SEGMENTS = ("user-id", "$ref", "a b", "@type", "select", "x:y", "a/b", "-dash", "_u", "0", "Camel", "payload", "body")
PLACES = (
    "props.", "props.in-ner.", "$set.a b.", "items[0].", "items[1].", "grid[1][0].", "still.deep.er[2].here.", "0.",
)  # fmt: skip
UNLISTED = (
    "extra",
    "Extra",
    "e-x:t$",
    "_9",
    'quo"te',
    "back\\slash",
    "dot.ted",
    "né",
    "",
    "9lives",
    "x" * 63,
    "y" * 64,
    "it's",
)
TEXTS = (
    "free", "team", "it's", 'a "b"', "back\\slash", "{{ 1 }}", "{% if x %}", "{# no #}", "ünï", "日本", "😀", " x ",
    "-", "N/A", "null", "0", "1", "true", "a,b", "line\nbreak", "\u0001\u001f", "%s", "--", ";", "\\u0041", "\u2028",
)  # fmt: skip
NO_IDS = ("", " ", "null", "undefined", "NaN", "None", " (not set)\t", "NIL")
MANY = 65_536
ZONES = ((timedelta(), "Z"), (timedelta(), "+00:00"), (timedelta(hours=2), "+0200"), (-timedelta(hours=3.5), "-03:30"))


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its spelling in a body."""

    written: str


class Missing:
    """Stands for a missing value."""


MISSING = Missing()
NUMBERS = tuple(
    map(
        Number,
        (
            "0", "-0", "1", "1.50", "1.0", "-3", "12.5", "1e3", "1E5", "1e16", "1e-7", "0.00005", "1e400", "-1e400",
            "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
            "123456789012345678901234567890", "99999999999999.99", "100000000000000", "1.7976931348623157e308",
        ),
    )
)  # fmt: skip


VALUES: dict[str, tuple[Any, ...]] = {
    "string": TEXTS,
    "id": ("u1", "u1", "u2", "u2", 17, "17", "", "undefined", " (not set)\t"),
    "integer": (0, 5, "7", "-0", "007", -3, Number("-0"), Number("9223372036854775807"), "-9223372036854775808"),
    "amount": (0, 5, "12.50", Number("1.50"), "1e3", -3, "0.00005", "99999999999999.9999", ".5", Number("1E5")),
    "boolean": (True, False, 1, 0, "TRUE", "False", "1", "0"),
    "json": ({}, [], {"b": [1, None], "a": Number("1.50")}, ["it's", {"x": True}], "text", "", 5, False),
}


class Draw:
    """Draws the contracts and messages of a seed.

    Args:
        on_bigquery: only numbers that all engines write alike as JSON, and no texts of 65,536 characters.
    """

    def __init__(self, seed: int, *, on_bigquery: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self._on_bigquery = on_bigquery
        self._number = 0

    def one_in(self, number: int) -> bool:
        return self.rng.randrange(number) == 0

    def any_of(self, *values: Any) -> Any:
        return self.rng.choice(values)

    def some_of(self, values: Any, least: int = 1, most: int = 3) -> list[Any]:
        return self.rng.sample(list(values), self.rng.randint(least, most))

    # --- contracts

    def contract(self, kind: str, envelope: str | None) -> Contract:
        names = self.rng.sample(
            NAMES if envelope == "cloudevents" else NAMES + WORDS_OF_STAGING, self.rng.randint(2, 7)
        )
        if kind == "event":
            names += self.some_of(VOCABULARY, 0, 4)
            self.rng.shuffle(names)
        self._paths: set[str] = set()
        self._envelope = envelope
        fields = [self.field(name) for name in names]
        contract: Contract = {
            "description": f'It\'s a stream of "{kind}" messages with {{ braces }}: \\ and #.',
            "transport": self.any_of("pubsub", "kafka"),
            "kind": kind,
            "fields": fields,
        }
        if envelope:
            contract["envelope"] = envelope
        if self.one_in(2):
            contract["nulls"] = self.some_of(TEXTS, most=self.any_of(3, 20))
        free = [one for one in fields if "personal" not in one]
        if kind == "event":
            self.add_event(contract, free)
        else:
            self.add_entity(contract, free)
        if self.one_in(2):
            groups = [one for one in fields if not one.get("required") and path_of(one) not in contract.get("time", ())]
            if len(groups) > 1:
                contract.setdefault("one_of", []).append([path_of(one) for one in self.some_of(groups, 2, 2)])
        self.rng.shuffle(fields)
        return contract

    def add_event(self, contract: Contract, free: Fields) -> None:
        fields: Fields = contract["fields"]
        times = [self.timestamp(name, is_first=place == 0) for place, name in enumerate(("happened", "sent"))]
        if self.one_in(3):
            contract["time"] = [path_of(one) for one in times]
            contract["one_of"] = [contract["time"]]
            fields += times
        else:
            fields.append({**times[0], "required": True})
            contract["time"] = [path_of(times[0])]
        if self.one_in(2):
            contract["event_type"] = self.any_of("signup", "user's signup", "view")
        else:
            name = "brand" if self.one_in(6) and not any(one["name"] == "brand" for one in fields) else "kind"
            of_type = self.placed({"name": name, "required": True, "description": "What it is."}, "type")
            fields.append(of_type)
            listed = {value: self.any_of(value, value, "renamed") for value in self.some_of(TEXTS, 1, 4)}
            contract["event_type"] = {"field": path_of(of_type), "values": listed}
            if self.one_in(2):
                contract["event_type"]["others"] = "keep"
                if self.one_in(2):
                    of_type["values"] = [*listed, *self.some_of(TEXTS)]
        if self.one_in(3):
            return
        own = {"name": "own_id", "type": self.any_of("id", "id", "string", "integer"), "description": "Its id."}
        if self.one_in(2):
            own["required"] = True
        if self.one_in(6) and not any(one["name"] == "user_id" for one in fields):
            own |= {"name": "user_id", "type": "id"}
        fields.append(self.placed(own, "id"))
        lines = [one for one in free if one.get("type") != "json"]
        contract["id"] = [path_of(own), *(path_of(one) for one in lines[: self.any_of(0, 0, 1, 2)])]

    def add_entity(self, contract: Contract, free: Fields) -> None:
        fields: Fields = contract["fields"]
        is_change = contract.get("envelope") == "debezium"
        key = {"name": "thing_id", "type": self.any_of("id", "id", "string"), "description": "Its id."}
        if self.one_in(2):
            key["path"] = self.any_of("id", "thing-id", "$id", "thing id")
        if self.one_in(3):
            key["values"] = ["t1", "t2", "4"]
        fields.append({**key, "required": self.one_in(2)})
        contract["key"] = path_of(key)
        if not is_change or self.one_in(2):
            fields.append(self.timestamp("changed", is_first=False))
            contract["time"] = [path_of(fields[-1])]
        if self.one_in(2):
            fields.append({**self.timestamp("made", is_first=False), "required": self.one_in(4)})
            contract["created"] = path_of(fields[-1])
        deleted = []
        if self.one_in(2):
            deleted.append(self.timestamp("gone", is_first=False))
        if self.one_in(2):
            deleted.append(self.placed({"name": "is_gone", "type": "boolean", "description": "Whether it is."}))
        self.rng.shuffle(deleted)
        fields += deleted
        if deleted:
            contract["deleted"] = [path_of(one) for one in deleted]

    def field(self, name: str) -> dict[str, Any]:
        type_ = VOCABULARY.get(name) or self.any_of(
            "string", "string", "id", "integer", "amount", "boolean", "timestamp", "json"
        )
        if type_ == "timestamp":
            field = self.timestamp(name, is_first=False)
        else:
            field = self.placed({"name": name, "type": type_, "description": f"The {name} of {{it}}: 50 %."})
        if self.one_in(5):
            field["required"] = True
        if type_ in ("string", "id", "integer") and self.one_in(4):
            values = ("1", "7", "-3") if type_ == "integer" else TEXTS
            field["values"] = self.some_of(values)
        if type_ != "json" and self.one_in(4):
            field["nulls"] = self.some_of(TEXTS)
        if self.one_in(5):
            field["personal"] = "hash" if type_ in ("string", "id") and self.one_in(2) else "drop"
        return field

    def timestamp(self, name: str, *, is_first: bool) -> dict[str, Any]:
        field: dict[str, Any] = {"name": name, "type": "timestamp", "description": "A time."}
        if self.one_in(3):
            field["unit"] = self.any_of("seconds", "milliseconds", "microseconds")
        elif self.one_in(2):
            field["format"] = self.time_format()
        return self.placed(field, "time" if is_first else None)

    def time_format(self) -> str:
        parts = self.some_of(("%m", "%d", "%H", "%M", "%S", "%f", "%z"), 3, 7)
        if self.one_in(2):
            parts = ["%m", "%d", "%H", "%M", "%S"]
        parts.append("%Y")
        self.rng.shuffle(parts)
        return "".join(part + self.any_of("", " ", "T", "/", ".", ":", ",", "-") for part in parts)

    def placed(self, field: dict[str, Any], attribute: str | None = None) -> dict[str, Any]:
        """Give a field a path of its own, and perhaps an alias. Attributes of CloudEvents keep their names."""
        if self._envelope == "cloudevents" and attribute:
            field["path"] = attribute
        elif self._envelope == "cloudevents" and not self.one_in(6):
            field["path"] = self.path("data.")
        elif self.one_in(2):
            field["path"] = self.path()
        if self.one_in(4) and path_of(field) != attribute:
            field["aliases"] = [self.path() for _ in range(self.any_of(1, 1, 2))]
        return field

    def path(self, within: str = "") -> str:
        self._number += 1
        place = self.any_of("", *PLACES[: self.any_of(2, len(PLACES))])
        path = f"{within}{place}{self.rng.choice(SEGMENTS)}{self._number}"
        if self.one_in(8):
            path += "[0]"
        return path

    # --- messages

    def messages(self, stream: str, contract: Contract, number: int, runs: int) -> list[Message]:
        self._kept: list[tuple[dict[str, Any], Message]] = []
        found: list[Message] = []
        for place in range(number):
            message = Message(
                run=self.rng.randrange(runs),
                commit=self.rng.randrange(COMMITS),
                stream=stream,
                message_id=f"{stream}.m{place}",
                published_at=DAY + timedelta(hours=self.any_of(1, 30, 48)),
                payload=b"",
            )
            if found and self.one_in(12):  # redelivered by the broker
                found.append(replace(self.rng.choice(found), run=message.run, commit=message.commit))
            else:
                found.append(self.message(contract, message))
        return found

    def message(self, contract: Contract, message: Message) -> Message:
        values = {path_of(field): self.value(field) for field in contract["fields"]}
        at = DAY + timedelta(hours=self.rng.randrange(0, 26, 5), microseconds=self.any_of(0, 0, 1, 500_000))
        by_path = {path_of(field): field for field in contract["fields"]}
        for path in contract.get("time", ()):
            values[path] = self.written_time(by_path[path], at)
        if contract["kind"] == "entity":
            values[contract["key"]] = self.any_of("t1", "t2", "t3", 4)
            for path in (contract.get("created"), *contract.get("deleted", ())):
                if path and by_path[path]["type"] == "timestamp" and not self.one_in(4):
                    shift = timedelta(hours=self.any_of(-48, -1, 0))
                    values[path] = MISSING if self.one_in(2) else self.written_time(by_path[path], at + shift)
        elif of_type := contract["event_type"] if isinstance(contract["event_type"], dict) else None:
            values[of_type["field"]] = self.any_of(*of_type["values"], *of_type["values"], TEXTS[0])
        if self._kept and self.one_in(4):  # another message about the same event or entity
            values = dict(self.rng.choice(self._kept)[0])
            for path in self.some_of(values, 0, 1):
                values[path] = self.value(by_path[path])
        self._kept.append((values, message))
        if self.one_in(4):
            spoilt = self.rng.choice(list(values))
            values = {**values, spoilt: self.any_of(MISSING, self.odd(), self.odd(), self.wrong_time(by_path[spoilt]))}
        if self.one_in(25) and not self._on_bigquery:
            path = self.rng.choice(list(values))
            values = {**values, path: self.any_of("x", "é") * (MANY + self.any_of(0, 1))}
        return self.enveloped(contract, values, message)

    def enveloped(self, contract: Contract, values: dict[str, Any], message: Message) -> Message:
        body: dict[str, Any] = {}
        by_path = {path_of(field): field for field in contract["fields"]}
        for path, value in values.items():
            paths = [path, *by_path[path].get("aliases", ())]
            chosen = paths if self.one_in(8) else [path if self.one_in(2) else self.rng.choice(paths)]
            for one in chosen:
                put(body, steps_of(one), value)
        if self.one_in(12):  # another value in place of an object or a list
            body[str(self.rng.choice([steps_of(path)[0] for path in values]))] = self.odd_unlisted()
        if self.one_in(12):  # names that differ in case are different
            name = self.rng.choice(list(body))
            other = {name.swapcase(): self.odd_unlisted()}
            body = {**other, **body} if self.one_in(2) else {**body, **other}
        if self.one_in(4):
            body = self.with_unlisted(body)
        attributes = None
        payload: bytes | None = b""
        if contract.get("envelope") == "debezium":
            body = self.change(body)
        if contract.get("envelope") == "cloudevents" and self.one_in(2):
            context = {name: value for name, value in body.items() if name != "data" and isinstance(value, str | int)}
            prefix = self.any_of("ce_", "ce-")
            attributes = json.dumps(
                {f"{prefix}specversion": "1.0", **{f"{prefix}{name}": str(value) for name, value in context.items()}},
                ensure_ascii=False,
            )
            payload = self.written(body.get("data", self.odd())).encode()
            if "data" not in body or self.one_in(4):
                payload = self.any_of(payload, b"", None)
        else:
            payload = self.written(body).encode()
        if self.one_in(25):
            payload = self.rng.choice(broken(payload or b"{}"))
        key = None
        if contract["kind"] == "entity":
            key = self.key(contract, values)
            payload = None if self.one_in(8) else payload
        return replace(message, payload=payload, attributes=attributes, key=key)

    def with_unlisted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add fields that the contract does not list, at the top and in objects."""
        inner = {name: self.odd_unlisted() for name in self.some_of(UNLISTED, 0, 3)}
        body = {**body, **{name: self.any_of(self.odd_unlisted(), inner) for name in self.some_of(UNLISTED, 1, 3)}}
        for name, value in body.items():
            if isinstance(value, dict) and self.one_in(3):
                body[name] = {**value, self.rng.choice(UNLISTED): self.any_of(self.odd_unlisted(), inner)}
        return body

    def key(self, contract: Contract, values: dict[str, Any]) -> bytes | None:
        id_ = values[contract["key"]]
        if self.one_in(10) or not isinstance(id_, str | int):
            odd: bytes | None = self.any_of(None, b"", b"\xff", b"undefined", b"{", b"1\n2", b"t2", b'"t1"')
            return odd
        return KEY_FORMS[self.any_of("bare", "bare", *KEY_FORMS)](id_, contract["key"])

    def change(self, row: dict[str, Any]) -> dict[str, Any]:
        """A change in Debezium's format."""
        op = self.any_of("c", "u", "u", "r", "d", "d") if not self.one_in(12) else self.any_of("t", "", None, "D", 1)
        before, after = self.any_of(None, {}, row), row
        if op == "d":
            before, after = row, self.any_of(None, MISSING)
        at = DAY + timedelta(hours=self.rng.randrange(0, 26, 5))
        times = [Number(str(epoch(at) // 1000)), str(epoch(at) // 1000), MISSING, None, self.odd()]
        change = {
            "before": before,
            "after": after,
            "source": self.any_of(*[{"ts_ms": times[0], "db": "shop"}] * 6, {"ts_ms": self.rng.choice(times)}, MISSING),
            "op": op,
            "ts_ms": times[0] if not self.one_in(6) else self.rng.choice(times),
        }
        if self.one_in(3):
            return {"schema": {"type": "struct"}, "payload": change}
        return change

    def value(self, field: dict[str, Any]) -> Any:
        if self.one_in(30 if field.get("required") else 6):
            return self.any_of(MISSING, MISSING, None, "", *field.get("nulls", ()))
        if field.get("values"):
            return self.rng.choice(field["values"])
        type_ = field.get("type", "string")
        if type_ == "timestamp":
            return self.written_time(field, self.time())
        if type_ in ("string", "json") and self.one_in(4):
            return self.odd()
        return self.rng.choice(VALUES[type_])

    def odd(self) -> Any:
        """A value of any type."""
        return self.any_of(
            *TEXTS, *NO_IDS, *NUMBERS, True, False, None, {}, [], [None], {"a b": {"x": Number("1e21")}}, [[1], "2"],
            "12,50", "1.0", " 5", "yes", "2", "1e15", "Infinity", "9223372036854775808", "soon", "2026-01-05T10:00:00Z",
        )  # fmt: skip

    def odd_unlisted(self) -> Any:
        """A value of any type, except integers of more than 64 bits, whose example differs on BigQuery."""
        value = self.odd()
        is_beyond = isinstance(value, Number) and abs(float(value.written)) >= 2**63
        return Number("7") if is_beyond and self._on_bigquery else value

    def time(self) -> datetime:
        far = (
            datetime(1, 1, 1), datetime(9998, 12, 31, 23, 59, 59, 999999), datetime(9999, 1, 1), datetime(1969, 12, 31),
            datetime(2000, 2, 29, 23, 59, 59, 999999), datetime(9999, 12, 31, 12),
        )  # fmt: skip
        near = DAY + timedelta(
            seconds=self.rng.randrange(-200_000, 200_000), microseconds=self.any_of(0, 0, 120_000, 7)
        )
        return self.rng.choice(far) if self.one_in(4) else near

    def written_time(self, field: dict[str, Any], at: datetime) -> Any:
        """A time in the unit or format of the field."""
        if unit := field.get("unit"):
            count = epoch(at) // {"seconds": 1_000_000, "milliseconds": 1000, "microseconds": 1}[unit]
            return self.any_of(Number(str(count)), str(count))
        if time_format := field.get("format"):
            shown, zone = self.any_of(*ZONES) if 2 < at.year < 9999 else ZONES[0]
            local = at + shown if "%z" in time_format else at
            fraction = f"{local.microsecond:06}"
            shown_fraction = fraction[: max(self.rng.randint(1, 6), len(fraction.rstrip("0")))]
            return (
                time_format.replace("%f", shown_fraction)
                .replace("%z", zone)
                .replace("%Y", f"{local.year:04}")
                .replace("%m", f"{local.month:02}")
                .replace("%d", f"{local.day:02}")
                .replace("%H", f"{local.hour:02}")
                .replace("%M", f"{local.minute:02}")
                .replace("%S", f"{local.second:02}")
            )
        if at.year in (1, 9999):
            return at.isoformat()
        return FORMS[self.rng.choice(TEXT_FORMS)](at)

    def wrong_time(self, field: dict[str, Any]) -> Any:
        """A text that is almost in the unit or format of the field."""
        if field.get("type") != "timestamp":
            return self.odd()
        written = self.written_time(field, self.time())
        text = written.written if isinstance(written, Number) else str(written)
        place = self.rng.randrange(len(text))
        if field.get("unit") or field.get("format"):
            return text[:place] + self.any_of("", "9", "x", " ", "0", "-", "٣") + text[place + self.any_of(0, 1) :]
        return self.any_of(
            "2026-02-30", "0000-01-01", "9999-12-31", "1999-12-31T23:59:59.999999Z", "2100-01-01", "soon"
        )

    def written(self, value: Any) -> str:
        """The body as JSON, with spaces, unusual escapes and repeated keys."""
        if isinstance(value, Number):
            is_alike = re.fullmatch(r"0|-?[1-9][0-9]*(\.[0-9]*[1-9])?", value.written)
            return value.written if is_alike or not self._on_bigquery else "12.5"
        if isinstance(value, list):
            return f"[{', '.join('null' if one is MISSING else self.written(one) for one in value)}]"
        if isinstance(value, dict):
            members = [(name, self.written(inner)) for name, inner in value.items() if inner is not MISSING]
            if members and self.one_in(12):
                members.append((members[0][0], self.any_of("null", '"again"', "{}")))
            space = self.any_of("", "", " ", "\n\t")
            return f"{{{space}{','.join(f'{self.written(name)}{space}:{inner}' for name, inner in members)}{space}}}"
        return json.dumps(value, ensure_ascii=self.one_in(2))


def broken(payload: bytes) -> list[bytes | None]:
    """Payloads that are not JSON objects, and unusual ones that are."""
    beginnings = [None, b"", b"null", b"[1]", b'"text"', b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}']
    return [*beginnings, payload + b"x", payload[:-1], payload[:-1] + b",}", payload.replace(b":", b":NaN,", 1)]


def path_of(field: dict[str, Any]) -> str:
    path: str = field.get("path", field["name"])
    return path


def steps_of(path: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in path.split("."):
        name, *places = part.split("[")
        steps += [name, *(int(place.rstrip("]")) for place in places)]
    return steps


def put(into: Any, steps: list[str | int], value: Any) -> None:
    """Set a value at a path, and create the objects and lists on the way."""
    step, *rest = steps
    if isinstance(step, int):
        into.extend([None] * (step + 1 - len(into)))
    known = into[step] if isinstance(step, int) else into.get(step)
    if not rest:
        into[step] = value
        return
    wanted = list if isinstance(rest[0], int) else dict
    if not isinstance(known, wanted):
        known = into[step] = wanted()
    put(known, rest, value)
