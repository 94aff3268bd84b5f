"""The generated source: the raw tables."""

import json
from collections.abc import Mapping

from common.streams import Stream
from dbt_project.contracts.layout import WRITTEN_BY


def sources(streams: Mapping[str, Stream]) -> str:
    """The yml of the source `raw`, one table per stream."""
    tables = "".join(
        f"      - name: {stream.name}\n        description: {json.dumps(_description(stream), ensure_ascii=False)}\n"
        for stream in streams.values()
    )
    return f"""\
# {WRITTEN_BY}
version: 2

sources:
  - name: raw
    description: Messages as received, one table per stream, written by `python -m ingest land`; nothing is parsed.
    schema: "{{{{ env_var('DATASET_PREFIX', '') }}}}raw"
    config:
      loaded_at_field: landed_at
      freshness:
        warn_after: {{count: 1, period: day}}
    tables:
{tables}"""


def _description(stream: Stream) -> str:
    transport = {"pubsub": "Pub/Sub", "kafka": "Kafka"}[stream.transport]
    return f"{stream.description} From {transport}{f', keyed by {stream.key}' if stream.key else ''}."
