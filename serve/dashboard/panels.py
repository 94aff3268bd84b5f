"""The panels of the dashboard, which panels.yml lists."""

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from common.errors import UserError
from serve.dashboard.filters import Choice

FILE = Path(__file__).with_name("panels.yml")


class Panel(BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """One query, and how its answer is shown: as a number, as bars over time, as a funnel, as a table."""

    title: str
    query: str
    columns: dict[str, str] = {}
    """Columns of the table and their headings. `a|b` shows the first of the two that has a value."""
    optional: list[str] = []
    """Columns of the table that are left out when no row has a value."""
    needs: list[str] = []
    """The panel counts as empty if these columns are 0 or null in every row."""
    arguments: dict[str, str] = {}
    total: str | None = None
    """The column whose sum is shown as a large number."""
    bar: str | None = None
    """The column of the table that is also drawn as bars."""
    arrows: str = ""
    """The column of texts such as `Home > Cart`, whose parts are shown with arrows between them."""
    at: str = ""
    """The column of hours or days on the horizontal axis of the plots."""
    plots: dict[str, str] = {}
    """Maps a plotted column to the label of its axis."""
    trend: str = ""
    """Heading of a column of small charts, one per event type (the first column), from the query events_over_time."""
    steps: dict[str, str] = {}
    """Steps of a funnel, which is shown instead of the table: maps a column of the answer's only row to the name of its
    step."""
    picks: list[Choice] = []
    """Choices of the reader that the panel follows."""
    longest_days: int | None = None
    """Maximum days to show, at the end of the period: with more, bars could not be told apart."""
    is_of_all_time: bool = False
    """Whether the panel ignores the period."""
    is_wide: bool = False
    """Whether it takes a whole row of the page."""
    note: str = ""
    """What is counted, and per what, unless the headings say so."""
    empty: str = "Nothing here in this period, brand, category and product: choose others at the top."

    @property
    def anchor(self) -> str:
        """Its HTML id, for links."""
        return anchor(self.title)

    @property
    def file(self) -> str:
        """Name of its CSV file."""
        return f"{self.anchor}.csv"


class Section(BaseModel, extra="forbid", frozen=True):
    """Panels under one heading."""

    panels: list[Panel]
    without: str = ""
    """Name of what is missing if no panel has rows, such as `checkouts`: one line with it then replaces the section."""


class Panels(BaseModel, extra="forbid", frozen=True):
    """The content of panels.yml."""

    key_figures: Panel
    details: dict[str, str]
    """Maps a column of the key figures to the title of the panel that has its details."""
    sections: dict[str, Section]
    """The sections by heading."""

    @property
    def all(self) -> list[Panel]:
        """The panels of every section."""
        return [panel for section in self.sections.values() for panel in section.panels]

    @model_validator(mode="after")
    def _has_details(self) -> Self:
        if missing := set(self.details.values()) - {panel.title for panel in self.all}:
            raise ValueError(f"details: there is no panel {min(missing)!r}")
        return self


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


def anchor(title: str) -> str:
    """The HTML id for a title."""
    return title.lower().replace(" ", "-")


PANELS = read_panels()
KEY_PANEL, SECTIONS = PANELS.key_figures, PANELS.sections
