"""Writes the generated tables of docs/bigquery.md."""

from collections.abc import Sequence

from benchmarks.bigquery_cost.builds import Read
from benchmarks.bigquery_cost.prices import Weights
from benchmarks.bigquery_cost.reads_table import reads_table
from benchmarks.bigquery_cost.sizes_table import sizes_table
from tools import ROOT

DOCUMENT = ROOT / "docs" / "bigquery.md"
MARK = "<!-- benchmarks.bigquery_cost: {} -->"


def written(document: str, reads: Sequence[Read], weights: Weights) -> str:
    """The document with new tables."""
    for name, table in (("sizes", sizes_table(reads, weights)), ("reads", reads_table(reads, weights))):
        begin, end = MARK.format(name), MARK.format(f"end of {name}")
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        document = f"{before}{begin}\n{table}\n{end}{after}"
    return document
