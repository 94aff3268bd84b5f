"""The filters of the dashboard, as its URL gives them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, Literal, Self
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from common.errors import UserError

ALL = "all"
Period = Literal["1d", "7d", "30d", "all", "custom"]
PERIODS: dict[Period, str] = {
    "1d": "Last day",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "all": "All time",
    "custom": "From and to",
}
Choice = Literal["stream", "event_type", "property"]
CHOICES: dict[Choice, str] = {"stream": "stream", "event_type": "type", "property": "property"}
"""Choices for single panels: maps the name in URLs and queries to the name on the page."""
PICKS = {"brand": "brand", "category": "category", "product_id": "product"}
"""Filters of events: maps the name in URLs and queries to the name on the page."""
DAY = timedelta(days=1)
YEARS = 1970, 9998


class Filters(BaseModel, extra="forbid", frozen=True):
    """What the reader picked."""

    brand: str = ALL
    category: str = ALL
    product_id: str = ALL
    stream: str = ALL
    event_type: str = ALL
    property_name: str = Field(ALL, alias="property")
    # older URLs have 24h instead of 1d
    period: Annotated[Period, BeforeValidator(lambda name: "1d" if name == "24h" else name)] = "7d"
    """Days of the reporting time zone up to that of the newest event, or of the last landing if that is earlier."""
    first: date | None = Field(None, alias="from")
    """For the period `custom`: the first and the last day, both included."""
    last: date | None = Field(None, alias="to")
    refresh: int = Field(0, ge=0, le=86_400)
    """Seconds after which a browser loads the page again; 0: never."""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Read the filters. An empty filter counts as absent, since forms send empty ones too.

        Raises:
            UserError: naming the first that is unknown or cannot be read.
        """
        try:
            chosen = {name: value for name, value in given.items() if value}
            if "period" not in chosen and chosen.keys() & {"from", "to"}:
                chosen["period"] = "custom"
            return cls.model_validate(chosen)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "from"
            if first["type"] == "extra_forbidden":
                names = [field.alias or name for name, field in cls.model_fields.items()]
                raise UserError(f"{name}: no such filter; the filters are {', '.join(names)}") from error
            raise UserError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error

    @field_validator("first", "last", mode="before")
    @classmethod
    def _is_a_date(cls, text: str) -> date:
        try:
            read = date.fromisoformat(text)
        except ValueError:
            read = date.min
        if not YEARS[0] <= read.year <= YEARS[1]:  # the first and last day of the calendar have no day before or after
            raise ValueError(f"expected a date such as 2026-01-31, got {text!r}")
        return read

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.period == "custom" and self.first and self.last and self.first > self.last:
            raise ValueError(f"{self.first} is after {self.last}; swap the two")
        return self

    @property
    def picked(self) -> dict[str, str]:
        """The filters in PICKS whose value is not `all`."""
        return {name: value for name in PICKS if (value := getattr(self, name)) != ALL}

    def chosen(self, among: Iterable[Choice]) -> dict[Choice, str]:
        """The choices of `among` that the reader has changed, with their values."""
        given = self.given()
        return {name: str(given[name]) for name in among if name in given}

    def days(self, newest: date) -> tuple[date | None, date | None]:
        """First and last day, both included; None for no bound. `newest` is the day of the newest event."""
        match self.period:
            case "1d" | "7d" | "30d":
                return newest - (int(self.period.removesuffix("d")) - 1) * DAY, newest
            case "all":
                return None, None
            case "custom":
                return self.first, self.last

    def url(self, path: str = "", **changes: str | int) -> str:
        """URL of the page or of a relative path, with these filters and changes; an empty value removes a filter."""
        return (
            f"{path}?{urlencode({name: value for name, value in {**self.given(), **changes}.items() if value != ''})}"
        )

    def given(self) -> dict[str, str | int]:
        """The filters that are not the defaults, as in the URL."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def instant(day: date, zone: tzinfo, at: time = time()) -> datetime:
    """The instant, UTC without a zone, of a day and time in a time zone."""
    return datetime.combine(day, at, zone).astimezone(UTC).replace(tzinfo=None)
