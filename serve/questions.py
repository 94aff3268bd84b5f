"""The questions of analyses/: what each takes, and its answer from the warehouse that the last green build published.

A build publishes (publish.py) a folder a version: the questions compiled for its engine and, on DuckDB, a
copy of the warehouse, since DuckDB lets nobody read a file that another process writes. A symbolic link names the
newest, so that a reader sees one whole build or the next, and keeps no build waiting.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import duckdb
import pyarrow as pa
from pydantic import BaseModel, Field, TypeAdapter

from ingest.errors import UserError
from ingest.settings import Settings

Value = str | int | date | datetime
ParameterType = Literal["string", "integer", "date", "timestamp"]
EXPECTED: dict[ParameterType, str] = {
    "string": "text",
    "integer": "a whole number from 1 on",
    "date": "a date such as 2026-01-31",
    "timestamp": "a time such as 2026-01-31 or 2026-01-31T18:30:00Z (UTC unless it says otherwise)",
}
QUESTIONS = "questions.json"
SEMANTIC_MANIFEST = "semantic_manifest.json"
CURRENT = "current"


class ArgumentError(UserError):
    """An argument that the question does not take, or of another type; the message names it."""


class Parameter(BaseModel, frozen=True):
    name: str
    type: ParameterType
    default: str
    """As one would write it in a URL."""
    description: str

    def read(self, text: str) -> Value:
        """The value that the text means.

        Raises:
            ArgumentError: when it is none of this type.
        """
        try:
            match self.type:
                case "string":
                    return text
                case "integer":
                    return TypeAdapter(Annotated[int, Field(ge=1, lt=2**63)]).validate_python(int(text))
                case "date":
                    return date.fromisoformat(text)
                case "timestamp":
                    read = datetime.fromisoformat(text)
                    return read.astimezone(UTC).replace(tzinfo=None) if read.tzinfo else read
        except (ValueError, OverflowError) as error:
            raise ArgumentError(f"{self.name}: expected {EXPECTED[self.type]}, got {text!r}") from error


class Column(BaseModel, frozen=True):
    name: str
    description: str


class Question(BaseModel, frozen=True):
    """An analysis, compiled: its text binds each parameter ($name on DuckDB, @name on BigQuery)."""

    name: str
    description: str
    parameters: list[Parameter]
    columns: list[Column]
    sql: str

    def values(self, arguments: Mapping[str, str]) -> dict[str, Value]:
        """A value for each parameter, the default where there is no argument.

        Raises:
            ArgumentError: naming the first argument that is unknown or cannot be read.
        """
        known = [parameter.name for parameter in self.parameters]
        for name in arguments:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ArgumentError(f"{name}: no parameter of {self.name}; {takes}")
        return {
            parameter.name: parameter.read(arguments.get(parameter.name, parameter.default))
            for parameter in self.parameters
        }


@dataclass(frozen=True)
class Answer:
    rows: pa.Table
    seconds: float
    """That the warehouse took."""
    version: str
    """The build that answered."""


class Published(Protocol):
    """One published version."""

    version: str
    questions: dict[str, Question]

    def ask(self, question: Question, values: Mapping[str, Value]) -> Answer:
        """Run the question with bound values."""

    def close(self) -> None: ...


class DuckDBPublished:
    """A published copy of a DuckDB warehouse, open for reading. Thread-safe: each question has a cursor of its own."""

    def __init__(self, folder: Path, warehouse: str, threads: int | None = None) -> None:
        self.folder = folder
        self.version = folder.name
        self.questions = _read_questions(folder)
        options: dict[str, Any] = {} if threads is None else {"threads": threads}
        self._connection = duckdb.connect(str(folder / warehouse), read_only=True, config=options)
        self._connection.execute("set global TimeZone = 'UTC'")  # loads an extension, so it comes first
        self._connection.execute("set enable_external_access = false")

    def ask(self, question: Question, values: Mapping[str, Value]) -> Answer:
        started = time.perf_counter()
        with self._connection.cursor() as cursor:
            rows = cursor.sql(question.sql, params=dict(values)).to_arrow_table()
        return Answer(rows, time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._connection.close()

    def query(self, sql: str, values: Mapping[str, Value] | None = None) -> pa.Table:
        """The rows of any query, with bound values ($name); nothing can be written."""
        with self._connection.cursor() as cursor:
            return cursor.sql(sql, params=dict(values or {})).to_arrow_table()


def published_folder(settings: Settings) -> Path:
    """Where builds publish: beside the warehouse, one folder a version."""
    return settings.warehouse_path.with_name(f"{settings.warehouse_path.name}.published")


def open_published(settings: Settings, threads: int | None = None) -> Published:
    """The version that was published last.

    Raises:
        UserError: when no build has published one yet.
    """
    for _ in range(3):
        try:
            folder = (published_folder(settings) / CURRENT).resolve(strict=True)
            return DuckDBPublished(folder, settings.warehouse_path.name, threads)
        except (OSError, duckdb.IOException) as error:  # between the two, builds may have published and swept it
            failure = error
    raise UserError("nothing is published yet: run `make ingest build` first") from failure


def _read_questions(folder: Path) -> dict[str, Question]:
    questions = TypeAdapter(list[Question]).validate_json((folder / QUESTIONS).read_bytes())
    return {question.name: question for question in questions}
