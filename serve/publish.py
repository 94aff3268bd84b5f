"""Publishes what a green build made, for serve/questions.py to read."""

import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner
from jinja2 import Environment, nodes
from pydantic import TypeAdapter

from ingest.errors import UserError
from ingest.settings import Settings
from ingest.sinks.duckdb import DuckDBSink
from serve.questions import CURRENT, QUESTIONS, Column, Parameter, Question, published_folder

KEPT_VERSIONS = 2
"""The current one, and the one that a reader may be about to open."""


def publish(settings: Settings, sink: DuckDBSink, options: list[str]) -> None:
    """Copy the warehouse, which the caller holds, and its compiled questions to a version of their own.

    Args:
        options: of dbt: the project, the profiles and the vars of the build.
    """
    folder = published_folder(settings)
    version = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    version.mkdir(parents=True)
    try:
        questions = compile_questions(options)
        (version / QUESTIONS).write_bytes(TypeAdapter(list[Question]).dump_json(questions, indent=1))
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
        raise UserError(str(result.exception).strip())
    if not isinstance(result.result, RunExecutionResult):
        raise TypeError(type(result.result))
    return sorted((_question(one.node) for one in result.result.results), key=lambda question: question.name)


def _question(node: Any) -> Question:
    descriptions = dict(node.config.meta.get("parameters", {}))
    parameters = []
    for name, default, type_ in parameters_of(node.raw_code):
        if name not in descriptions:
            raise UserError(f"{node.original_file_path}: its yml does not describe the parameter {name}")
        parameters.append(Parameter(name=name, type=type_, default=str(default), description=descriptions.pop(name)))
    if descriptions:
        raise UserError(
            f"{node.original_file_path}: its yml describes {next(iter(descriptions))}, which it does not take"
        )
    return Question(
        name=node.name,
        description=node.description,
        parameters=parameters,
        columns=[Column(name=name, description=column.description) for name, column in node.columns.items()],
        sql=node.compiled_code,
    )


def parameters_of(code: str) -> list[tuple[str, str | int, str]]:
    """Name, default and type of each `param(...)` of an analysis."""
    calls = Environment(autoescape=True).parse(code).find_all(nodes.Call)
    return [
        tuple(argument.as_const() for argument in call.args)
        for call in calls
        if isinstance(call.node, nodes.Name) and call.node.name == "param"
    ]
