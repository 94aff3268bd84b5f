"""Tells dbt what the contracts of `streams/` say: `python -m dbt_project.contracts` writes files of the project.

dbt reads no contract by itself. `make build` writes the files too, before dbt starts. They are in git, so that plain
dbt has them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ingest.errors import UserError
from ingest.streams import STREAMS, EventType, Stream

PROJECT = Path(__file__).parent
SOURCES = Path("models/staging/_raw__sources.yml")
MACROS = Path("macros/contracts.sql")
MODELS = Path("models/staging/contracts")
WRITTEN_BY = "Written by `python -m dbt_project.contracts` from streams/*.yml: change those."

IDENTITY = {
    "stream": "The stream that the message came by, such as page_views.",
    "message_id": "topic/partition/offset of the message, or its Pub/Sub id.",
    "event_key": "Identity of the event: hash of stream, event_id and UTC date of the event. Null when rejected.",
    "event_id": "Id of the event within its stream, as the stream defines it.",
}
EVENT_TYPE = "What kind of event it is."
TIMES_AND_JUDGEMENT = {
    "event_at": "When it happened, UTC.",
    "event_date": "UTC date of event_at.",
    "published_at": "When the message was published, UTC; when it landed, if the broker does not say.",
    "landed_at": "When the message was committed to the warehouse, UTC; later than every earlier one of its stream.",
    "reject_reason": "Why the message is not accepted (undecodable:<why>, malformed_json, missing:<field>,"
    " invalid:<field>, too_long:<field>); null when it is.",
    "reject_detail": "More about the reason.",
    "rejected_payload": "The body as received, of a rejected message only.",
}


def write_contracts(project: Path = PROJECT, streams: Mapping[str, Stream] = STREAMS) -> None:
    """Write what has changed of the files, and remove the models of contracts that are gone.

    Raises:
        UserError: for an entity that no model is written for.
    """
    written = files(project, streams)
    for path, text in written.items():
        if not (project / path).exists() or (project / path).read_text(encoding="utf-8") != text:
            (project / path).parent.mkdir(exist_ok=True)
            (project / path).write_text(text, encoding="utf-8")
    for path in (project / MODELS).glob("stg_*"):
        if path.relative_to(project) not in written:
            path.unlink()


def files(project: Path, streams: Mapping[str, Stream]) -> dict[Path, str]:
    """Path in the project to text: the source, the macro, and staging for each stream that has none written by hand.

    Raises:
        UserError: for an entity that has none.
    """
    written = {SOURCES: sources(streams), MACROS: macros(streams)}
    by_hand = {path.stem for path in (project / "models").rglob("stg_*.sql") if path.parent != project / MODELS}
    for stream in streams.values():
        if (model := f"stg_{stream.name}") in by_hand:
            continue
        if stream.kind == "entity":
            raise UserError(
                f"streams/{stream.name}.yml: kind: an entity needs models of its own, such as stg_users and"
                " dim_users_history for users"
            )
        written[MODELS / f"{model}.sql"] = (
            f"-- One row a message, parsed once. {WRITTEN_BY}\n"
            f"{{{{ config(meta={{'settings': ['earliest_event_at']}}) }}}}\n{{{{ staged_events('{stream.name}') }}}}\n"
        )
        written[MODELS / f"{model}.yml"] = staging(stream)
    return written


def staging(stream: Stream) -> str:
    """The description of a staging model and its columns."""
    of_type = stream.event_type.field if isinstance(stream.event_type, EventType) else None
    inner = {of_type, *stream.id[:1], *stream.time}
    own = {field.name: field.description for field in stream.fields if field.in_body not in inner}
    columns = {**IDENTITY, **({"event_type": EVENT_TYPE} if of_type else {}), **own, **TIMES_AND_JUDGEMENT}
    model = {
        "name": f"stg_{stream.name}",
        "description": f"One row a message of {stream.name} (message_id, landed_at). {stream.description}",
        "data_tests": [{"unique_key": {"arguments": {"columns": ["message_id", "landed_at"]}}}],
        "columns": [{"name": name, "description": description} for name, description in columns.items()],
    }
    text: str = yaml.safe_dump({"version": 2, "models": [model]}, sort_keys=False, allow_unicode=True, width=1000)
    return f"# {WRITTEN_BY}\n{text}"


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
        "format": stream.format,
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
