"""The generated macros that give models what they need from the contracts."""

from collections.abc import Mapping
from typing import Any

from common.streams import VOCABULARY, BodyField, EventType, Stream
from dbt_project.contracts.columns import renamed_fields
from dbt_project.contracts.layout import WRITTEN_BY


def macros(streams: Mapping[str, Stream]) -> str:
    """The macros `contracts`, with what models need from each contract, and `event_attributes`, columns of
    fct_events."""
    contracts = "".join(f"        {stream.name!r}: {_for_models(stream)},\n" for stream in streams.values())
    return f"""\
{{#- {WRITTEN_BY} -#}}
{{% macro contracts() %}}
    {{{{ return({{
{contracts}    }}) }}}}
{{% endmacro %}}

{{#- The columns that say what an event was about, in the order of fct_events. Each stream fills some of them. -#}}
{{% macro event_attributes() %}}
    {{{{ return({list(VOCABULARY)}) }}}}
{{% endmacro %}}
"""


def _for_models(stream: Stream) -> str:
    """A contract as a Jinja literal.

    `lines` are the fields that distinguish events with one id, and `own` those in `renamed_fields`.
    """
    of_type = stream.event_type
    contract = {
        "kind": stream.kind,
        "envelope": stream.envelope,
        "key": stream.key,
        "format": stream.format,
        "event_type": of_type.model_dump() if isinstance(of_type, EventType) else of_type,
        "id": stream.id[0] if stream.id else None,
        "id_is_required": any(field.required and field.in_body in stream.id[:1] for field in stream.fields),
        "lines": [*stream.id[1:]],
        "time": [*stream.time],
        "created": stream.created,
        "deleted": [*stream.deleted],
        "own": renamed_fields(stream),
        **_listed(stream),
        "nulls": [*stream.nulls],
        "one_of": [[*group] for group in stream.one_of],
        "fields": [_field_for_models(field) for field in stream.fields if _is_read(stream, field)],
    }
    # a text of a contract must not start a block of Jinja
    return (
        repr({name: value for name, value in contract.items() if value is not None})
        .replace("{%", r"\x7b%")
        .replace("{#", r"\x7b#")
    )


def _is_read(stream: Stream, field: BodyField) -> bool:
    """Whether models need the field. A dropped field may still be required, or identify events without an id."""
    validates = field.required or field.values or any(field.in_body in group for group in stream.one_of)
    has_id = any(one.required for one in stream.fields if one.in_body in stream.id[:1])
    identifies = stream.kind == "entity" or (field.type != "json" and not has_id)
    return field.personal != "drop" or bool(validates) or field.type not in ("string", "id", "json") or identifies


def _listed(stream: Stream) -> dict[str, list[str]]:
    """The names at the top level of a body that the contract lists, and as `listed_inside` the paths one level
    below."""
    of_envelope = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"]
    listed = dict.fromkeys(of_envelope if stream.envelope == "cloudevents" else [])
    inside: dict[str, None] = {}
    for path in (*stream.ignored, *(path for field in stream.fields for path in field.paths)):
        first, *rest = path.replace("[", ".[").split(".")
        if rest and not rest[0].startswith("["):
            inside[f"{first}.{rest[0]}"] = None
        else:
            listed[first] = None
    return {"listed": [*listed], "listed_inside": [*inside]}


def _field_for_models(field: BodyField) -> dict[str, Any]:
    properties = {
        "name": field.name,
        "path": field.in_body,
        "paths": [*field.paths],
        "type": field.type,
        "unit": field.unit,
        "format": field.format,
        "required": field.required,
        "accepted": [*field.values],
        "nulls": [*field.nulls],
        "personal": field.personal,
    }
    return {name: value for name, value in properties.items() if value or name == "nulls"}
