"""Generated models: staging of each stream, and the history, latest and current versions of each entity."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.streams import EventType, Stream
from dbt_project.contracts.columns import (
    IDENTITY,
    LOG_TIMES,
    VALIDATION,
    described_columns,
    descriptions,
    doc,
    docs,
    kept_fields,
    types,
)
from dbt_project.contracts.layout import ANALYTICS, INTERMEDIATE, STAGING, WRITTEN_BY


@dataclass(frozen=True, slots=True)
class Model:
    path: Path
    """Path in the project, without a suffix."""
    sql: str
    properties: dict[str, Any]
    """Its entry in yml, without the name."""


def event_models(stream: Stream) -> list[Model]:
    """The models of a stream of events."""
    columns = {
        **IDENTITY,
        "event_key": doc("event_key_if_accepted"),
        "event_id": doc("event_id"),
        **(docs("event_type") if isinstance(stream.event_type, EventType) else {}),
        **descriptions(kept_fields(stream)),
        **docs("event_at", "event_date"),
        **LOG_TIMES,
        **VALIDATION,
    }
    return [_staging(stream, "staged_events", stream.description, columns)]


def entity_models(stream: Stream) -> list[Model]:
    """The models of a stream of versions of entities."""
    kept = kept_fields(stream)
    key, fields, field_types = kept[0].name, descriptions(kept), types(kept)
    staged = {
        **IDENTITY,
        "version_key": doc("version_key_if_accepted"),
        **fields,
        **docs("is_tombstone", "created_at", "updated_at", "deleted_at"),
        **LOG_TIMES,
        **VALIDATION,
        **docs("is_key_mismatch"),
    }
    current = {**fields, **docs("created_at", "updated_at")}
    of_current = {"description": f"The latest version of each of {stream.name} that is not deleted ({key})."}
    comment_of_current = f"-- The latest version of each entity that is not deleted.\n-- {WRITTEN_BY}\n"
    return [
        _staging(stream, "staged_versions", f"Versions and deletions. {stream.description}", staged),
        Model(
            ANALYTICS / f"dim_{stream.name}_history",
            f"-- Every version with the time it was valid (SCD2).\n-- {WRITTEN_BY}\n"
            "{{ config(\n    materialized='incremental',\n    unique_key='version_key',\n"
            f"    cluster_by='{key}'\n) }}}}\n{{{{ entity_history('{stream.name}') }}}}",
            {
                "description": f"One row per version of {stream.name} (version_key), deletions included: SCD2, exact"
                " however late versions arrive.",
                "data_tests": [
                    {"unique_key": {"arguments": {"columns": ["version_key"]}}},
                    {"continuous_history": {"arguments": {"id": key}}},
                ],
                "columns": _history_columns(fields, field_types),
            },
        ),
        Model(
            INTERMEDIATE / f"int_{stream.name}_latest",
            f"-- The latest version of each, deleted ones (deleted_at) included.\n-- {WRITTEN_BY}\n"
            f"{{{{ entity_latest('{stream.name}') }}}}",
            {
                "description": f"The latest version of each of {stream.name} that no tombstone removed ({key}).",
                "columns": described_columns({**current, **docs("deleted_at")}),
            },
        ),
        Model(
            INTERMEDIATE / f"int_{stream.name}_current",
            f"{comment_of_current}{{{{ entity_current('{stream.name}') }}}}",
            {**of_current, "columns": described_columns(current)},
        ),
        Model(
            ANALYTICS / f"dim_{stream.name}",
            f"{comment_of_current}{{{{ config(materialized='view') }}}}\n"
            f"select * from {{{{ ref('int_{stream.name}_current') }}}}",
            {
                **of_current,
                "data_tests": [{"unique_key": {"arguments": {"columns": [key]}}}],
                "columns": described_columns(current, field_types),
            },
        ),
    ]


def _staging(stream: Stream, macro: str, description: str, columns: Mapping[str, str]) -> Model:
    return Model(
        STAGING / f"stg_{stream.name}",
        f"-- One row per message, parsed once.\n-- {WRITTEN_BY}\n"
        f"{{{{ config(meta={{'settings': ['earliest_event_at']}}) }}}}\n{{{{ {macro}('{stream.name}') }}}}",
        {
            "description": f"One row per message of {stream.name} (message_id, landed_at). {description}",
            "data_tests": [{"unique_key": {"arguments": {"columns": ["message_id", "landed_at"]}}}],
            "columns": described_columns(columns),
        },
    )


def _history_columns(fields: Mapping[str, str], field_types: Mapping[str, str]) -> list[dict[str, Any]]:
    """The columns of a history, whose first field is the key of the entity."""
    key, *others = described_columns(fields, field_types)
    version_key, version_number = described_columns(
        docs("version_key", "version_number"), {"version_key": "string", "version_number": "bigint"}
    )
    validity = described_columns(
        {
            **docs("is_tombstone", "is_deleted", "created_at"),
            "updated_at": doc("updated_at_of_a_version"),
            **docs("deleted_at", "valid_from", "valid_to", "is_current", "message_id"),
            **LOG_TIMES,
        },
        {"is_tombstone": "boolean", "is_deleted": "boolean", "is_current": "boolean", "message_id": "string"},
    )
    for column in (key, version_key, version_number, *validity):
        if column["name"] not in ("created_at", "deleted_at"):
            column["constraints"] = [{"type": "not_null"}]
    return [version_key, key, version_number, *others, *validity]
