"""The parameters of an analysis: its text names them, its yml describes them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from common.errors import UserError
from engines.query import EXPECTED, LIMIT, Parameter, Query, with_problems

JINJA = Environment(autoescape=True, extensions=["jinja2.ext.do"])
"""Reads the templates of analyses; dbt renders them."""


def template_error(file: Path, root: Path) -> Query | None:
    """Return the analysis with its problem if the file is not a valid Jinja template, else None."""
    try:
        JINJA.parse(file.read_text())
    except TemplateSyntaxError as error:
        return with_problems(file.stem, [f"{file.relative_to(root)}: line {error.lineno}: {error.message}"])
    return None


def read_parameters(node: Any, problems: list[str]) -> tuple[list[Parameter], bool]:
    """The parameters, described as in the yml, and whether every type and default is valid."""
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
    """One parameter.

    Raises:
        UserError: for an unknown type, or a default of another type.
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
    """Name, default and type of each `param(...)` in an analysis, and whether all are literals, as they must be."""
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
