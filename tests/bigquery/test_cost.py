"""docs/bigquery.md says what dbt's statements read: the same tables, partitions and bytes."""

from pathlib import Path

import pytest

from benchmarks.bigquery_cost import (
    DOCUMENT,
    STATE,
    UNPARTITIONED,
    WHOLE,
    Read,
    column_bytes,
    reads_of_a_build,
    written,
)

pytestmark = [pytest.mark.bigquery, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> list[Read]:
    return reads_of_a_build(tmp_path_factory.mktemp("cost"))


def test_the_document_is_what_the_statements_read(reads: list[Read], tmp_path: Path) -> None:
    document = DOCUMENT.read_text()
    assert document == written(document, reads, column_bytes(tmp_path)), "run python -m benchmarks.bigquery_cost"


def test_one_model_reads_all_days(reads: list[Read]) -> None:
    """Beside it, only what has no partitions is read whole: entities, dates, countries and the state of builds; and the
    accounting, which has a row per stream and day."""
    assert {(read.node, read.table) for read in reads if read.days == WHOLE} == {
        ("model.fct_session_event_sequence", "analytics.fct_session_event_sequence"),
        ("test.every_message_is_accounted_for", "analytics.landing_reconciliation"),
    }
    small = {read.table.split(".")[1] for read in reads if read.days == UNPARTITIONED}
    entities = ("users", "products", "posts")
    assert small == {
        *STATE,
        "dim_dates",
        "dim_countries",
        *(f"dim_{entity}_history" for entity in entities),
        *(f"{dim}{entity}_snapshot" for entity in entities for dim in ("", "dim_")),
    }
