"""Compiles an Avro schema to a Python function that decodes messages directly to JSON text.

Decoding with fastavro takes three times as long, since it builds an object per message that is then converted and
written. Only records of primitive types, nullable types and further records are compiled; fastavro decodes schemas with
arrays, maps, other unions or recursive types. A test compares the two decoders.
"""

from collections.abc import Callable
from json.encoder import encode_basestring
from struct import Struct
from typing import Any

import orjson

from ingest.message import HEADER_BYTES

JSON_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
MAX_LINES = 10_000
"""Maximum lines of a compiled function: a record is compiled again at each place where the schema uses it."""
SIZES = {"float": 4, "double": 8}

Convert = Callable[[Any], Any] | None
"""Converts a decoded value; None if the value needs no conversion."""


class _NotCompiledError(Exception):
    """The schema has a type that only fastavro decodes."""


def compile_decoder(schema: Any, converter: Callable[[Any], Convert]) -> Callable[[bytes], bytes] | None:
    """Return a function that decodes a message, header included, to JSON text; None if fastavro has to decode it.

    Args:
        schema: a schema parsed by fastavro, with full names.
        converter: returns the converter of a primitive, fixed or enum type.
    """
    compiler = _Compiler(converter)
    try:
        if not isinstance(schema, dict) or schema["type"] not in ("record", "error"):
            return None
        text = compiler.value(schema, 1)
        source = "\n".join(
            [
                "def decode(b):",
                f" i = {HEADER_BYTES}",
                *compiler.lines,
                " if i != len(b): raise ValueError('bytes are left, or missing')",
                f" return ({text}).encode()",
            ]
        )
        exec(source, compiler.names)  # noqa: S102  texts of the schema are quoted literals in the source
    except (_NotCompiledError, MemoryError, RecursionError, SyntaxError):
        return None
    decode: Callable[[bytes], bytes] = compiler.names["decode"]
    return decode


class _Compiler:
    """Collects the lines of the function. In these, `b` is the message (bytes) and `i` the index of the next byte."""

    def __init__(self, converter: Callable[[Any], Convert]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "long": _long,
            "quote": encode_basestring,
            "write": _write,
        }
        """Global variables of the function."""
        self._converter = converter
        self._named: dict[str, Any] = {}
        """Named types whose definition is complete, by name."""
        self._count = 0

    def value(self, schema: Any, depth: int) -> str:
        """Add the lines that read a value of a type; returns the Python expression of its JSON text."""
        if isinstance(schema, str) and schema in self._named:
            schema = self._named[schema]
        if isinstance(schema, list):
            return self._nullable(schema, depth)
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, depth)
        convert = self._converter({"type": schema} if isinstance(schema, str) else schema)
        if kind == "enum":
            text = self._enum(schema, depth)
        elif kind in PRIMITIVES:
            text = PRIMITIVES[kind](self, schema, depth, convert)
        else:
            raise _NotCompiledError(kind)
        if isinstance(schema, dict) and "name" in schema:
            self._named[schema["name"]] = schema
        return text

    def _add(self, depth: int, *lines: str) -> None:
        if len(self.lines) > MAX_LINES:
            raise _NotCompiledError("size")
        self.lines += [" " * depth + line for line in lines]

    def _name(self, value: Any = None) -> str:
        """Return a new variable name; if a value is given, it becomes a global variable of the function."""
        self._count += 1
        name = f"v{self._count}"
        if value is not None:
            self.names[name] = value
        return name

    def _record(self, schema: dict[str, Any], depth: int) -> str:
        texts, parts = [], []
        for field in schema["fields"]:
            texts.append(self.value(field["type"], depth))
            parts.append(encode_basestring(field["name"]).replace("%", "%%") + ":%s")
        self._named[schema["name"]] = schema
        return f"{'{' + ','.join(parts) + '}'!r} % ({''.join(f'{text}, ' for text in texts)})"

    def _nullable(self, branches: list[Any], depth: int) -> str:
        if len(branches) != 2 or "null" not in branches:
            raise _NotCompiledError("union")
        null_index = branches.index("null")
        result = self._name()
        self._add(depth, "n = b[i]", "i += 1", f"if n == {2 * null_index}:", f" {result} = 'null'")
        self._add(depth, f"elif n == {2 - 2 * null_index}:")
        text = self.value(branches[1 - null_index], depth + 1)
        self._add(depth, f" {result} = {text}", "else: raise ValueError('no branch of the union')")
        return result

    def _number(self, depth: int) -> None:
        """Add the lines that read a varint into `n`, still zigzag-encoded."""
        self._add(depth, "n = b[i]", "i += 1", "if n > 127: n, i = long(b, i - 1)")

    def _enum(self, schema: dict[str, Any], depth: int) -> str:
        symbols = self._name(tuple(map(encode_basestring, schema["symbols"])))
        result = self._name()
        self._number(depth)
        self._add(depth, "if n & 1: raise ValueError('no symbol')", f"{result} = {symbols}[n >> 1]")
        return result

    def _integer(self, _: Any, depth: int, convert: Convert) -> str:
        result = self._name()
        self._number(depth)
        self._add(depth, f"{result} = n >> 1 ^ -(n & 1)")
        return f"write({self._name(convert)}({result}))" if convert else result

    def _bytes(self, _: Any, depth: int, convert: Convert) -> str:
        result = self._name()
        self._number(depth)
        self._add(depth, "if n & 1: raise ValueError('a length below zero')", "j = i + (n >> 1)")
        self._add(depth, f"{result} = b[i:j]", "i = j")
        return f"write({self._name(convert)}({result}))" if convert else f"quote({result}.decode())"

    def _fixed(self, schema: dict[str, Any], depth: int, convert: Convert) -> str:
        result = self._name()
        self._add(depth, f"j = i + {int(schema['size'])}", f"{result} = b[i:j]", "i = j")
        return f"write({self._name(convert)}({result}))"

    def _boolean(self, _: Any, depth: int, __: Convert) -> str:
        result = self._name()
        self._add(depth, f"{result} = 'true' if b[i] else 'false'", "i += 1")
        return result

    def _real(self, schema: Any, depth: int, _: Convert) -> str:
        kind = schema if isinstance(schema, str) else schema["type"]
        result = self._name()
        unpack = self._name(Struct("<f" if kind == "float" else "<d").unpack_from)
        self._add(depth, f"{result} = {unpack}(b, i)[0]", f"i += {SIZES[kind]}")
        return f"write({result})"

    def _null(self, *_: Any) -> str:
        return "'null'"


PRIMITIVES: dict[str, Callable[..., str]] = {
    "int": _Compiler._integer,
    "long": _Compiler._integer,
    "string": _Compiler._bytes,
    "bytes": _Compiler._bytes,
    "fixed": _Compiler._fixed,
    "boolean": _Compiler._boolean,
    "float": _Compiler._real,
    "double": _Compiler._real,
    "null": _Compiler._null,
}


def _long(body: bytes, at: int) -> tuple[int, int]:
    """Read a varint of several bytes; returns it and the index of the byte after it."""
    number = 0
    for shift in range(0, 64, 7):
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at
    raise ValueError("a varint has more than 64 bits")


def _write(value: Any) -> str:
    return orjson.dumps(value, None, JSON_OPTIONS).decode()
