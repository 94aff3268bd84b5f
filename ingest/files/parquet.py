"""Reads the rows of Parquet files as JSON bodies."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.files.columns import Value, nested
from ingest.files.event_file import UnreadableError


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        UnreadableError: for a file that is not Parquet.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names)
    except ArrowException as error:
        raise UnreadableError(f"not a Parquet file ({error})") from error


def parquet_bodies(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    """Yield each row as a JSON object with these names for the columns, in order.

    Integers and decimals are exact, times are ISO 8601 in UTC, NaN and infinity are null.

    Raises:
        UnreadableError: for a file that cannot be read.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        columns = [f"c{number}" for number in range(len(names))]
        rows = (
            f"read_parquet($path, binary_as_string => true, hive_partitioning => false) as rows({', '.join(columns)})"
        )
        # DuckDB reads a path as a glob: escape its special characters
        parameters = {"path": re.sub(r"([*?\[])", r"[\1]", str(path))}
        try:
            types = connection.execute(f"describe select * from {rows}", parameters).fetchall()  # noqa: S608
            values = [
                f"case when isfinite({column}) then {column} end" if kind in ("FLOAT", "DOUBLE") else column
                for column, kind, *_ in types
            ]
            select = f"select to_json({_struct(nested(names), values)}) from {rows}"  # noqa: S608  names are quoted
            for batch in connection.sql(select, params=parameters).to_arrow_reader(10_000):
                for body in batch.column(0).to_pylist():
                    yield body.encode()
        except duckdb.Error as error:
            raise UnreadableError(str(error).partition("\n")[0]) from error


def _struct(inner: Value, values: Sequence[str]) -> str:
    """Return the SQL of an object or a list of these values."""
    if isinstance(inner, dict):
        fields = ("'{}': {}".format(name.replace("'", "''"), _struct(below, values)) for name, below in inner.items())
        return f"{{{', '.join(fields)}}}"
    if isinstance(inner, list):  # elements of DuckDB's own lists must have one type
        return f"json_array({', '.join(_struct(element, values) for element in inner)})"
    return "null" if inner is None else values[inner]
