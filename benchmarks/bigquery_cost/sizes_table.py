"""The table of docs/bigquery.md that shows the cost of a day for several numbers of events."""

from collections import defaultdict
from collections.abc import Sequence

from benchmarks.bigquery_cost.builds import Read
from benchmarks.bigquery_cost.prices import DOLLARS_PER_TIB, MIN_BYTES, Weights, billed, rounded

SIZES = {"1M": 10**6, "100M": 10**8, "10B": 10**10}
"""Label to events per day."""


def sizes_table(reads: Sequence[Read], weights: Weights) -> str:
    """One row per number of events per day, and the minimum cost of a build."""
    without = [read for read in reads if "fct_session_event_sequence" not in read.node]
    rows = [
        "| events a day | stored a day | one build a day | its largest query | 24 builds a day | 24, one of them with "
        "`fct_session_event_sequence` | a late day more, each build |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    stored = sum(weight for columns in weights.values() for weight in columns.values())
    for name, events in SIZES.items():
        once, hourly = (billed(reads, weights, events, builds=builds, late_days=0) for builds in (1, 24))
        hourly_without = billed(without, weights, events, builds=24, late_days=0)
        sequence = once - billed(without, weights, events, builds=1, late_days=0)
        late = billed(reads, weights, events, builds=1, late_days=1) - once
        by_query = defaultdict(list)
        for read in reads:
            by_query[read.statement].append(read)
        largest = max(billed(query, weights, events, builds=1, late_days=0) for query in by_query.values())
        cells = [_priced(once), _size(largest), *map(_priced, (hourly, hourly_without + sequence, late))]
        rows.append(f"| {name} | {_size(stored * events)} | {' | '.join(cells)} |")
    queries = len({read.statement for read in reads})
    least = f"{queries} queries of a build read {len(reads)} tables: {_size(len(reads) * MIN_BYTES)} at least."
    return "\n".join([*rows, "", least])


def _priced(size: float) -> str:
    return f"{_size(size)}, ${rounded(size / 2**40 * DOLLARS_PER_TIB)}"


def _size(size: float) -> str:
    for unit, power in (("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if size >= 2**power:
            return f"{rounded(size / 2**power)} {unit}"
    return f"{rounded(size)} bytes"
