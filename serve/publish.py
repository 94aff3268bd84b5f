"""Publishes what a green build made, for serve/questions.py to read."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner
from jinja2 import Environment, nodes
from pydantic import TypeAdapter

from ingest.errors import UserError
from ingest.settings import Settings
from ingest.sinks.duckdb import DuckDBSink
from serve.questions import (
    CURRENT,
    EXPECTED,
    QUESTIONS,
    SEMANTIC_MANIFEST,
    VERSION,
    Column,
    ColumnType,
    Parameter,
    Question,
    bigquery_parameters,
    published_folder,
    published_version,
)

Described = Callable[[Question], list[tuple[str, str]]]
"""Name and the engine's type of each column of the answer."""

COLUMN_TYPES: dict[str, ColumnType] = {
    **dict.fromkeys(("varchar", "STRING"), "string"),
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint", "INTEGER", "INT64"), "integer"),
    **dict.fromkeys(("decimal", "float", "double", "NUMERIC", "BIGNUMERIC", "FLOAT", "FLOAT64"), "number"),
    **dict.fromkeys(("boolean", "BOOLEAN", "BOOL"), "boolean"),
    **dict.fromkeys(("date", "DATE"), "date"),
    **dict.fromkeys(("timestamp", "timestamp with time zone", "TIMESTAMP"), "timestamp"),
}


def publish(
    settings: Settings, sink: DuckDBSink | None, options: list[str], target: Path, same_code_as: str | None = None
) -> str:
    """Publish the compiled questions as a version of their own and, on DuckDB, a copy of the warehouse.

    Args:
        sink: the DuckDB warehouse, which the caller holds.
        options: of dbt: the project, the profiles and the vars of the build.
        target: where dbt wrote the artifacts of the build.
        same_code_as: a version by the same code and vars; while it is the newest, its questions are taken as they are.

    Returns:
        The name of the version.

    Raises:
        UserError: when it cannot be published; the version before stays.
    """
    folder = published_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            before = published_version(settings)
            version = folder / f"{datetime.now(UTC):{VERSION}}"
            # what a killed build left, too
            _sweep(folder, {before})
            try:
                version.mkdir()
                questions = folder / CURRENT / QUESTIONS
                if before == same_code_as and questions.exists():
                    shutil.copy(questions, version)
                else:
                    _compile(version, settings, sink, options)
                if sink is not None:
                    _copy(settings, sink, target, version)
                link = folder / f"{CURRENT}.new"
                link.symlink_to(version.name)
                link.replace(folder / CURRENT)
            except BaseException:
                shutil.rmtree(version, ignore_errors=True)
                raise
            # a reader may be about to open the one before
            _sweep(folder, {before, version.name})
            return version.name
    except (OSError, subprocess.CalledProcessError, duckdb.Error) as error:
        reason = str(getattr(error, "stderr", None) or error)
        raise UserError(
            f"built, but not published in {folder}: {reason.strip().partition(chr(10))[0]}; what was published before"
            " stays: build again once that is put right"
        ) from error


def _compile(version: Path, settings: Settings, sink: DuckDBSink | None, options: list[str]) -> None:
    with _describing(settings, sink) as described:
        questions = compile_questions(options, described)
    (version / QUESTIONS).write_bytes(TypeAdapter(list[Question]).dump_json(questions, indent=1))


def _copy(settings: Settings, sink: DuckDBSink, target: Path, version: Path) -> None:
    shutil.copy(target / SEMANTIC_MANIFEST, version)
    with sink.connection() as connection:
        connection.execute("checkpoint")
    # By another process: were the file opened and closed in this one, DuckDB's lock on it would be gone. `cp` shares
    # the blocks where the file system can.
    copy: list[str | Path] = ["cp", settings.warehouse_path, version / settings.warehouse_path.name]
    subprocess.run(copy, check=True, capture_output=True, text=True)  # noqa: S603  no shell, and only paths of ours


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Builds on BigQuery, which nothing else keeps apart, publish one after the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path, kept: set[str | None]) -> None:
    for path in folder.iterdir():
        if path.is_symlink():
            if path.name != CURRENT:
                path.unlink()
        elif path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)  # the next build sweeps what a server just wrote there


@contextmanager
def _describing(settings: Settings, sink: DuckDBSink | None) -> Iterator[Described]:
    """Neither engine runs the question for this."""
    if sink is not None:
        with sink.connection() as connection, connection.cursor() as cursor:

            def by_duckdb(question: Question) -> list[tuple[str, str]]:
                described = cursor.execute(f"describe {question.sql}", question.values({})).fetchall()
                return [(name, type_.partition("(")[0].lower()) for name, type_, *_ in described]

            yield by_duckdb
        return

    from google.cloud.bigquery import QueryJobConfig

    from ingest.sinks.bigquery import open_client, told

    with told(), open_client(settings) as client:

        def by_bigquery(question: Question) -> list[tuple[str, str]]:
            config = QueryJobConfig(dry_run=True, query_parameters=bigquery_parameters(question, question.values({})))
            return [(field.name, field.field_type) for field in client.query(question.sql, job_config=config).schema]

        yield by_bigquery


def compile_questions(options: list[str], described: Described) -> list[Question]:
    """Every analysis, by name.

    Raises:
        UserError: when one does not compile, or its yml and its text disagree.
    """
    # without JSON: the files in target are those of the build
    command = ["--no-write-json", "compile", "--select", "resource_type:analysis", "--no-populate-cache"]
    result = dbtRunner().invoke(["--log-level", "none", *command, *options])
    if result.exception is not None:
        raise UserError(first_paragraph(result.exception))
    if not isinstance(result.result, RunExecutionResult):
        raise TypeError(type(result.result))
    return sorted((_question(one.node, described) for one in result.result.results), key=lambda one: one.name)


def _question(node: Any, described: Described) -> Question:
    try:
        parameters = _parameters(node)
        question = Question(
            name=node.name, description=node.description, parameters=parameters, columns=[], sql=node.compiled_code
        )
        return question.model_copy(update={"columns": _columns(node, described(question))})
    except (UserError, duckdb.Error) as error:
        raise UserError(f"{node.original_file_path}: {str(error).splitlines()[0]}") from error


def _columns(node: Any, types: list[tuple[str, str]]) -> list[Column]:
    """As the engine gives and its yml describes them."""
    columns = []
    for name, type_ in types:
        if name not in node.columns:
            raise UserError(f"its yml does not describe the column {name}")
        if type_ not in COLUMN_TYPES:
            raise UserError(f"the column {name} is of type {type_}, which no answer has")
        columns.append(Column(name=name, type=COLUMN_TYPES[type_], description=node.columns[name].description))
    if surplus := sorted(node.columns.keys() - {name for name, _ in types}):
        raise UserError(f"its yml describes the column {surplus[0]}, which it does not give")
    return columns


def _parameters(node: Any) -> list[Parameter]:
    """As its text names and its yml describes them."""
    descriptions = dict(node.config.meta.get("parameters", {}))
    parameters = []
    for name, default, type_ in parameters_of(node.raw_code):
        if name not in descriptions:
            raise UserError(f"its yml does not describe the parameter {name}")
        if type_ not in EXPECTED:
            raise UserError(f"parameter {name}: its type is one of {', '.join(EXPECTED)}, not {type_!r}")
        parameter = Parameter(name=name, type=type_, default=str(default), description=descriptions.pop(name))
        parameter.read(parameter.default)
        parameters.append(parameter)
    if descriptions:
        raise UserError(f"its yml describes the parameter {next(iter(descriptions))}, which it does not take")
    return parameters


def parameters_of(code: str) -> list[tuple[str, str | int, Any]]:
    """Name, default and type of each `param(...)` of an analysis.

    Raises:
        UserError: when these are not three literals.
    """
    found = []
    for call in Environment(autoescape=True).parse(code).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "param":
            try:
                name, default, type_ = (argument.as_const() for argument in call.args)
            except (nodes.Impossible, ValueError) as error:
                raise UserError(f"line {call.lineno}: expected param(name, default, type) with literals") from error
            found.append((name, default, type_))
    return found


def first_paragraph(error: object) -> str:
    """What is wrong by an error of dbt, without the chain of macros by which dbt came there, in one line."""
    lines = [line.strip() for line in str(error).strip().split("\n\n")[0].splitlines()]
    if len(lines) > 1 and lines[0].startswith("Compilation Error in operation"):
        lines = lines[1:]
    return " ".join(line for line in lines if line and not line.startswith(">"))
