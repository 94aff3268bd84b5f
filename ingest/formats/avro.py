"""Decodes Avro to JSON text.

Most schemas are compiled (`compiled_avro`). fastavro reads the others, and `avro_values` converts what it returns.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import orjson
from fastavro import parse_schema, schemaless_reader
from fastavro._read_py import read_data
from fastavro.io.binary_decoder import BinaryDecoder
from fastavro.repository import AbstractSchemaRepository
from fastavro.repository.base import SchemaRepositoryError
from fastavro.schema import load_schema

from ingest.formats.avro_values import PlainSchema, value_converter
from ingest.formats.compiled_avro import JSON_OPTIONS, compile_decoder
from ingest.message import HEADER_BYTES

ROOT = ""
"""Name under which fastavro loads the schema itself; its references have their own names."""
MAX_EMPTY_ITEMS = 10_000
"""Maximum array items per message that take no bytes, such as nulls: ten bytes can announce 2**60 of them."""

NO_REFERENCES: Mapping[str, str] = {}

Decode = Callable[[bytes], bytes]
"""Decodes a message, header included, to JSON text."""


def avro_decoder(
    schema: str,
    references: Mapping[str, str] = NO_REFERENCES,
    newest: str | None = None,
    newest_references: Mapping[str, str] = NO_REFERENCES,
    is_compiled: bool = True,
) -> Decode:
    """Return a function that decodes messages written with a schema.

    Args:
        schema: the writer's schema.
        references: texts of the schemas that `schema` refers to, by name.
        newest: the newest schema of the subject. If one of its fields lists a written field's name as an alias, the
            decoded field gets the newest name. It has no other effect: decoded messages have the fields that were
            written.
        newest_references: texts of the schemas that `newest` refers to, by name.
        is_compiled: compile the schema if possible, which is faster; the results are the same.

    Raises:
        Exception: of many types, if the schema is invalid. The returned function raises them for invalid bytes.
    """
    written = _parse(schema, references)
    if newest is not None and any('"aliases"' in text for text in (newest, *newest_references.values())):
        _rename(written, _parse(newest, newest_references))
    decode = compile_decoder(written, value_converter) if is_compiled else None
    return decode or _fastavro_decoder(written)


def _fastavro_decoder(written: Any) -> Decode:
    plain = PlainSchema(written)
    schema, convert, is_wrapped, names_records = plain.schema, plain.convert, plain.is_wrapped, plain.names_records
    # fastavro's C reader overflows the stack on deeply nested values, which ends the process, and allocates any number
    # of items that take no bytes. Schemas that allow such values are read in Python, with bounds.
    read: Any = _read_with_bounds if plain.is_recursive or plain.has_empty_items else schemaless_reader

    def decode(message: bytes) -> bytes:
        stream = BytesIO(message)
        stream.seek(HEADER_BYTES)
        value = read(stream, schema, None, True, True) if names_records else read(stream, schema)
        if stream.tell() != len(message):
            raise ValueError("the message has bytes after its value")
        if convert is not None:
            value = convert(value)
        return orjson.dumps(value["value"] if is_wrapped else value, None, JSON_OPTIONS)

    return decode


def _read_with_bounds(stream: BytesIO, schema: Any, _: None = None, *names_records: bool) -> Any:
    """Read a value like fastavro's `schemaless_reader`, in Python.

    Raises:
        ValueError: if a message has more array items than its size in bytes plus MAX_EMPTY_ITEMS.
        RecursionError: if a message is nested too deeply.
    """
    named: dict[str, dict[str, Any]] = {"writer": {}, "reader": {}}
    parsed = parse_schema(schema, named["writer"])
    is_named = bool(names_records)
    options = {"return_record_name": is_named, "return_record_name_override": is_named}
    return read_data(_BoundedDecoder(stream), parsed, named, None, options)  # type: ignore[no-untyped-call]


class _BoundedDecoder(BinaryDecoder):
    """Raises ValueError once a message has more array items than its size in bytes plus MAX_EMPTY_ITEMS."""

    def __init__(self, stream: BytesIO) -> None:
        super().__init__(stream)  # type: ignore[no-untyped-call]
        self._items_left = len(stream.getbuffer()) + MAX_EMPTY_ITEMS

    def iter_array(self) -> Iterator[None]:
        for item in super().iter_array():  # type: ignore[no-untyped-call]
            self._items_left -= 1
            if self._items_left < 0:
                raise ValueError("the message has more array items than bytes")
            yield item


class _References(AbstractSchemaRepository):
    """Gives fastavro the schemas that another schema refers to by name."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def load(self, name: str) -> Any:
        if name not in self._schemas:
            raise SchemaRepositoryError(f"no schema named {name}")
        return self._schemas[name]


def _parse(schema: str, references: Mapping[str, str]) -> Any:
    """Parse a schema: the result has full names, and includes the types that the schema refers to."""
    schemas = {ROOT: _read_json(schema), **{name: _read_json(text) for name, text in references.items()}}
    return load_schema(ROOT, repo=_References(schemas))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # some registries return the name of a primitive type without quotes


def _definitions(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the named types of a parsed schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema
        for inner in (schema.get("items"), schema.get("values"), *(one["type"] for one in schema.get("fields", ()))):
            yield from _definitions(inner)


def _rename(written: Any, newest: Any) -> None:
    """Rename fields of `written` for which `newest` has an alias, in place."""
    written_types = {one["name"]: one for one in _definitions(written)}
    newest_types = {one["name"]: one for one in _definitions(newest)}
    for name, record in newest_types.items():
        namespace = name.rpartition(".")[0]
        aliases = [alias if "." in alias else f"{namespace}.{alias}".lstrip(".") for alias in record.get("aliases", ())]
        old = next((written_types[one] for one in (name, *aliases) if one in written_types), None)
        if old is None and record is newest:
            old = (
                written if isinstance(written, dict) else None
            )  # versions of a subject may name the record differently
        if old is None or "fields" not in old:
            continue
        fields = {field["name"]: field for field in old["fields"]}
        for field in record.get("fields", ()):
            alias = next((one for one in field.get("aliases", ()) if one in fields), None)
            if field["name"] not in fields and alias is not None:
                fields[alias]["name"] = field["name"]
