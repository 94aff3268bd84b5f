"""The patch of `recover`: a file with one SQL expression over `payload`, which DuckDB evaluates for both engines."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from common.errors import UserError

SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "1GiB",
}
"""Options of a DuckDB that reads no file, no network and no extension."""
OTHER_ROWS = {"SUBQUERY": "a subquery", "WINDOW": "a window function", "STAR": "*", "PARAMETER": "a parameter"}
"""Classes of expressions that would read more than the payload of their own message."""


class Patch:
    """An expression whose result is the new payload of a message; null leaves the message as it is.

    `payload` is the body as text, of Avro and Protobuf the decoded JSON. Close it after use.

    Args:
        path: file with the expression.

    Raises:
        UserError: when the file cannot be read, or holds anything but one expression over `payload` that returns JSON
            or text.
    """

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; see --patch") from error
        except UnicodeDecodeError as error:
            raise UserError(f"cannot read {path}: it is not UTF-8; see --patch") from error
        self.name = f"{path.name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        """Name of the file, and the start of the SHA-256 of its text."""
        self._path = path
        self._connection = duckdb.connect(":memory:", config=SANDBOX)
        self._connection.execute("set lock_configuration = true")
        self._query = (
            f"select number, cast(try((\n{text}\n)) as varchar) as patched from (select number, payload from given)"  # noqa: S608  checked to be an expression
        )
        try:
            self._check(text)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def apply(self, payloads: Sequence[str | None]) -> list[str | None]:
        """Return the new payload of each message; None where the expression is null or fails, or without a payload.

        Raises:
            UserError: when DuckDB cannot evaluate the expression, such as for lack of memory.
        """
        rows = [(number, payload) for number, payload in enumerate(payloads) if payload is not None]
        numbers, texts = zip(*rows, strict=True) if rows else ((), ())
        given = pa.table({"number": pa.array(numbers, pa.int64()), "payload": pa.array(texts, pa.string())})
        self._connection.register("given", given)
        try:
            patched = dict(self._connection.execute(self._query).fetchall())
        except duckdb.Error as error:
            raise self._error(error) from error
        finally:
            self._connection.unregister("given")
        return [patched.get(number) for number in range(len(payloads))]

    def _check(self, text: str) -> None:
        """Check that the text is one expression over `payload`, by its syntax tree and by binding it."""
        expressions, query = self._parse(text)
        if len(expressions) != 1 or query != self._parse("payload")[1]:
            raise UserError(f"the patch {self._path} is not one SQL expression over payload")
        if found := next((OTHER_ROWS[name] for name in _classes(expressions) if name in OTHER_ROWS), None):
            raise UserError(f"the patch {self._path} has {found}: it may read nothing but payload")
        try:
            type_ = self._connection.sql(f"select (\n{text}\n) from (select '' as payload) limit 0").types[0]  # noqa: S608  checked to be an expression
        except duckdb.Error as error:
            raise self._error(error) from error
        if str(type_) not in ("VARCHAR", "JSON"):
            raise UserError(f"the patch {self._path} returns {type_}: it must return the new payload as JSON or text")
        self.apply(["{}"])  # binds `try`, which rejects functions such as random()

    def _parse(self, text: str) -> tuple[list[Any], Any]:
        """The expressions that the text selects, and the rest of the syntax tree."""
        [(tree,)] = self._connection.execute("select json_serialize_sql(?)", [f"select (\n{text}\n)"]).fetchall()
        parsed = json.loads(tree)
        if parsed["error"]:
            raise UserError(f"the patch {self._path} is not one SQL expression: {parsed['error_message']}")
        query = parsed["statements"]
        expressions = query[0]["node"].pop("select_list", [])
        return expressions, query

    def _error(self, error: duckdb.Error) -> UserError:
        return UserError(f"the patch {self._path} cannot be evaluated: {str(error).splitlines()[0]}")


def _classes(tree: Any) -> Iterator[str]:
    """The classes of all expressions in a syntax tree of DuckDB."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree["class"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from _classes(one)
