"""The panels of the dashboard, which panels.yml lists."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from common.errors import UserError

FILE = Path(__file__).with_name("panels.yml")


class Panel(BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """One query, and how its answer is shown: as a number, as bars over time, as a table."""

    title: str
    query: str
    columns: dict[str, str]
    """Of the table: column to heading. `a|b` shows the first of the two that has a value."""
    arguments: dict[str, str] = {}
    total: str | None = None
    """The column whose sum is shown large."""
    bar: str | None = None
    """The column of the table that is also drawn as bars."""
    at: str = ""
    """The column of hours or days on the horizontal axis of the plots."""
    plots: dict[str, str] = {}
    """Plotted column to axis label."""
    steps: dict[str, str] = {}
    """Of a funnel: column of the only row of the answer to the step that it counts. The table has a row per step, with
    the columns step, people and share (of the first step)."""
    longest_days: int | None = None
    """Days to show at most, the last of the period: more bars could not be told apart."""
    is_of_all_time: bool = False
    """Whether the panel ignores the period."""
    is_wide: bool = False
    """Whether it takes a whole row of the page."""
    note: str = ""
    """What is counted, and per what, unless the headings say so."""
    empty: str = "Nothing here in this period, brand, category and product: choose others at the top."

    @property
    def file(self) -> str:
        """Name of its CSV file."""
        return f"{self.title.lower().replace(' ', '-')}.csv"


class Panels(BaseModel, extra="forbid", frozen=True):
    key_figures: Panel
    sections: dict[str, list[Panel]]
    """Heading to panels."""


def read_panels(file: Path = FILE) -> Panels:
    """The panels of a file.

    Raises:
        UserError: for the first key that is wrong.
    """
    try:
        return Panels.model_validate(yaml.safe_load(file.read_text()))
    except yaml.YAMLError as error:
        raise UserError(f"{file.name}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


PANELS = read_panels()
KEY_PANEL, SECTIONS = PANELS.key_figures, PANELS.sections
