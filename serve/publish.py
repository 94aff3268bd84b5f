"""Publishes the result of a successful build, for serve/questions.py to read; compiles and checks the questions."""

import fcntl
import gc
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner, dbtRunnerResult
from jinja2 import Environment, TemplateSyntaxError, nodes
from pydantic import TypeAdapter

from ingest.errors import UserError
from ingest.settings import Settings
from ingest.sinks.duckdb import DuckDBSink
from serve.questions import (
    CURRENT,
    EXPECTED,
    LIMIT,
    QUESTIONS,
    SEMANTIC_MANIFEST,
    VERSION,
    Answer,
    Column,
    ColumnType,
    DuckDBPublished,
    Parameter,
    Question,
    bigquery_parameters,
    describe,
    open_published,
    published_folder,
    published_version,
)

JINJA = Environment(autoescape=True, extensions=["jinja2.ext.do"])
"""Reads the templates of analyses; dbt renders them."""
Described = Callable[[Question], list[tuple[str, str]]]
"""Returns name and the engine's type of each column of the answer."""

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

    A question that has a problem is left out: `left_out` of serve/questions.py tells which, and why.

    Args:
        sink: the DuckDB warehouse, which the caller holds.
        options: of dbt: the project, the profiles and the vars of the build.
        target: where dbt wrote the artifacts of the build.
        same_code_as: a version built from the same code and vars; if it is the newest, its questions are copied.

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
            # also what a killed build left behind
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
            f"built, but not published in {folder}: {reason.strip().partition(chr(10))[0]}; the last published build"
            " stays. Fix this and build again"
        ) from error


def _compile(version: Path, settings: Settings, sink: DuckDBSink | None, options: list[str]) -> None:
    with _describing(settings, sink) as described:
        questions = compile_questions(options, described)
    (version / QUESTIONS).write_bytes(TypeAdapter(list[Question]).dump_json(questions, indent=1))


def _copy(settings: Settings, sink: DuckDBSink, target: Path, version: Path) -> None:
    shutil.copy(target / SEMANTIC_MANIFEST, version)
    with sink.connection() as connection:
        connection.execute("checkpoint")
    # By another process: opening and closing the file in this one would release DuckDB's lock on it. `cp` shares the
    # blocks where the file system can.
    copy: list[str | Path] = ["cp", settings.warehouse_path, version / settings.warehouse_path.name]
    subprocess.run(copy, check=True, capture_output=True, text=True)  # noqa: S603  no shell, and only paths of ours


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build publishes at a time. (On BigQuery nothing else prevents two.)"""
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
            yield lambda question: describe(cursor, question)
        return

    from google.api_core.exceptions import BadRequest
    from google.cloud.bigquery import QueryJobConfig

    from ingest.sinks.bigquery import open_client, told

    with told(), open_client(settings) as client:

        def by_bigquery(question: Question) -> list[tuple[str, str]]:
            config = QueryJobConfig(dry_run=True, query_parameters=bigquery_parameters(question, question.values({})))
            try:
                schema = client.query(question.sql, job_config=config).schema
            except BadRequest as error:
                raise UserError(str(error)) from error
            return [(field.name, field.field_type) for field in schema]

        yield by_bigquery


def compile_questions(options: list[str], described: Described, names: Sequence[str] = ()) -> list[Question]:
    """Every analysis, by name. One that cannot be asked has `problems`, all of them at once.

    Args:
        options: of dbt: the project, the profiles and the vars.
        names: only these; all unless given.

    Raises:
        UserError: when dbt cannot read the project.
    """
    selected = [f"resource_type:analysis,{name}" for name in names] or ["resource_type:analysis"]
    broken: dict[str, Question] = {}
    while True:
        result = _dbt_compile(options, selected, broken)
        if isinstance(result.result, RunExecutionResult):
            nodes = [one.node for one in result.result.results]
            return sorted([*broken.values(), *(_question(node, described) for node in nodes)], key=lambda one: one.name)
        # dbt stops at the first analysis that does not compile: leave it out, and go on with the others
        message = first_paragraph(result.exception)
        found = re.search(r"^\w+ Error in analysis (\w+) \((\S+)\) (.*?)(?: Vars supplied to|$)", message)
        if found is None or found[1] in broken:
            raise UserError(message)
        broken[found[1]] = _left_out(found[1], [f"{_path(found[2])}: {found[3]}"])
        del result
        gc.collect()  # dbt leaves its pool of threads behind, which would complain when Python ends


def check(settings: Settings, names: Sequence[str] = ()) -> Iterator[tuple[Question, Answer | None]]:
    """Every analysis with its problems, tested against the version that was published last: planned and, on DuckDB, run
    with the defaults of its parameters. Without a problem it has its answer (on BigQuery None: a dry run gives none).

    Args:
        names: only these; all unless given.

    Raises:
        UserError: when nothing is published, dbt cannot read the project, or there is no analysis of such a name.
    """
    from dbt_project.__main__ import PROJECT, PROJECT_OPTIONS, export_environment

    files = sorted((PROJECT.parent / "analyses").rglob("*.sql"))
    if unknown := sorted(set(names) - {file.stem for file in files}):
        raise UserError(f"there is no analyses/{unknown[0]}.sql")
    # dbt would report one of these at a time
    if unreadable := [question for file in files if (question := _template_error(file, PROJECT.parent))]:
        yield from ((question, None) for question in unreadable)
        return
    export_environment(settings)
    with ExitStack() as opened:
        published = opened.enter_context(closing(open_published(settings)))
        if isinstance(published, DuckDBPublished):
            described: Described = published.describe
        else:
            described = opened.enter_context(_describing(settings, None))
        for question in compile_questions(PROJECT_OPTIONS, described, names):
            answer = None
            problems = list(question.problems)
            if not problems and isinstance(published, DuckDBPublished):
                try:
                    answer = published.ask(question, question.values({}))
                except UserError as error:
                    problems.append(f"with its defaults: {error}")
            yield question.model_copy(update={"problems": problems}), answer


def _template_error(file: Path, root: Path) -> Question | None:
    """The analysis of a file that is no Jinja template, with that problem."""
    try:
        JINJA.parse(file.read_text())
    except TemplateSyntaxError as error:
        return _left_out(file.stem, [f"{file.relative_to(root)}: line {error.lineno}: {error.message}"])
    return None


def _dbt_compile(options: list[str], selected: list[str], excluded: Iterable[str]) -> dbtRunnerResult:
    # without JSON: the artifacts in target stay those of the build
    command = ["--no-write-json", "compile", "--select", *selected, "--no-populate-cache"]
    result = dbtRunner().invoke(["--log-level", "none", *command, *_exclusion(excluded), *options])
    if result.exception is None and not isinstance(result.result, RunExecutionResult):
        raise TypeError(type(result.result))
    return result


def _exclusion(names: Iterable[str]) -> list[str]:
    excluded = list(names)
    return ["--exclude", *excluded] if excluded else []


def _left_out(name: str, problems: list[str]) -> Question:
    return Question(name=name, description="", parameters=[], columns=[], sql="", problems=problems)


def _path(path: str) -> str:
    """analyses/x.sql of the ../analyses/x.sql that dbt calls it."""
    return path.removeprefix("../")


def _question(node: Any, described: Described) -> Question:
    """The question of an analysis, with every problem that it has."""
    problems: list[str] = []
    if not node.description:
        problems.append("its yml has no description" if node.patch_path else "there is no yml that describes it")
    parameters, are_known = _parameters(node, problems)
    columns: list[Column] = []
    question = Question(
        name=node.name, description=node.description, parameters=parameters, columns=[], sql=node.compiled_code
    )
    if are_known:  # or a parameter would have no value
        try:
            columns = _columns(node, described(question), problems)
        except (UserError, duckdb.Error) as error:
            problems.append(_first_lines(error))
    if problems:
        return _left_out(node.name, [f"{_path(node.original_file_path)}: {problem}" for problem in problems])
    return question.model_copy(update={"columns": columns})


def _first_lines(error: Exception) -> str:
    """What is wrong with a statement, and the line of it that DuckDB shows."""
    lines = str(error).strip().splitlines()
    return " ".join([lines[0], *(line.strip() for line in lines[1:] if line.startswith("LINE "))])


def _columns(node: Any, types: list[tuple[str, str]], problems: list[str]) -> list[Column]:
    """As the engine gives and its yml describes them."""
    columns = []
    for name, type_ in types:
        if name not in node.columns:
            problems.append(f"its yml does not describe the column {name}")
        elif type_ not in COLUMN_TYPES:
            problems.append(f"the column {name} is of type {type_}, which no answer has")
        else:
            columns.append(Column(name=name, type=COLUMN_TYPES[type_], description=node.columns[name].description))
    given = [name for name, _ in types]
    problems += [
        f"its yml describes the column {name}, which it does not give" for name in node.columns if name not in given
    ]
    return columns


def _parameters(node: Any, problems: list[str]) -> tuple[list[Parameter], bool]:
    """As its text names and its yml describes them, and whether each has a type and a default that can be read."""
    descriptions = dict(node.config.meta.get("parameters", {}))
    parameters: list[Parameter] = []
    declared, are_known = parameters_of(node.raw_code, problems)
    for name, default, type_ in declared:
        if name in (one.name for one in parameters):
            problems.append(f"parameter {name}: declared more than once")
            continue
        if name not in descriptions:
            problems.append(f"its yml does not describe the parameter {name}")
        try:
            parameters.append(_parameter(name, default, type_, descriptions.get(name, "")))
        except UserError as error:
            problems.append(str(error))
            are_known = False
    names = [name for name, _, _ in declared]
    problems += [
        f"its yml describes the parameter {name}, which it does not take" for name in descriptions if name not in names
    ]
    return parameters, are_known


def _parameter(name: str, default: object, type_: object, description: str) -> Parameter:
    """
    Raises:
        UserError: when there is no such type, or the default is not of it.
    """
    choices: list[str] = []
    if isinstance(type_, list | tuple):
        choices, type_ = [str(choice) for choice in type_], "string"
    if type_ not in EXPECTED:
        raise UserError(
            f"parameter {name}: its type is one of {', '.join(EXPECTED)}, or a list of choices, not {type_!r}"
        )
    if name == LIMIT and type_ != "integer":
        raise UserError(f"parameter {name}: its type must be integer, since it limits the rows")
    parameter = Parameter.model_validate(
        {"name": name, "type": type_, "default": str(default), "description": description, "choices": choices}
    )
    parameter.read(parameter.default)
    return parameter


def parameters_of(code: str, problems: list[str]) -> tuple[list[tuple[str, str | int, Any]], bool]:
    """Name, default and type of each `param(...)` of an analysis, and whether all are literals, as they must be."""
    found = []
    are_literals = True
    for call in JINJA.parse(code).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "param":
            try:
                name, default, type_ = (argument.as_const() for argument in call.args)
                found.append((name, default, type_))
            except (nodes.Impossible, ValueError):
                problems.append(f"line {call.lineno}: expected param(name, default, type) with literals")
                are_literals = False
    return found, are_literals


def first_paragraph(error: object) -> str:
    """What is wrong by an error of dbt, without the chain of macros by which dbt came there, in one line."""
    lines = [line.strip() for line in str(error).strip().split("\n\n")[0].splitlines()]
    if len(lines) > 1 and (lines[0] == "Runtime Error" or lines[0].startswith("Compilation Error in operation")):
        lines = lines[1:]
    return " ".join(line for line in lines if line and not line.startswith(">"))
