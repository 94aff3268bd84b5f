"""Publishes what a green build made, for serve/questions.py to read."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    Column,
    Parameter,
    Question,
    published_folder,
)

KEPT_VERSIONS = 2
"""The current one, and the one that a reader may be about to open."""


def publish(settings: Settings, sink: DuckDBSink, options: list[str], target: Path) -> None:
    """Copy the warehouse, which the caller holds, and its compiled questions to a version of their own.

    Args:
        options: of dbt: the project, the profiles and the vars of the build.
        target: where dbt wrote the artifacts of the build.
    """
    folder = published_folder(settings)
    version = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    version.mkdir(parents=True)
    try:
        questions = compile_questions(options)
        (version / QUESTIONS).write_bytes(TypeAdapter(list[Question]).dump_json(questions, indent=1))
        shutil.copy(target / SEMANTIC_MANIFEST, version)
        with sink.connection() as connection:
            connection.execute("checkpoint")
        # By another process: were the file opened and closed in this one, DuckDB's lock on it would be gone. `cp`
        # shares the blocks where the file system can.
        subprocess.run(["cp", settings.warehouse_path, version / settings.warehouse_path.name], check=True)  # noqa: S603, S607
        link = folder / f"{CURRENT}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        link.replace(folder / CURRENT)
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise
    versions = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    for old in versions[:-KEPT_VERSIONS]:
        shutil.rmtree(old)


def compile_questions(options: list[str]) -> list[Question]:
    """Every analysis, by name.

    Raises:
        UserError: when one does not compile, or its yml and its text disagree.
    """
    # without JSON: the files in target are those of the build
    command = ["--log-level", "none", "--no-write-json", "compile", "--select", "resource_type:analysis"]
    result = dbtRunner().invoke([*command, *options])
    if result.exception is not None:
        raise UserError(first_paragraph(result.exception))
    if not isinstance(result.result, RunExecutionResult):
        raise TypeError(type(result.result))
    return sorted((_question(one.node) for one in result.result.results), key=lambda question: question.name)


def _question(node: Any) -> Question:
    try:
        parameters = _parameters(node)
    except UserError as error:
        raise UserError(f"{node.original_file_path}: {error}") from error
    return Question(
        name=node.name,
        description=node.description,
        parameters=parameters,
        columns=[Column(name=name, description=column.description) for name, column in node.columns.items()],
        sql=node.compiled_code,
    )


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
