"""The questions of analyses/: what each takes, and its answer from the warehouse that the last green build published.

A build publishes (publish.py) one directory per version: the questions compiled for its engine and, on DuckDB, a copy
of the warehouse, since DuckDB does not let one process read a file that another one writes. A symbolic link names the
newest version, so that a reader sees one whole build or the next, and no build waits for a reader. BigQuery needs no
copy: the questions run on the datasets as they are.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import duckdb
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ingest.errors import UserError
from ingest.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | date | datetime
ParameterType = Literal["string", "integer", "date", "timestamp"]
ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
EXPECTED: dict[ParameterType, str] = {
    "string": "text",
    "integer": "a whole number from 1 on",
    "date": "a date such as 2026-01-31",
    "timestamp": "a time such as 2026-01-31 or 2026-01-31T18:30:00Z (UTC unless it says otherwise)",
}
LIMIT = "limit"
"""Name of the parameter for the most rows of an answer. The question ends with `limit {{ limit }}`."""
QUESTIONS = "questions.json"
SEMANTIC_MANIFEST = "semantic_manifest.json"
CURRENT = "current"
VERSION = "%Y%m%dT%H%M%S.%fZ"
INTERRUPT_SECONDS = 0.05
"""Between two attempts to stop a query that took too long."""


class ArgumentError(UserError):
    """An argument that the question does not take, or of another type; the message names it."""


class QuestionTimeoutError(UserError):
    """An answer took longer than SERVE_TIMEOUT_SECONDS."""


class QuestionTooLargeError(UserError):
    """An answer would need more than SERVE_MEMORY_LIMIT, or read more than SERVE_MAX_BYTES_BILLED."""


class QuestionFailedError(UserError):
    """The engine could not compute the answer; the message may quote values of the warehouse."""


class Parameter(BaseModel, frozen=True):
    name: str
    type: ParameterType
    default: str
    """As one would write it in a URL."""
    description: str
    choices: list[str] = []
    """The only values of a string parameter that lists them; empty: any text."""

    def read(self, text: str) -> Value:
        """The value that the text means.

        Raises:
            ArgumentError: when it is not of this type, or not one of the choices.
        """
        try:
            match self.type:
                case "string":
                    if self.choices and text not in self.choices:
                        raise ArgumentError(f"{self.name}: expected one of {', '.join(self.choices)}, got {text!r}")
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
    type: ColumnType
    """The same on both engines."""
    description: str


class Question(BaseModel, frozen=True):
    """An analysis, compiled: its text binds each parameter ($name on DuckDB, @name on BigQuery)."""

    name: str
    description: str
    parameters: list[Parameter]
    columns: list[Column]
    sql: str
    problems: list[str] = []
    """Why it cannot be asked, one line per problem; empty for a question that can be."""

    def values(self, arguments: Mapping[str, str]) -> dict[str, Value]:
        """A value for each parameter, the default where there is no argument.

        Raises:
            ArgumentError: naming the first argument that is unknown or cannot be read.
        """
        known = [parameter.name for parameter in self.parameters]
        for name in arguments:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ArgumentError(f"{name}: not a parameter of {self.name}; {takes}")
        values = {
            parameter.name: parameter.read(arguments.get(parameter.name, parameter.default))
            for parameter in self.parameters
        }
        for start, end in (("start_time", "end_time"), ("start_date", "end_date")):
            if start in values and end in values and values[start] > values[end]:  # type: ignore[operator]
                raise ArgumentError(f"{end}: {values[end]} is before {start}, {values[start]}")
        return values


@dataclass(frozen=True)
class Answer:
    rows: list[tuple[Any, ...]]
    """One value per column of the question. Timestamps are UTC, with or without a zone."""
    is_cut: bool
    """Whether there are more rows than the parameter `limit` or SERVE_MAX_ROWS allows."""
    seconds: float
    """Execution time in the warehouse."""
    version: str
    """The build that answered."""


class Published(Protocol):
    """One published version. Thread-safe."""

    version: str
    questions: dict[str, Question]
    left_out: dict[str, Question]
    """Questions that this version cannot answer: their `problems` say why."""

    def ask(self, question: Question, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        """Run the question with bound values.

        Args:
            timeout_seconds: SERVE_TIMEOUT_SECONDS unless given.

        Raises:
            QuestionTimeoutError: when it took longer; by then it no longer runs.
            QuestionTooLargeError: when it needs more than SERVE_MEMORY_LIMIT, or reads more than
                SERVE_MAX_BYTES_BILLED on BigQuery.
            QuestionFailedError: when DuckDB cannot compute it.
        """

    def close(self) -> None: ...


def find_question(published: Published, name: str) -> Question:
    """The question of this name.

    Raises:
        UserError: when there is none, or this version left it out; the message says which.
    """
    if name in published.questions:
        return published.questions[name]
    if name in published.left_out:
        raise UserError(why_left_out(published.left_out[name]))
    if meant := get_close_matches(name, published.questions, n=1, cutoff=0.8):
        raise UserError(f"there is no query {name!r}; did you mean {meant[0]}?")
    raise UserError(f"there is no query {name!r}; the queries are {', '.join(published.questions)}")


def why_left_out(question: Question) -> str:
    return f"{question.name} is left out of what is published: {'; '.join(question.problems)}"


class DuckDBPublished:
    """A published copy of a DuckDB warehouse, open for reading; each question has a cursor of its own.

    Args:
        folder: the published version.
        settings: the bounds of an answer, and the name of the file.
        threads: for one question; all cores unless given.
    """

    def __init__(self, folder: Path, settings: Settings, threads: int | None = None) -> None:
        self.folder = folder
        self.version = folder.name
        self.questions, self.left_out = _read_questions(folder)
        self._settings = settings
        options: dict[str, Any] = {"memory_limit": settings.serve_memory_limit}
        if threads is not None:
            options["threads"] = threads
        self._connection = duckdb.connect(str(folder / settings.warehouse_path.name), read_only=True, config=options)
        self._connection.execute("set global TimeZone = 'UTC'")  # loads an extension, so it comes first
        self._connection.execute("set enable_external_access = false")

    def ask(self, question: Question, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        if timeout_seconds is None:
            timeout_seconds = self._settings.serve_timeout_seconds
        bound, most = bind_limit(values, self._settings.serve_max_rows)
        started = time.perf_counter()
        try:
            with self._bounded_cursor(timeout_seconds) as cursor:
                # not sql(), which plans twice
                rows = cursor.execute(question.sql, bound).fetchmany(most + 1)
        except duckdb.Error as error:
            raise QuestionFailedError(f"{question.name}: {str(error).splitlines()[0]}") from error
        return Answer(rows[:most], len(rows) > most, time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._connection.close()

    def query(
        self, sql: str, values: Mapping[str, Value] | None = None, timeout_seconds: float | None = None
    ) -> "pa.Table":
        """The rows of any query, with bound values ($name); nothing can be written.

        Args:
            timeout_seconds: no limit unless given.

        Raises:
            QuestionTimeoutError: when it took longer.
            QuestionTooLargeError: when it needs more than SERVE_MEMORY_LIMIT.
            duckdb.Error: when DuckDB cannot run it.
        """
        with self._bounded_cursor(timeout_seconds) as cursor:
            return cursor.sql(sql, params=dict(values or {})).to_arrow_table()

    def describe(self, question: Question) -> list[tuple[str, str]]:
        """Name and DuckDB's type of each column of the answer; the question is planned, not run."""
        with self._connection.cursor() as cursor:
            return describe(cursor, question)

    @contextmanager
    def _bounded_cursor(self, timeout_seconds: float | None) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection.cursor() as cursor, _interrupted(cursor, timeout_seconds):
            try:
                yield cursor
            except duckdb.OutOfMemoryException as error:
                raise QuestionTooLargeError(
                    f"the answer would need more memory than SERVE_MEMORY_LIMIT ({self._settings.serve_memory_limit}):"
                    " ask for less, such as a shorter period"
                ) from error


@contextmanager
def _interrupted(cursor: duckdb.DuckDBPyConnection, timeout_seconds: float | None) -> Iterator[None]:
    """Raise QuestionTimeoutError in the body when it runs longer."""
    if timeout_seconds is None:
        yield
        return

    ended = threading.Event()

    def interrupt() -> None:
        # repeated, since DuckDB forgets an interrupt that comes before the query begins
        with suppress(duckdb.Error):  # the query has just ended
            while not ended.is_set():
                cursor.interrupt()
                ended.wait(INTERRUPT_SECONDS)

    timer = threading.Timer(timeout_seconds, interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise _took_longer(timeout_seconds) from error
    finally:
        timer.cancel()
        ended.set()


class BigQueryPublished:
    """The questions as they were published, on the datasets as they are.

    Args:
        folder: the published version.
        client: a google.cloud.bigquery.Client.
        settings: the bounds of an answer.
    """

    def __init__(self, folder: Path, client: Any, settings: Settings) -> None:
        self.version = folder.name
        self.questions, self.left_out = _read_questions(folder)
        self._client = client
        self._settings = settings

    def ask(self, question: Question, values: Mapping[str, Value], timeout_seconds: float | None = None) -> Answer:
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.bigquery import QueryJobConfig
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        from ingest.sinks.bigquery import told

        if timeout_seconds is None:
            timeout_seconds = self._settings.serve_timeout_seconds
        bound, most = bind_limit(values, self._settings.serve_max_rows)
        max_bytes_billed = self._settings.serve_max_bytes_billed
        config = QueryJobConfig(
            query_parameters=bigquery_parameters(question, bound),
            maximum_bytes_billed=max_bytes_billed,
            job_timeout_ms=int(timeout_seconds * 1000),  # should this process be gone by then
        )
        retry = DEFAULT_RETRY.with_timeout(timeout_seconds)
        started = time.perf_counter()
        with told():
            try:
                # by default the job would be tried again for ten minutes after `retry` gives up
                job = self._client.query(
                    question.sql, job_config=config, retry=retry, timeout=timeout_seconds, job_retry=None
                )
                try:
                    found = job.result(max_results=most + 1, retry=retry, timeout=timeout_seconds)
                    rows = [tuple(row.values()) for row in found]
                except TimeoutError as error:
                    job.cancel()
                    raise _took_longer(timeout_seconds) from error
            except GoogleAPICallError as error:
                reasons = {detail.get("reason") for detail in error.errors if isinstance(detail, dict)}
                if "bytesBilledLimitExceeded" in reasons:
                    raise QuestionTooLargeError(
                        f"the answer would read more than SERVE_MAX_BYTES_BILLED ({max_bytes_billed:,}): ask for less,"
                        " such as a shorter period"
                    ) from error
                if reasons & {"stopped", "timeout"}:  # by job_timeout_ms
                    raise _took_longer(timeout_seconds) from error
                raise
        return Answer(rows[:most], len(rows) > most, time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._client.close()


def bind_limit(values: Mapping[str, Value], max_rows: int) -> tuple[dict[str, Value], int]:
    """The values to bind, and the most rows that the answer may have.

    Where the question has a parameter `limit`, one row more than the answer may have is asked for: it is not shown, and
    tells whether the answer is cut.
    """
    limit = values.get(LIMIT)
    if not isinstance(limit, int):
        return dict(values), max_rows
    most = min(limit, max_rows)
    return {**values, LIMIT: most + 1}, most


def describe(cursor: duckdb.DuckDBPyConnection, question: Question) -> list[tuple[str, str]]:
    """Name and DuckDB's type of each column of the answer; the question is planned, not run.

    Raises:
        duckdb.Error: when it cannot be planned.
    """
    described = cursor.execute(f"describe {question.sql}", question.values({})).fetchall()
    return [(name, type_.partition("(")[0].lower()) for name, type_, *_ in described]


def bigquery_parameters(question: Question, values: Mapping[str, Value]) -> list[Any]:
    """ScalarQueryParameters of the types that the question declares."""
    from google.cloud.bigquery import ScalarQueryParameter

    types = {"string": "STRING", "integer": "INT64", "date": "DATE", "timestamp": "TIMESTAMP"}
    return [
        ScalarQueryParameter(
            parameter.name,
            types[parameter.type],
            value.replace(tzinfo=UTC) if isinstance(value := values[parameter.name], datetime) else value,
        )
        for parameter in question.parameters
    ]


def _took_longer(seconds: float) -> QuestionTimeoutError:
    return QuestionTimeoutError(
        f"the answer took longer than {seconds:.3g} s (SERVE_TIMEOUT_SECONDS): ask for less, such as a shorter period"
    )


def published_folder(settings: Settings) -> Path:
    """Where builds publish, one directory per version: next to the DuckDB file, also when the warehouse is BigQuery."""
    if settings.warehouse == "bigquery":
        return settings.warehouse_path.with_name(f"{settings.gcp_project}.{settings.dataset_prefix}analytics.published")
    return settings.warehouse_path.with_name(f"{settings.warehouse_path.name}.published")


def published_version(settings: Settings) -> str | None:
    """The name of the version that was published last, None if there is none yet. A single system call."""
    try:
        return (published_folder(settings) / CURRENT).readlink().name
    except OSError:
        return None


def published_at(version: str) -> datetime:
    """When a version was published, UTC."""
    return datetime.strptime(version, VERSION).replace(tzinfo=UTC)


def open_published(settings: Settings, threads: int | None = None) -> Published:
    """The version that was published last.

    Args:
        threads: of DuckDB, per question; all cores unless given.

    Raises:
        UserError: when no build has published one yet, or another release of this project has published it.
    """
    failure: Exception | None = None
    for _ in range(3):
        try:
            folder = (published_folder(settings) / CURRENT).resolve(strict=True)
            if settings.warehouse == "bigquery":
                from ingest.sinks.bigquery import open_client

                return BigQueryPublished(folder, open_client(settings), settings)
            return DuckDBPublished(folder, settings, threads)
        except (OSError, duckdb.IOException) as error:  # builds may just have published newer ones and removed this one
            failure = error
        except ValidationError as error:
            raise UserError("another release published the last version: run `make build`") from error
    raise UserError("nothing is published yet: run `make ingest build` first") from failure


def left_out(settings: Settings) -> list[Question]:
    """The questions that the version published last cannot answer; their `problems` say why."""
    return list(_read_questions(published_folder(settings) / CURRENT)[1].values())


def _read_questions(folder: Path) -> tuple[dict[str, Question], dict[str, Question]]:
    """Those that can be asked, and those that are left out, by name."""
    found = TypeAdapter(list[Question]).validate_json((folder / QUESTIONS).read_bytes())
    askable = {question.name: question for question in found if not question.problems}
    return askable, {question.name: question for question in found if question.problems}
