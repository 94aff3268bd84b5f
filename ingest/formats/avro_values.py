"""Converts the values that fastavro reads to values that orjson writes as JSON.

fastavro is three times as fast on a schema without logical types. So it gets the schema without them (`PlainSchema`),
and a tree of functions, built once per schema, converts the values of those types.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from fastavro import parse_schema

from ingest.formats.compiled_avro import Convert

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  in UTC, but without a zone: orjson adds the Z
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class PlainSchema:
    """A schema without logical types and namespaces ("plain"), which fastavro reads fast.

    `schema` is the plain schema. `convert` converts the values that fastavro reads with it; None if no value needs a
    conversion.
    """

    def __init__(self, schema: Any) -> None:
        self._names: dict[str, str] = {}
        """Maps the full name of each named type to its name in the plain schema."""
        self._kinds: dict[str, str] = {}
        """Maps a plain name to the kind of type: record, enum or fixed."""
        self._converters: dict[str, Convert] = {}
        """Converter of each named type, by plain name."""
        self._open: set[str] = set()
        """Plain names of the records whose fields are being visited: a reference to one of them is recursive."""
        self._empty: set[str] = {"null"}
        """Plain names of the types whose values take no bytes."""
        self.is_recursive = False
        self.has_empty_items = False
        """Whether the schema has arrays whose items take no bytes."""
        self.names_records = False
        """Whether a union has several records, so that fastavro must return the name of the record it read."""
        # fastavro would parse a top-level union again for each message, so the union becomes the field of a record.
        self.is_wrapped = isinstance(schema, list)
        wrapper = {"type": "record", "name": "", "fields": [{"name": "value", "type": schema}]}
        plain, self.convert = self._visit(wrapper if self.is_wrapped else schema)
        self.schema = parse_schema(plain)

    def _visit(self, schema: Any) -> tuple[Any, Convert]:
        """Return the plain type of a type, and the converter of its values."""
        if isinstance(schema, list):
            return self._visit_union(schema)
        if isinstance(schema, str):
            return self._visit_name(schema)
        kind = schema["type"]
        if kind in ("array", "map"):
            inside = "items" if kind == "array" else "values"
            plain, convert = self._visit(schema[inside])
            self.has_empty_items |= kind == "array" and self._is_empty(plain)
            return {"type": kind, inside: plain}, _convert_each(kind, convert)
        return self._visit_named(schema) if "name" in schema else (kind, value_converter(schema))

    def _visit_name(self, schema: str) -> tuple[str, Convert]:
        """Visit the name of a primitive type, or of a type that was defined before."""
        if schema not in self._names:
            return schema, value_converter({"type": schema})
        name = self._names[schema]
        if name not in self._open:
            return name, self._converters[name]
        self.is_recursive = True

        def convert_inner(value: Any) -> Any:
            convert = self._converters[name]
            return value if convert is None else convert(value)

        return name, convert_inner

    def _visit_named(self, schema: dict[str, Any]) -> tuple[Any, Convert]:
        kind = schema["type"]
        name = self._names[schema["name"]] = f"type_{len(self._names)}"
        self._kinds[name] = "record" if kind == "error" else kind
        if kind in ("record", "error"):
            plain, self._converters[name] = self._visit_record(name, schema)
        else:
            plain = {key: schema[key] for key in ("type", "symbols", "size") if key in schema} | {"name": name}
            self._converters[name] = value_converter(schema)
        parts = [field["type"] for field in plain.get("fields", ())]
        if not schema.get("size", 0) and kind != "enum" and all(map(self._is_empty, parts)):
            self._empty.add(name)
        return plain, self._converters[name]

    def _is_empty(self, plain: Any) -> bool:
        """Whether values of a type take no bytes."""
        name = plain.get("name") if isinstance(plain, dict) else plain
        return isinstance(name, str) and name in self._empty

    def _visit_record(self, name: str, schema: dict[str, Any]) -> tuple[Any, Convert]:
        self._open.add(name)
        fields = []
        steps: list[tuple[str, Callable[[Any], Any]]] = []
        for field in schema["fields"]:
            plain, convert = self._visit(field["type"])
            fields.append({"name": field["name"], "type": plain})
            if convert is not None:
                steps.append((field["name"], convert))
        self._open.remove(name)

        def convert_record(record: dict[str, Any]) -> dict[str, Any]:
            for field_name, convert in steps:
                record[field_name] = convert(record[field_name])
            return record

        return {"type": "record", "name": name, "fields": fields}, convert_record if steps else None

    def _visit_union(self, branches: list[Any]) -> tuple[Any, Convert]:
        plain: list[Any] = []
        by_class: dict[type, Callable[[Any], Any]] = {}
        records: dict[str, Convert] = {}
        for branch in branches:
            plain_branch, convert = self._visit(branch)
            plain.append(plain_branch)
            name = plain_branch if isinstance(plain_branch, str) else plain_branch.get("name", plain_branch["type"])
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

            by_class[tuple] = convert_named  # fastavro returns (record name, record) if a union has several records
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
"""Maps an Avro type to the Python class of its values, by which a union finds the converter of a value. If two branches
of a union share a class, such as a date and a timestamp, the converter of the last branch is used for both."""


def _convert_each(kind: str, convert: Convert) -> Convert:
    if convert is None:
        return None
    if kind == "array":
        return lambda values: list(map(convert, values))
    return lambda values: {key: convert(value) for key, value in values.items()}


def value_converter(schema: Mapping[str, Any]) -> Convert:
    """Return the converter of a primitive or fixed type; None if its values need no conversion."""
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


# A time outside of the years 1 to 9999 stays a number. These functions repeat code, since each further call per value
# would measurably slow down the landing of Avro.


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
    return EPOCH + timedelta(0, 0, value // 1000)  # warehouse timestamps have microseconds


def _from_days(value: int) -> Any:
    try:
        return date.fromordinal(EPOCH_ORDINAL + value)
    except (OverflowError, ValueError):
        return value


def _local(convert: Callable[[int], Any]) -> Callable[[int], Any]:
    """Return a converter to text without a time zone, since orjson would add Z to a datetime."""

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
"""Maps a logical type of an int or long to its converter."""


def _decimal(scale: int) -> Callable[[bytes], str]:
    """Return a converter of decimals to text with all digits, such as 1.50, which a JSON number would round."""

    def convert(value: bytes) -> str:
        number = int.from_bytes(value, "big", signed=True)
        digits = str(abs(number)).rjust(scale + 1, "0")
        point = len(digits) - scale
        text = f"{digits[:point]}.{digits[point:]}" if scale else digits
        return f"-{text}" if number < 0 else text

    return convert
