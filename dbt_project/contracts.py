"""Tells dbt what the contracts of `streams/` say: `python -m dbt_project.contracts` writes two files of the project.

dbt reads no contract by itself. `make build` writes the files too, before dbt starts. They are in git, so that plain
dbt has them.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from ingest.streams import STREAMS, Stream

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
    contracts = ",\n".join(
        f"        '{stream.name}': {{'kind': '{stream.kind}', 'fields': {list(stream.field_names)}}}"
        for stream in streams.values()
    )
    return f"""\
{{#- {WRITTEN_BY} -#}}
{{% macro contracts() %}}
    {{{{ return({{
{contracts}
    }}) }}}}
{{% endmacro %}}
"""


def _description(stream: Stream) -> str:
    transport = {"pubsub": "Pub/Sub", "kafka": "Kafka"}[stream.transport]
    return f"{stream.description} From {transport}{f', keyed by {stream.key}' if stream.key else ''}."


if __name__ == "__main__":
    write_contracts()
