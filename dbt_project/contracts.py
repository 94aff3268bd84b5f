"""Tells dbt what the contracts of `streams/` say: `python -m dbt_project.contracts` writes two files of the project.

dbt reads no contract by itself. `make build` writes the files too, before dbt starts. They are in git, so that plain
dbt has them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.streams import STREAMS, EventType, Stream

PROJECT = Path(__file__).parent
SOURCES = Path("models/staging/_raw__sources.yml")
MACROS = Path("macros/contracts.sql")
WRITTEN_BY = "Written by `python -m dbt_project.contracts` from streams/*.yml: change those."


def write_contracts(project: Path = PROJECT, streams: Mapping[str, Stream] = STREAMS) -> None:
    """Write what has changed of the two files."""
    for path, text in {SOURCES: sources(streams), MACROS: macros(streams)}.items():
        if not (project / path).exists() or (project / path).read_text(encoding="utf-8") != text:
            (project / path).write_text(text, encoding="utf-8")


def sources(streams: Mapping[str, Stream]) -> str:
    """The raw tables as a source of dbt."""
    tables = "".join(
        f"      - name: {stream.name}\n        description: {json.dumps(_description(stream), ensure_ascii=False)}\n"
        for stream in streams.values()
    )
    return f"""\
# {WRITTEN_BY}
version: 2

sources:
  - name: raw
    description: Messages as received, one table a stream, written by `python -m ingest land`; nothing is parsed.
    schema: "{{{{ env_var('DATASET_PREFIX', '') }}}}raw"
    config:
      loaded_at_field: landed_at
      freshness:
        warn_after: {{count: 1, period: day}}
    tables:
{tables}"""


def macros(streams: Mapping[str, Stream]) -> str:
    """A macro that gives the contracts, as far as the models need them."""
    contracts = ",\n".join(f"        '{stream.name}': {_for_models(stream)}" for stream in streams.values())
    return f"""\
{{#- {WRITTEN_BY} -#}}
{{% macro contracts() %}}
    {{{{ return({{
{contracts}
    }}) }}}}
{{% endmacro %}}
"""


def _for_models(stream: Stream) -> dict[str, Any]:
    """What the models read of a contract. `lines` are the columns that tell events of one id apart."""
    of_type = stream.event_type
    names = {field.in_body: field.name for field in stream.fields}
    return {
        "kind": stream.kind,
        "event_type": of_type.model_dump() if isinstance(of_type, EventType) else of_type,
        "id": stream.id[0] if stream.id else None,
        "id_is_required": any(field.required and field.in_body in stream.id[:1] for field in stream.fields),
        "lines": [names[path] for path in stream.id[1:]],
        "time": [*stream.time],
        "nulls": [*stream.nulls],
        "fields": [
            {"name": field.name, "path": field.in_body, "type": field.type, "required": field.required}
            for field in stream.fields
        ],
    }


def _description(stream: Stream) -> str:
    transport = {"pubsub": "Pub/Sub", "kafka": "Kafka"}[stream.transport]
    return f"{stream.description} From {transport}{f', keyed by {stream.key}' if stream.key else ''}."


if __name__ == "__main__":
    write_contracts()
