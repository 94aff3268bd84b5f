"""The answers of one published version for one choice of filters, panel by panel."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache, cached_property
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from common.errors import UserError
from common.logs import what_and_where
from engines.query import LIMIT, Query
from publishing.versions import published_at
from serve.answers import Answer, Published, find_query
from serve.dashboard.filters import ALL, CHOICES, DAY, PICKS, YEARS, Filters, instant
from serve.dashboard.panels import KEY_PANEL, PANELS, Panel, anchor
from serve.dashboard.rows import TREND, funnel_steps, has_any, trends, with_values
from serve.dashboard.values import Row, cell, change, is_number, shown
from serve.formats import as_csv

log = structlog.get_logger()

ALWAYS = 2
"""Key figures that are shown even if they are 0: events and people. The others are left out if they are 0, as in a
warehouse without a shop."""
TREND_DAYS = 92
"""Maximum days of the small charts."""
HOURLY_DAYS = 7
"""Longest period whose small charts have a bar per hour."""
FEW_VALUES = 50
"""Maximum distinct values of a property that is shown by default: ids and addresses have more."""


class Page:
    """The answers of one version for one choice of filters. It runs a query only once per set of arguments.

    Attributes:
        zone: the reporting time zone, in which the page shows days and times.
        newest: when the newest event happened, UTC; None without events.
        landings: maps a stream of events to the time of its last landing, UTC.
        unknown: why zone and newest are not known; then days are of UTC, and the period ends with the build.
    """

    def __init__(self, published: Published, filters: Filters) -> None:
        self._published = published
        self._answer = cache(self._ask)
        self.filters = filters
        self.built = published_at(published.version).replace(tzinfo=None)
        quality, self.unknown = self.rows_or_error("data_quality")
        if quality and "reporting_time_zone" not in quality[0]:
            self.unknown = "the last version was published by another release: run `make build`"
        self.zone: tzinfo = ZoneInfo(quality[0]["reporting_time_zone"]) if quality and not self.unknown else UTC
        self.newest = max((row["newest_event_at"] for row in quality if row["newest_event_at"]), default=None)
        self.landed = max((row["last_landed_at"] for row in quality), default=None)
        of_events = [row for row in quality if row["newest_event_at"]]
        self.landings = {row["stream"]: row["last_landed_at"] for row in of_events}
        # an event that a wrong clock dates in the future must not move the default period past all others
        self.end = self.built if self.unknown else min((at for at in (self.newest, self.landed) if at), default=None)
        self._newest_day = self.local(self.end).date() if self.end else None
        self.first, self.last = filters.days(self._newest_day) if self._newest_day else (None, None)

    def local(self, moment: datetime) -> datetime:
        """Convert a UTC time to the reporting time zone."""
        return moment.replace(tzinfo=UTC).astimezone(self.zone)

    def rows_or_error(self, name: str, **arguments: str) -> tuple[list[Row], str]:
        """The rows of a query, or no rows and the reason."""
        found = self._or_error(name, lambda: {"rows": self.rows(*self._answer(name, **arguments))})
        return found.get("rows", []), found.get("error", "")

    def rows(self, query: Query, answer: Answer) -> list[Row]:
        columns = [column.name for column in query.columns]
        return [dict(zip(columns, map(_without_zone, row), strict=True)) for row in answer.rows]

    def answer(self, panel: Panel) -> tuple[Query, Answer]:
        """The query of a panel, and its answer.

        Raises:
            UserError: when the query is missing, or has no answer.
        """
        return self._answer(panel.query, **self._arguments(panel, self._since(panel), self.last))

    def panel(self, panel: Panel) -> dict[str, Any]:
        """What the template shows of a panel: rows and notes, or the error."""
        shown_panel = {"panel": panel, "error": "", "rows": [], "columns": panel.columns, "numbers": []}
        shown_panel |= {"notes": panel.note, "chosen": self._chosen(panel), "trends": {}}
        return shown_panel | self._or_error(panel.title, lambda: self._shown(panel))

    def csv(self, panel: Panel) -> tuple[bytes, bool]:
        """The rows of a panel's query as CSV, times in UTC, and whether there are more.

        Raises:
            UserError: when the query is missing or has no answer, or the period is not known.
        """
        if self.unknown:
            raise UserError(self.unknown)
        query, answer = self.answer(panel)
        return as_csv(query, answer), answer.is_cut

    def key_figures(self) -> dict[str, Any]:
        """The figures of the period, and their change against the previous one."""
        return {"error": "", "figures": []} | self._or_error(KEY_PANEL.title, self._key_figures)

    def _or_error(self, part: str, show: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `show` returns, or the reason why this part of the page cannot be shown."""
        try:
            return show()
        except UserError as failure:
            return {"error": str(failure)}
        except Exception as failure:  # noqa: BLE001  any error: the other parts can still be shown
            log.error("part of the page failed", part=part, **what_and_where(failure))  # noqa: TRY400  a traceback may quote rows
            return {"error": "this cannot be shown: see the log"}

    def _shown(self, panel: Panel) -> dict[str, Any]:
        query, answer = self.answer(panel)
        rows = self.rows(query, answer)
        if panel.needs and not has_any(rows, panel.needs):
            rows = []
        if panel.steps:
            rows = funnel_steps(rows, panel.steps)
        if panel.at:
            rows = rows[::-1]  # queries return the newest rows first
        rows = [
            {name: self.local(value) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        ]
        columns = with_values(rows, panel.columns, panel.optional)
        return {
            "rows": rows,
            "columns": columns,
            "numbers": [column for column in columns if any(is_number(cell(row, column)[1]) for row in rows)],
            "trends": self._trends(panel) if panel.trend and rows else {},
            "notes": self._notes(panel, query, answer),
        }

    def _notes(self, panel: Panel, query: Query, answer: Answer) -> str:
        takes = {parameter.name for parameter in query.parameters}
        notes = [panel.note] if panel.note else []
        if panel.is_of_all_time:
            notes.append("Of all time.")
        elif self._since(panel) != self.first:
            notes.append(f"Of the last {panel.longest_days} days at most.")
        if unfiltered := [PICKS[name] for name in self.filters.picked if name not in takes]:
            notes.append(f"Of every {' and '.join(unfiltered)}.")
        if answer.is_cut and LIMIT not in panel.arguments:
            notes.append(f"The first {len(answer.rows):,} rows; there are more.")
        return " ".join(notes)

    def _chosen(self, panel: Panel) -> str:
        """What the reader chose for this panel, in words; empty if nothing."""
        return ", ".join(f"{CHOICES[name]} {value}" for name, value in self.filters.chosen(panel.picks).items())

    def _trends(self, panel: Panel) -> dict[str, dict[str, Any]]:
        """The small chart of each event type; empty if the query fails, since the panel can do without."""
        chart = panel.model_copy(update={"query": TREND, "longest_days": TREND_DAYS})
        first, last = self._since(chart), self._last_with_events()
        is_hourly = first is not None and last is not None and (last - first).days < HOURLY_DAYS
        chart = chart.model_copy(update={"arguments": {"per": "hour" if is_hourly else "day"}})
        rows, _ = self.rows_or_error(TREND, **self._arguments(chart, first, last))
        return trends(rows, first, last)

    @cached_property
    def properties(self) -> list[Row]:
        """The properties of the chosen stream and event type, most frequent first; none if their panel fails."""
        [panel] = [panel for panel in PANELS.all if panel.title == "Properties"]
        rows: list[Row] = self._or_error(panel.title, lambda: {"rows": self.rows(*self.answer(panel))}).get("rows", [])
        return rows

    @property
    def shown_property(self) -> str:
        """The chosen property, else the most frequent one with several values that people can compare."""
        if self.filters.property_name != ALL:
            return self.filters.property_name
        few = [row for row in self.properties if 1 < row["distinct_values"] <= FEW_VALUES]
        return next((row["property"] for row in few or self.properties), ALL)

    def _key_figures(self) -> dict[str, Any]:
        [now] = self.rows(*self.answer(KEY_PANEL))
        before, compared = self._period_before() or (dict.fromkeys(KEY_PANEL.columns), "")
        always = list(KEY_PANEL.columns)[:ALWAYS]
        # a figure that is undefined with these filters is null, and shown as null
        none = [one for one in KEY_PANEL.columns if one not in always and now[one] == 0 and not before[one]]
        figures = [
            (label, anchor(PANELS.details[column]), column, now[column], change(now[column], before[column], column))
            for column, label in KEY_PANEL.columns.items()
            if column not in none
        ]
        return {
            "figures": figures,
            "compared": compared,
            "none": [KEY_PANEL.columns[column].lower() for column in none],
        }

    def _period_before(self) -> tuple[Row, str] | None:
        """Key figures of the previous period of the same length, and its dates; None without one.

        If the last day is not over, the previous period ends at the same time of day.
        """
        last = self.last or self._newest_day
        if not (self.end and self.first and last and self.first <= last):
            return None
        length = last - self.first + DAY
        newest = self.local(self.end).replace(tzinfo=None)
        end = min(datetime.combine(last + DAY, time()), newest + timedelta.resolution)
        if end.date() < self.first or self.first - date(YEARS[0], 1, 1) < length:
            return None
        first, end = self.first - length, end - length
        arguments = self._arguments(KEY_PANEL, first, None)
        arguments["end_time"] = instant(end.date(), self.zone, end.time()).isoformat()
        [before] = self.rows(*self._answer(KEY_PANEL.query, **arguments))
        until = "" if end.time() == time() else f", {end:%H:%M}"
        return before, f"{shown(first)} to {shown(self.first - DAY)}{until}"

    def _last_with_events(self) -> date | None:
        """The last day of the period, or that of the newest event if it is earlier."""
        if self._newest_day is None:
            return None
        return min(self.last or date.max, max(self._newest_day, self.first or date.min))

    def _since(self, panel: Panel) -> date | None:
        last = self._last_with_events()
        if last is None or panel.longest_days is None:
            return self.first
        return max(self.first or date.min, last - (panel.longest_days - 1) * DAY)

    def _arguments(self, panel: Panel, first: date | None, last: date | None) -> dict[str, str]:
        """The arguments of the query, from the panel, the filters, and the period (as dates and as times)."""
        given = {**panel.arguments, **self.filters.picked}
        given |= {str(name): value for name, value in self.filters.chosen(panel.picks).items()}
        if "property" in panel.picks:
            given["property"] = self.shown_property
        if first and not panel.is_of_all_time:
            given |= {"start_date": str(first), "start_time": instant(first, self.zone).isoformat()}
        if last and not panel.is_of_all_time:
            given |= {"end_date": str(last), "end_time": instant(last + DAY, self.zone).isoformat()}
        takes = {parameter.name for parameter in self._query(panel.query).parameters}
        return {name: value for name, value in given.items() if name in takes}

    def _ask(self, name: str, **arguments: str) -> tuple[Query, Answer]:
        query = self._query(name)
        return query, self._published.ask(query, query.values(arguments))

    def _query(self, name: str) -> Query:
        if name not in {*self._published.queries, *self._published.left_out}:
            raise UserError(f"the published build has no query {name}: run `make build`")
        return find_query(self._published, name)


def _without_zone(value: Any) -> Any:
    """Remove the time zone, which only some engines return; all times are UTC."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
