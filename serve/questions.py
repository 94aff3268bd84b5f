"""The questions of analyses/: what each takes, and its answer from the warehouse that the last green build published.

A build publishes (publish.py) a folder a version: the questions compiled for its engine and, on DuckDB, a
copy of the warehouse, since DuckDB lets nobody read a file that another process writes. A symbolic link names the
newest, so that a reader sees one whole build or the next, and keeps no build waiting. BigQuery needs no copy: the
questions are asked of the datasets as they are.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
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
QUESTIONS = "questions.json"
SEMANTIC_MANIFEST = "semantic_manifest.json"
CURRENT = "current"
VERSION = "%Y%m%dT%H%M%S.%fZ"
INTERRUPT_SECONDS = 0.05
"""Between two attempts to stop what took too long."""


class ArgumentError(UserError):
    """An argument that the question does not take, or of another type; the message names it."""


class QuestionTimeoutError(UserError):
    """An answer took longer than it may."""


class QuestionTooLargeError(UserError):
    """An answer would read more than it may."""


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
    """A value a column of the question. Timestamps are UTC, with or without saying so."""
    is_cut: bool
    """There were more rows than asked for."""
    seconds: float
    """That the warehouse took."""
    version: str
    """The build that answered."""


class Published(Protocol):
    """One published version. Thread-safe."""

    version: str
    questions: dict[str, Question]

    def ask(
        self,
        question: Question,
        values: Mapping[str, Value],
        max_rows: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Run the question with bound values.

        Raises:
            QuestionTimeoutError: when it took longer; it is no longer under way then.
            QuestionTooLargeError: when BigQuery would read more for it than SERVE_MAX_BYTES_BILLED.
        """

    def close(self) -> None: ...


class DuckDBPublished:
    """A published copy of a DuckDB warehouse, open for reading; each question has a cursor of its own."""

    def __init__(self, folder: Path, warehouse: str, threads: int | None = None) -> None:
        self.folder = folder
        self.version = folder.name
        self.questions = _read_questions(folder)
        options: dict[str, Any] = {} if threads is None else {"threads": threads}
        self._connection = duckdb.connect(str(folder / warehouse), read_only=True, config=options)
        self._connection.execute("set global TimeZone = 'UTC'")  # loads an extension, so it comes first
        self._connection.execute("set enable_external_access = false")

    def ask(
        self,
        question: Question,
        values: Mapping[str, Value],
        max_rows: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        started = time.perf_counter()
        with self._connection.cursor() as cursor, _interrupted(cursor, timeout_seconds):
            # not sql(), which plans twice
            found = cursor.execute(question.sql, dict(values))
            rows = found.fetchall() if max_rows is None else found.fetchmany(max_rows + 1)
        return Answer(rows[:max_rows], len(rows[:max_rows]) < len(rows), time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._connection.close()

    def query(self, sql: str, values: Mapping[str, Value] | None = None) -> "pa.Table":
        """The rows of any query, with bound values ($name); nothing can be written."""
        with self._connection.cursor() as cursor:
            return cursor.sql(sql, params=dict(values or {})).to_arrow_table()


@contextmanager
def _interrupted(cursor: duckdb.DuckDBPyConnection, timeout_seconds: float | None) -> Iterator[None]:
    """What runs longer ends with QuestionTimeoutError."""
    if timeout_seconds is None:
        yield
        return

    ended = threading.Event()

    def interrupt() -> None:
        # again until it has: DuckDB forgets an interrupt that comes before the query has begun
        with suppress(duckdb.Error):  # it ended just now
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
        client: a google.cloud.bigquery.Client.
        max_bytes_billed: BigQuery refuses a question that would read more.
    """

    def __init__(self, folder: Path, client: Any, max_bytes_billed: int) -> None:
        self.version = folder.name
        self.questions = _read_questions(folder)
        self._client = client
        self._max_bytes_billed = max_bytes_billed

    def ask(
        self,
        question: Question,
        values: Mapping[str, Value],
        max_rows: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.bigquery import QueryJobConfig
        from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY

        from ingest.sinks.bigquery import told

        config = QueryJobConfig(
            query_parameters=bigquery_parameters(question, values), maximum_bytes_billed=self._max_bytes_billed
        )
        retry, job_retry = DEFAULT_RETRY, DEFAULT_JOB_RETRY
        if timeout_seconds is not None:
            # the second would try for ten minutes what the first gave up
            retry, job_retry = retry.with_timeout(timeout_seconds), None
            config.job_timeout_ms = int(timeout_seconds * 1000)  # should this process be gone by then
        started = time.perf_counter()
        with told():
            try:
                job = self._client.query(question.sql, job_config=config, retry=retry, job_retry=job_retry)
                try:
                    limit = None if max_rows is None else max_rows + 1
                    found = job.result(max_results=limit, retry=retry, timeout=timeout_seconds)
                    rows = [tuple(row.values()) for row in found]
                except TimeoutError as error:
                    job.cancel()
                    raise _took_longer(timeout_seconds or 0) from error
            except GoogleAPICallError as error:
                reasons = {detail.get("reason") for detail in error.errors if isinstance(detail, dict)}
                if "bytesBilledLimitExceeded" in reasons:
                    raise QuestionTooLargeError(
                        f"the answer would read more than SERVE_MAX_BYTES_BILLED ({self._max_bytes_billed:,}): ask for"
                        " less, such as a shorter period"
                    ) from error
                if timeout_seconds is not None and reasons & {"stopped", "timeout"}:  # by job_timeout_ms
                    raise _took_longer(timeout_seconds) from error
                raise
        return Answer(rows[:max_rows], len(rows[:max_rows]) < len(rows), time.perf_counter() - started, self.version)

    def close(self) -> None:
        self._client.close()


def bigquery_parameters(question: Question, values: Mapping[str, Value]) -> list[Any]:
    """ScalarQueryParameters of the types that the question says."""
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
    return QuestionTimeoutError(f"the answer took longer than {seconds:.3g} s: ask for less, such as a shorter period")


def published_folder(settings: Settings) -> Path:
    """Where builds publish, one folder a version: beside the warehouse, or where one of DuckDB would be."""
    if settings.warehouse == "bigquery":
        return settings.warehouse_path.with_name(f"{settings.gcp_project}.{settings.dataset_prefix}analytics.published")
    return settings.warehouse_path.with_name(f"{settings.warehouse_path.name}.published")


def published_version(settings: Settings) -> str | None:
    """The name of the version that was published last; None when there is none yet. A single system call."""
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
        threads: of DuckDB, a question; all cores unless given.

    Raises:
        UserError: when no build has published one yet, or another release of this project has.
    """
    failure: Exception | None = None
    for _ in range(3):
        try:
            folder = (published_folder(settings) / CURRENT).resolve(strict=True)
            if settings.warehouse == "bigquery":
                from ingest.sinks.bigquery import open_client

                return BigQueryPublished(folder, open_client(settings), settings.serve_max_bytes_billed)
            return DuckDBPublished(folder, settings.warehouse_path.name, threads)
        except (OSError, duckdb.IOException) as error:  # between the two, builds may have published and swept it
            failure = error
        except ValidationError as error:
            raise UserError("what is published is of another release: run `make build`") from error
    raise UserError("nothing is published yet: run `make ingest build` first") from failure


def _read_questions(folder: Path) -> dict[str, Question]:
    questions = TypeAdapter(list[Question]).validate_json((folder / QUESTIONS).read_bytes())
    return {question.name: question for question in questions}
