"""Generated snapshots of each entity."""

from collections.abc import Mapping
from typing import Any

from common.streams import Stream
from dbt_project.contracts.columns import described_columns, descriptions, doc, docs, kept_fields, types
from dbt_project.contracts.layout import WRITTEN_BY, yaml_text


def snapshots(streams: Mapping[str, Stream]) -> str:
    """Two snapshots per entity: of its latest versions, and of those that are not deleted."""
    found = []
    for stream in streams.values():
        if stream.kind == "entity":
            key = kept_fields(stream)[0].name
            for name, model, rows in (
                (
                    f"{stream.name}_snapshot",
                    "latest",
                    f"{stream.name}, deleted ones included",
                ),
                (f"dim_{stream.name}_snapshot", "current", f"{stream.name} that are not deleted"),
            ):
                found.append(
                    {
                        "name": name,
                        "description": f"One row per version that a build saw of {rows}.",
                        "relation": f"ref('int_{stream.name}_{model}')",
                        "config": {
                            "unique_key": key,
                            "strategy": "timestamp",
                            "updated_at": "updated_at",
                            "hard_deletes": "new_record",
                            "dbt_valid_to_current": "cast('9999-12-31' as timestamp)",
                        },
                        "columns": _snapshot_columns(stream, deleted=model == "latest"),
                    }
                )
    return yaml_text({"snapshots": found}) if found else f"# {WRITTEN_BY}\nversion: 2\n"


def _snapshot_columns(stream: Stream, *, deleted: bool) -> list[dict[str, Any]]:
    kept = kept_fields(stream)
    names = ("dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to", "dbt_is_deleted")
    return described_columns(
        {
            **descriptions(kept),
            **docs("created_at", "updated_at"),
            **({"deleted_at": doc("deleted_at")} if deleted else {}),
            **docs(*names),
        },
        {**types(kept), "dbt_scd_id": "string", "dbt_is_deleted": "string"},
    )
