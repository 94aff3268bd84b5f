"""A query of analyses/ as it is published: what it takes, the columns of its answer, its SQL."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from common.errors import UserError

Value = str | int | date | datetime
ParameterType = Literal["string", "integer", "date", "timestamp"]
ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
EXPECTED: dict[ParameterType, str] = {
    "string": "text",
    "integer": "a whole number from 1 on",
    "date": "a date such as 2026-01-31",
    "timestamp": "a time such as 2026-01-31 or 2026-01-31T18:30:00Z (UTC unless it says otherwise)",
}
POSITIVE_INTEGER = TypeAdapter(Annotated[int, Field(ge=1, lt=2**63)])
"""A module constant, since making an adapter takes longer than the rest of a request."""
LIMIT = "limit"
"""Name of the parameter for the most rows of an answer. The query ends with `limit {{ limit }}`."""


class ArgumentError(UserError):
    """An argument that the query does not take, or of another type; the message names it."""


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
                    return POSITIVE_INTEGER.validate_python(int(text))
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


class Query(BaseModel, frozen=True):
    """An analysis, compiled: its text binds each parameter ($name on DuckDB, @name on BigQuery)."""

    name: str
    description: str
    parameters: list[Parameter]
    columns: list[Column]
    sql: str
    problems: list[str] = []
    """Why it cannot be asked, one line per problem; empty for a query that can be."""

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


def with_problems(name: str, problems: list[str]) -> Query:
    """A query that cannot be asked."""
    return Query(name=name, description="", parameters=[], columns=[], sql="", problems=problems)
