"""Compiles the analyses to queries with dbt, and checks each against its yml."""

import gc
import re
from collections.abc import Iterable, Sequence
from typing import Any

from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner, dbtRunnerResult

from common.errors import UserError
from engines.query import ArgumentError, Column, Query, with_problems
from engines.reader import COLUMN_TYPES, Describe, QueryFailedError
from publishing.dbt_errors import first_paragraph
from publishing.parameters import read_parameters


def compile_queries(options: list[str], describe: Describe, names: Sequence[str] = ()) -> list[Query]:
    """Return every analysis, sorted by name; one that cannot be used has its `problems`.

    Args:
        options: dbt's options that name the project, the profiles and the vars.
        names: the analyses to compile; all unless given.

    Raises:
        UserError: when dbt cannot read the project, or the engine cannot be asked.
    """
    selected = [f"resource_type:analysis,{name}" for name in names] or ["resource_type:analysis"]
    broken: dict[str, Query] = {}
    while True:
        result = _dbt_compile(options, selected, broken)
        if isinstance(result.result, RunExecutionResult):
            nodes = [one.node for one in result.result.results]
            return sorted([*broken.values(), *(_query(node, describe) for node in nodes)], key=lambda one: one.name)
        # dbt stops at the first analysis that does not compile: exclude it and compile the others
        message = first_paragraph(result.exception)
        found = re.search(r"^\w+ Error in analysis (\w+) \((\S+)\) (.*?)(?: Vars supplied to|$)", message)
        if found is None or found[1] in broken:
            raise UserError(message)
        broken[found[1]] = with_problems(found[1], [f"{_path(found[2])}: {found[3]}"])
        del result
        gc.collect()  # closes dbt's pool of threads, which would print an error at exit


def _dbt_compile(options: list[str], selected: list[str], excluded: Iterable[str]) -> dbtRunnerResult:
    # --no-write-json keeps the artifacts of the build in target
    command = ["--no-write-json", "compile", "--select", *selected, "--no-populate-cache"]
    result = dbtRunner().invoke(["--log-level", "none", *command, *_exclusion(excluded), *options])
    if result.exception is None and not isinstance(result.result, RunExecutionResult):
        raise TypeError(type(result.result))
    return result


def _exclusion(names: Iterable[str]) -> list[str]:
    excluded = list(names)
    return ["--exclude", *excluded] if excluded else []


def _path(path: str) -> str:
    """The path in the repository; dbt's is ../analyses/x.sql."""
    return path.removeprefix("../")


def _query(node: Any, describe: Describe) -> Query:
    """The query of an analysis, with every problem that it has."""
    problems: list[str] = []
    if not node.description:
        problems.append("its yml has no description" if node.patch_path else "there is no yml that describes it")
    parameters, are_known = read_parameters(node, problems)
    columns: list[Column] = []
    query = Query(
        name=node.name, description=node.description, parameters=parameters, columns=[], sql=node.compiled_code
    )
    if are_known:  # the engine needs a value for each parameter
        try:
            columns = _columns(node, describe(query), problems)
        # any other error, such as an engine that does not answer, is not the query's: nothing is published
        except (ArgumentError, QueryFailedError) as error:
            problems.append(str(error))
    if problems:
        return with_problems(node.name, [f"{_path(node.original_file_path)}: {problem}" for problem in problems])
    return query.model_copy(update={"columns": columns})


def _columns(node: Any, types: list[tuple[str, str]], problems: list[str]) -> list[Column]:
    """The columns that the engine returns, with the descriptions of the yml."""
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
