"""The table of docs/bigquery.md that shows what each model reads and rewrites."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.bigquery_cost.builds import LANDED, STATE, TOUCHED, UNPARTITIONED, WHOLE, Read
from benchmarks.bigquery_cost.prices import Weights, cost, rounded
from common.streams import STREAMS

LAYERS = ("start", "stg", "fct", "int", "agg", "dim", "dead", "landing", "tests")
"""First words of the names of models, in the order of the rows."""


def reads_table(reads: Sequence[Read], weights: Weights) -> str:
    """One row per model, or per models that read the same.

    Results of models and the state of builds are not listed, but counted in the bytes.
    """
    models: dict[str, list[Read]] = defaultdict(list)
    for read in reads:
        models["tests" if read.node.startswith("test.") else read.node.split(".")[-1]].append(read)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for model, of_model in models.items():
        if cells := _cells(model, of_model):
            alike[cells].append(model)
    rows = [
        "| model | reads of landed days | of touched days | of all days, or without partitions | rewrites "
        "| bytes, landed | touched | all |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    # in the order of the data flow, since builds run models in parallel
    for names, cells in sorted(
        ((sorted(names), cells) for cells, names in alike.items()),
        key=lambda row: (LAYERS.index(row[0][0].split("_")[0]), row[0]),
    ):
        total = cost([read for name in names for read in models[name]], weights)
        numbers = (f"{rounded(number)}" for number in (total.landed, total.touched, total.whole))
        rows.append(f"| {_named(names)} | {' | '.join(cells)} | {' | '.join(numbers)} |")
    return "\n".join(rows)


def _cells(model: str, reads: Iterable[Read]) -> tuple[str, ...]:
    cells: dict[str, dict[str, str]] = {LANDED: {}, TOUCHED: {}, WHOLE: {}}
    rewritten = set()
    for read in reads:
        table = _called(read.table, model)
        if read.is_result or table in STATE:
            continue
        if read.rewrites:
            rewritten.add("all of itself" if read.days == UNPARTITIONED else read.days)
        elif read.days in (LANDED, TOUCHED):
            cells[read.days].setdefault(table, "")
        elif read.days in (WHOLE, UNPARTITIONED):
            cells[WHOLE][table] = ""
        else:
            cells[TOUCHED][table] = f" ({read.days.removeprefix(f'{TOUCHED} ')})"
    found = *map(_listed, cells.values()), ", ".join(sorted(rewritten)) or "-"
    return found if set(found) != {"-"} else ()


def _named(models: Sequence[str]) -> str:
    """Names of models, or one name for a group of them."""
    if len(models) == len(STREAMS) and all(model.startswith("stg_") for model in models):
        return "`stg_*`"
    if all(model.endswith("_snapshot") for model in models):
        return "snapshots"
    if all(model.startswith("dim_") for model in models):
        return "`dim_*_history`"
    if len(models) > 1 and all(model.startswith("agg_") for model in models):
        return f"`agg_*`, {len(models)} of them"
    if models[0] in ("start", "tests"):
        return {"start": "start of a build", "tests": "all tests"}[models[0]]
    return ", ".join(f"`{model}`" for model in models)


def _called(table: str, model: str) -> str:
    """A table from the view of a model, so that similar models have equal rows."""
    dataset, name = table.split(".")
    entity = re.sub(r"^(stg|dim)_|_(history|snapshot)$", "", name)
    if name == model:
        return "itself"
    if dataset == "raw" and model == f"stg_{name}":
        return "its raw table"
    if name == f"stg_{entity}" and model == f"dim_{entity}_history":
        return "its staging"
    if name == f"dim_{entity}_history" and model in (f"{entity}_snapshot", f"dim_{entity}_snapshot"):
        return "its history"
    return f"raw.{name}" if dataset == "raw" else name


def _listed(tables: dict[str, str]) -> str:
    """Tables with their notes, or one name for a group of them."""
    entities = ("users", "products", "posts")
    groups = {
        "raw": {f"raw.{stream}" for stream in STREAMS},
        "all staging": {f"stg_{stream}" for stream in STREAMS},
        "all events' staging": {f"stg_{stream}" for stream in STREAMS if stream not in entities},
        "all `agg_*`": {table for table in tables if table.startswith("agg_")},
        "histories": {f"dim_{entity}_history" for entity in entities},
        "snapshots": {f"{dim}{entity}_snapshot" for entity in entities for dim in ("", "dim_")},
    }
    left = dict(tables)
    listed = []
    for name, members in groups.items():
        if len(members) > 1 and members <= left.keys():
            listed.append(name)
            left = {table: note for table, note in left.items() if table not in members}
    listed += [f"{table if ' ' in table or table == 'itself' else f'`{table}`'}{note}" for table, note in left.items()]
    return ", ".join(sorted(listed)) or "-"
