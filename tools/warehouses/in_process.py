"""A DuckDB warehouse in a folder, built by dbt in this process and compared with the specification."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from common.streams import STREAMS
from dbt_project.exactness.message import Message, batch_tables
from dbt_project.warm import WarmProject
from engines.batch import Batch
from engines.duckdb.sink import DuckDBSink
from engines.recovery import recovered_id
from specification import Landed, Settings, marts
from specification.entities import Countries
from specification.rows import Mart


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that only one side has."""

    mart: str
    side: str
    """built (by dbt) or defined (by the specification)."""
    row: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.mart}: only {self.side}: {self.row}"


class Warehouse:
    """One DuckDB file. All have the same name, which dbt uses as the name of the database."""

    def __init__(self, folder: Path, settings: Settings, project: "Project") -> None:
        self._path = folder / "warehouse.duckdb"
        self._settings = settings
        self._project = project
        self._landing_time: datetime | None = None
        self._sink = self.loader()
        self._sink.create_tables()
        self._dbt("seed")

    def loader(self) -> DuckDBSink:
        """A sink as in a loader that has just started."""
        return DuckDBSink(self._path, clock=self._clock)

    def land(self, messages: Iterable[Message], landing_time: datetime) -> None:
        """Land messages in one commit. As from Pub/Sub, a message that is in it twice is landed once."""
        if tables := batch_tables(map(self.naming_its_original, messages)):
            self._landing_time = landing_time
            self._sink.commit([Batch(tables)])

    def naming_its_original(self, message: Message) -> Message:
        """A recovered message with the full id: draws say `recover//<message_id>`, as they do not know landing times.

        The original is the first that landed with this id; if none did, none has the time that is named.
        """
        if not message.message_id.startswith("recover//"):
            return message
        original = message.message_id.removeprefix("recover//")
        landed = [row["landed_at"] for row in self.rows(f"raw.{message.stream}") if row["message_id"] == original]
        return replace(message, message_id=recovered_id(min(landed, default=datetime(2001, 1, 1)), original))

    def build(self, *options: str) -> None:
        """Run every model.

        Raises:
            BuildError: if one fails.
        """
        self._dbt("run", "--vars", json.dumps(self._settings.as_vars()), *options)

    def differences(self) -> list[Difference]:
        """Rows of marts that the specification does not have, and the reverse."""
        found: list[Difference] = []
        with self._sink.connection() as connection:
            landed = [
                Landed(*row)
                for stream in STREAMS
                for row in connection.sql(
                    f"select stream, message_id, key, published_at, landed_at, payload, attributes from raw.{stream}"
                ).fetchall()
            ]
            for mart, defined in marts(landed, self._settings, self._project.countries).items():
                relation = connection.sql(f"select * from analytics.{mart}")
                built = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
                found.extend(compare(mart, built, defined))
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Every row of a table or view, `schema.name`."""
        with self._sink.connection() as connection:
            relation = connection.sql(f"select * from {name}")
            return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def _clock(self) -> datetime:
        assert self._landing_time is not None
        return self._landing_time

    def _dbt(self, *arguments: str) -> None:
        self._project.run(self._path, *arguments)


def compare(mart: str, built: Mart, defined: Mart) -> Iterator[Difference]:
    """Compare whole rows, counting duplicates."""

    def counted(rows: Mart) -> Counter[tuple[tuple[str, Any], ...]]:
        return Counter(tuple(sorted(row.items())) for row in rows)

    for row in counted(built) - counted(defined):
        yield Difference(mart, "built", dict(row))
    for row in counted(defined) - counted(built):
        yield Difference(mart, "defined", dict(row))


class Project(WarmProject):
    """A parsed dbt project with the seed that the specification needs."""

    def __init__(self, folder: Path, work: Path) -> None:
        super().__init__(folder, work)
        with (folder / "seeds" / "dim_countries.csv").open(newline="") as file:
            self.countries: Countries = {
                row["country_code"]: (row["country_name"], row["region"]) for row in csv.DictReader(file)
            }

    def warehouse(self, folder: Path, settings: Settings) -> Warehouse:
        """An empty warehouse."""
        return Warehouse(folder, settings, self)
