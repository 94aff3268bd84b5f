"""Decodes Avro to JSON text.

fastavro reads logical types at a third of its speed without them. So it is given the schema without them, and what
has to be converted is converted here, by a tree of functions that is made once per schema.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID

import orjson
from fastavro import parse_schema, schemaless_reader
from fastavro._read_py import read_data
from fastavro.io.binary_decoder import BinaryDecoder
from fastavro.repository import AbstractSchemaRepository
from fastavro.repository.base import SchemaRepositoryError
from fastavro.schema import load_schema

from ingest.formats.compiled_avro import JSON_OPTIONS, Convert, compiled
from ingest.message import HEADER_BYTES

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone: orjson writes it with a Z
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
ROOT = ""
"""The name by which the schema itself is loaded; references have names of their own."""
MOST_EMPTY_ITEMS = 10_000
"""Maximum items without bytes, such as nulls, in the arrays of a message: ten bytes can say that there are 2**60."""

NO_REFERENCES: Mapping[str, str] = {}

Decode = Callable[[bytes], bytes]
"""Takes a message, header included, to JSON text."""


def avro_decoder(
    schema: str,
    references: Mapping[str, str] = NO_REFERENCES,
    newest: str | None = None,
    newest_references: Mapping[str, str] = NO_REFERENCES,
    is_compiled: bool = True,
) -> Decode:
    """A function that reads what was written by a schema.

    Args:
        schema: by which messages were written.
        references: name to schema of the types that it takes from elsewhere.
        newest: the newest schema of the subject; where one of its fields has the name of a written field as an alias,
            the field gets the newest name. Nothing else of it counts: a message has the fields that were written.
        newest_references: as `references`.
        is_compiled: whether schemas that can be compiled are. The results are the same.

    Raises:
        Exception: of many kinds, for a schema that is none; so does the function for bytes that the schema did not
            write.
    """
    written = _parse(schema, references)
    if newest is not None and any('"aliases"' in text for text in (newest, *newest_references.values())):
        _rename(written, _parse(newest, newest_references))
    decode = compiled(written, _converter) if is_compiled else None
    return decode or _by_fastavro(written)


def _by_fastavro(written: Any) -> Decode:
    plain = _WithoutLogicalTypes(written)
    schema, convert, is_wrapped, names_records = plain.schema, plain.convert, plain.is_wrapped, plain.names_records
    # fastavro's own compiled reader overflows the stack on a value that is deep enough, which ends the process, and
    # makes any number of items that have no bytes
    read: Any = _read_within_bounds if plain.is_recursive or plain.has_empty_items else schemaless_reader

    def decode(message: bytes) -> bytes:
        stream = BytesIO(message)
        stream.seek(HEADER_BYTES)
        value = read(stream, schema, None, True, True) if names_records else read(stream, schema)
        if stream.tell() != len(message):
            raise ValueError("bytes are left")
        if convert is not None:
            value = convert(value)
        return orjson.dumps(value["value"] if is_wrapped else value, None, JSON_OPTIONS)

    return decode


def _read_within_bounds(stream: BytesIO, schema: Any, _: None = None, *names_records: bool) -> Any:
    """As `schemaless_reader`, in Python.

    Raises:
        ValueError: for a message that has more items than bytes, and MOST_EMPTY_ITEMS.
        RecursionError: for one that is too deep.
    """
    named: dict[str, dict[str, Any]] = {"writer": {}, "reader": {}}
    parsed = parse_schema(schema, named["writer"])
    is_named = bool(names_records)
    options = {"return_record_name": is_named, "return_record_name_override": is_named}
    return read_data(_BoundedDecoder(stream), parsed, named, None, options)  # type: ignore[no-untyped-call]


class _BoundedDecoder(BinaryDecoder):
    """Reads a message that has no more items than bytes, and MOST_EMPTY_ITEMS."""

    def __init__(self, stream: BytesIO) -> None:
        super().__init__(stream)  # type: ignore[no-untyped-call]
        self._left = len(stream.getbuffer()) + MOST_EMPTY_ITEMS

    def iter_array(self) -> Iterator[None]:
        for item in super().iter_array():  # type: ignore[no-untyped-call]
            self._left -= 1
            if self._left < 0:
                raise ValueError("more items than bytes")
            yield item


class _References(AbstractSchemaRepository):
    """Schemas by the names that they are referred to by."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def load(self, name: str) -> Any:
        if name not in self._schemas:
            raise SchemaRepositoryError(f"no schema named {name}")
        return self._schemas[name]


def _parse(schema: str, references: Mapping[str, str]) -> Any:
    """With full names, and with the types that it refers to in it."""
    schemas = {ROOT: _read_json(schema), **{name: _read_json(text) for name, text in references.items()}}
    return load_schema(ROOT, repo=_References(schemas))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # the name of a type without quotes, as some registries write it


def _definitions(schema: Any) -> Iterator[dict[str, Any]]:
    """The named types of a parsed schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema
        for inner in (schema.get("items"), schema.get("values"), *(one["type"] for one in schema.get("fields", ()))):
            yield from _definitions(inner)


def _rename(written: Any, newest: Any) -> None:
    """Give the fields of `written` the names that they have in `newest`."""
    of_written = {one["name"]: one for one in _definitions(written)}
    of_newest = {one["name"]: one for one in _definitions(newest)}
    for name, record in of_newest.items():
        namespace = name.rpartition(".")[0]
        aliases = [alias if "." in alias else f"{namespace}.{alias}".lstrip(".") for alias in record.get("aliases", ())]
        old = next((of_written[one] for one in (name, *aliases) if one in of_written), None)
        if old is None and record is newest:
            old = written if isinstance(written, dict) else None  # the name of the whole may change
        if old is None or "fields" not in old:
            continue
        fields = {field["name"]: field for field in old["fields"]}
        for field in record.get("fields", ()):
            alias = next((one for one in field.get("aliases", ()) if one in fields), None)
            if field["name"] not in fields and alias is not None:
                fields[alias]["name"] = field["name"]


class _WithoutLogicalTypes:
    """A parsed schema without logical types and namespaces ("plain" below), for fastavro.

    `convert` makes the values that fastavro reads by it JSON values; None if they need no conversion.
    """

    def __init__(self, schema: Any) -> None:
        self._names: dict[str, str] = {}
        """Named type to its name in the plain schema, where none has a namespace."""
        self._kinds: dict[str, str] = {}
        """Plain name to record, enum or fixed."""
        self._converters: dict[str, Convert] = {}
        """By plain name."""
        self._open: set[str] = set()
        """Plain names of the records that are being converted: a reference to one of them is recursive."""
        self._empty: set[str] = {"null"}
        """Types whose values have no bytes, by plain name."""
        self.is_recursive = False
        self.has_empty_items = False
        """Whether there are arrays of such values."""
        self.names_records = False
        """Whether a union has several records, so that fastavro must return which one it read."""
        # fastavro cannot mark a list as parsed, and would parse it for each message
        self.is_wrapped = isinstance(schema, list)
        whole = {"type": "record", "name": "", "fields": [{"name": "value", "type": schema}]}
        plain, self.convert = self._of(whole if self.is_wrapped else schema)
        self.schema = parse_schema(plain)

    def _of(self, schema: Any) -> tuple[Any, Convert]:
        if isinstance(schema, list):
            return self._of_union(schema)
        if isinstance(schema, str):
            return self._of_name(schema)
        kind = schema["type"]
        if kind in ("array", "map"):
            inside = "items" if kind == "array" else "values"
            plain, convert = self._of(schema[inside])
            self.has_empty_items |= kind == "array" and self._is_empty(plain)
            return {"type": kind, inside: plain}, _of_each(kind, convert)
        return self._of_named(schema) if "name" in schema else (kind, _converter(schema))

    def _of_name(self, schema: str) -> tuple[str, Convert]:
        """Of a primitive type, or one that was defined before."""
        if schema not in self._names:
            return schema, _converter({"type": schema})
        name = self._names[schema]
        if name not in self._open:
            return name, self._converters[name]
        self.is_recursive = True

        def convert_inner(value: Any) -> Any:
            convert = self._converters[name]
            return value if convert is None else convert(value)

        return name, convert_inner

    def _of_named(self, schema: dict[str, Any]) -> tuple[Any, Convert]:
        kind = schema["type"]
        name = self._names[schema["name"]] = f"type_{len(self._names)}"
        self._kinds[name] = "record" if kind == "error" else kind
        if kind in ("record", "error"):
            plain, self._converters[name] = self._of_record(name, schema)
        else:
            plain = {key: schema[key] for key in ("type", "symbols", "size") if key in schema} | {"name": name}
            self._converters[name] = _converter(schema)
        parts = [field["type"] for field in plain.get("fields", ())]
        if not schema.get("size", 0) and kind != "enum" and all(map(self._is_empty, parts)):
            self._empty.add(name)
        return plain, self._converters[name]

    def _is_empty(self, plain: Any) -> bool:
        """Whether values of a type have no bytes."""
        name = plain.get("name") if isinstance(plain, dict) else plain
        return isinstance(name, str) and name in self._empty

    def _of_record(self, name: str, schema: dict[str, Any]) -> tuple[Any, Convert]:
        self._open.add(name)
        fields = []
        steps: list[tuple[str, Callable[[Any], Any]]] = []
        for field in schema["fields"]:
            plain, convert = self._of(field["type"])
            fields.append({"name": field["name"], "type": plain})
            if convert is not None:
                steps.append((field["name"], convert))
        self._open.remove(name)

        def convert_record(record: dict[str, Any]) -> dict[str, Any]:
            for of_field, convert in steps:
                record[of_field] = convert(record[of_field])
            return record

        return {"type": "record", "name": name, "fields": fields}, convert_record if steps else None

    def _of_union(self, branches: list[Any]) -> tuple[Any, Convert]:
        plain: list[Any] = []
        by_class: dict[type, Callable[[Any], Any]] = {}
        records: dict[str, Convert] = {}
        for branch in branches:
            of_branch, convert = self._of(branch)
            plain.append(of_branch)
            name = of_branch if isinstance(of_branch, str) else of_branch.get("name", of_branch["type"])
            kind = self._kinds.get(name, name)
            if kind == "record":
                records[name] = convert
            elif convert is not None:
                by_class[CLASSES[kind]] = convert
        if len(records) > 1:
            self.names_records = True

            def convert_named(named: tuple[str, Any]) -> Any:
                name, record = named
                convert = records[name]
                return record if convert is None else convert(record)

            by_class[tuple] = convert_named  # of several records fastavro says which it is
        elif (convert := next(iter(records.values()), None)) is not None:
            by_class[dict] = convert
        if not by_class:
            return plain, None
        if len(branches) == 2 and "null" in branches:
            [only] = by_class.values()
            return plain, lambda value: None if value is None else only(value)

        def convert_branch(value: Any) -> Any:
            convert = by_class.get(value.__class__)
            return value if convert is None else convert(value)

        return plain, convert_branch


CLASSES = {"int": int, "long": int, "bytes": bytes, "fixed": bytes, "array": list, "map": dict}
"""Type of a branch of a union that may have to be converted, to the class of its values. Two branches of one class that
are both converted, such as a date and a timestamp, cannot be told apart: the last counts."""


def _of_each(kind: str, convert: Convert) -> Convert:
    if convert is None:
        return None
    if kind == "array":
        return lambda values: list(map(convert, values))
    return lambda values: {key: convert(value) for key, value in values.items()}


def _converter(schema: Mapping[str, Any]) -> Convert:
    """Of a primitive type or a fixed one."""
    kind, logical = schema["type"], schema.get("logicalType")
    if kind in ("int", "long"):
        return INTEGERS.get(logical)
    if kind in ("bytes", "fixed"):
        if logical == "decimal":
            return _decimal(schema.get("scale", 0))
        if logical == "uuid":
            return lambda value: str(UUID(bytes=value))
        return lambda value: b64encode(value).decode()
    return None


# A time that no calendar has stays the number that it was. Each is one function: a call more is a share of the rate at
# which Avro lands.


def _from_millis(value: int) -> Any:
    try:
        return EPOCH + timedelta(0, 0, 0, value)
    except OverflowError:
        return value


def _from_micros(value: int) -> Any:
    try:
        return EPOCH + timedelta(0, 0, value)
    except OverflowError:
        return value


def _from_nanos(value: int) -> Any:
    return EPOCH + timedelta(0, 0, value // 1000)  # a warehouse has no nanoseconds


def _from_days(value: int) -> Any:
    try:
        return date.fromordinal(EPOCH_ORDINAL + value)
    except (OverflowError, ValueError):
        return value


def _local(convert: Callable[[int], Any]) -> Callable[[int], Any]:
    """Text without a zone, which orjson would add."""

    def convert_local(value: int) -> Any:
        converted = convert(value)
        return converted.isoformat() if isinstance(converted, datetime) else converted

    return convert_local


def _time_of_day(convert: Callable[[int], Any]) -> Callable[[int], Any]:
    def convert_time(value: int) -> Any:
        converted = convert(value)
        return converted.time() if isinstance(converted, datetime) else converted

    return convert_time


INTEGERS: dict[str | None, Callable[[int], Any]] = {
    "date": _from_days,
    "time-millis": _time_of_day(_from_millis),
    "time-micros": _time_of_day(_from_micros),
    "timestamp-millis": _from_millis,
    "timestamp-micros": _from_micros,
    "timestamp-nanos": _from_nanos,
    "local-timestamp-millis": _local(_from_millis),
    "local-timestamp-micros": _local(_from_micros),
    "local-timestamp-nanos": _local(_from_nanos),
}
"""Logical type of an int or a long to what converts it."""


def _decimal(scale: int) -> Callable[[bytes], str]:
    """All digits, such as 1.50: a number of JSON would lose some."""

    def convert(value: bytes) -> str:
        number = int.from_bytes(value, "big", signed=True)
        digits = str(abs(number)).rjust(scale + 1, "0")
        point = len(digits) - scale
        text = f"{digits[:point]}.{digits[point:]}" if scale else digits
        return f"-{text}" if number < 0 else text

    return convert
