"""Writes docs/data_dictionary.md, what analysts can query, as the yml says: `python -m dbt_project.dictionary`."""

import json
import os
from pathlib import Path
from typing import Any

DICTIONARY = Path(__file__).parents[1] / "docs" / "data_dictionary.md"
SCHEMAS = ("analytics", "snapshots")
HEADER = """\
# Data dictionary

Written by `make docs` from the yml beside the models, which is the place to edit. Times are UTC. Types are those of the
models' contracts: what is `string`, `numeric` and `blob` there is VARCHAR, DECIMAL and BLOB on DuckDB, STRING, NUMERIC
(or BIGNUMERIC) and BYTES on BigQuery.
"""


def dictionary(manifest: Any) -> str:
    """Every mart and snapshot with its grain and columns, and every metric, as Markdown.

    Args:
        manifest: dbt's manifest.json.
    """
    parts = [HEADER]
    for schema in SCHEMAS:
        parts.append(f"## {schema}\n")
        nodes = [
            node
            for node in manifest["nodes"].values()
            if node["resource_type"] in ("model", "seed", "snapshot") and node["schema"].endswith(schema)
        ]
        parts += [_table(node) for node in sorted(nodes, key=lambda node: str(node["name"]))]
    metrics = sorted((metric["name"], metric["description"]) for metric in manifest["metrics"].values())
    parts.append("## Metrics\n\nAsk for them with `make metric`.\n")
    parts.append(_markdown(["metric", "is"], [[f"`{name}`", description] for name, description in metrics]))
    return "\n".join(parts)


def _table(node: Any) -> str:
    columns = [
        [f"`{column['name']}`", column["data_type"] or "", column["description"]] for column in node["columns"].values()
    ]
    return f"### {node['name']}\n\n{node['description']}\n\n{_markdown(['column', 'type', 'is'], columns)}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    target = Path(os.environ.get("DBT_TARGET_PATH", Path(__file__).parent / "target"))
    DICTIONARY.parent.mkdir(exist_ok=True)
    DICTIONARY.write_text(dictionary(json.loads((target / "manifest.json").read_bytes())))
    print(f"data dictionary: {os.path.relpath(DICTIONARY)}")  # noqa: T201
