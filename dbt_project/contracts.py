"""Tells dbt what the contracts of `streams/` say: `python -m dbt_project.contracts` writes files of the project.

dbt reads no contract by itself. `make build` writes the files too, before dbt starts. They are in git, so that plain
dbt has them.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.streams import STREAMS, VOCABULARY, BodyField, EventType, Stream

PROJECT = Path(__file__).parent
WRITTEN_BY = "Written by `python -m dbt_project.contracts` from streams/*.yml: change those."
SOURCES = Path("models/staging/_raw__sources.yml")
MACROS = Path("macros/contracts.sql")
FOLDERS = [Path(f"models/{layer}/contracts") for layer in ("staging", "intermediate", "analytics")]
STAGING, INTERMEDIATE, ANALYTICS = FOLDERS
SNAPSHOTS = Path("../snapshots/_snapshots.yml")


def doc(name: str) -> str:
    """The description of a column that several models have: a block of models/columns.md."""
    return f'{{{{ doc("{name}") }}}}'


IDENTITY = {name: doc(name) for name in ("stream", "message_id")}
EVENT_IDENTITY = {**IDENTITY, "event_key": doc("event_key_if_accepted"), "event_id": doc("event_id")}
LOG_TIMES = {name: doc(name) for name in ("published_at", "landed_at")}
JUDGEMENT = {name: doc(name) for name in ("reject_reason", "reject_detail", "rejected_payload", "unlisted_fields")}
BY_HAND = ("dim_users", "dim_products", "dim_posts")
"""Dimensions with more than their entities have: totals of other marts."""
TYPES = {"integer": "bigint", "amount": "numeric(18, 4)", "boolean": "boolean", "timestamp": "timestamp"}
"""Types of the columns of marts; those of other types are text."""


def write_contracts(project: Path = PROJECT, streams: Mapping[str, Stream] = STREAMS) -> None:
    """Write what has changed of the files, and remove the models of contracts that are gone.

    Raises:
        UserError: for a stream whose models have the names of others.
    """
    written = files(project, streams)
    for path, text in written.items():
        if not (project / path).exists() or (project / path).read_text(encoding="utf-8") != text:
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text, encoding="utf-8")
    for path in (path for folder in FOLDERS for path in (project / folder).glob("*.*")):
        if path.relative_to(project) not in written:
            path.unlink()


def parse_changed_contracts(target: Path, project: Path = PROJECT) -> None:
    """Let dbt parse everything again once the snapshots of contracts have changed, here or by a pull. It would miss new
    ones (dbt-core issue 15785), and stop at one whose model is gone.

    Args:
        target: The folder in which dbt keeps what it parsed; every command has its own.
    """
    snapshots = (project / SNAPSHOTS).read_bytes()
    parsed, seen = target / "partial_parse.msgpack", target / "snapshots.yml"
    if parsed.exists() and not (seen.exists() and seen.read_bytes() == snapshots):
        parsed.unlink()
    target.mkdir(parents=True, exist_ok=True)
    seen.write_bytes(snapshots)


def files(project: Path, streams: Mapping[str, Stream]) -> dict[Path, str]:
    """Path in the project to text: the source, the macro, and the models that nobody wrote by hand.

    Raises:
        UserError: for a stream whose models have the names of others, that is gone while a model reads it, or that has
            personal fields while its staging is written by hand.
    """
    by_hand = {
        path.stem: path.relative_to(project)
        for path in (project / "models").rglob("*.sql")
        if path.parent.relative_to(project) not in FOLDERS
    }
    written = {SOURCES: sources(streams), MACROS: macros(streams)}
    for stream in streams.values():
        models = entity_models(stream) if stream.kind == "entity" else event_models(stream)
        for path, sql, description in models:
            if path.name in by_hand and (path.parent == STAGING or path.name in BY_HAND):
                if path.parent == STAGING and (personal := [field.name for field in stream.fields if field.personal]):
                    raise UserError(
                        f"streams/{stream.name}.yml: {personal[0]} cannot be personal: its staging is written by hand"
                        f" and would keep it in clear; drop or hash it in dbt_project/{by_hand[path.name]}"
                    )
                continue
            if path.name in by_hand or path.with_suffix(".sql") in written:
                raise UserError(f"streams/{stream.name}.yml: there is another model {path.name}; choose another name")
            written[path.with_suffix(".sql")] = f"{sql}\n"
            written[path.with_suffix(".yml")] = _yaml({"models": [{"name": path.name, **description}]})
    for path in by_hand.values():
        text = (project / path).read_text(encoding="utf-8")
        for name in re.findall(r"(?:ref\('stg_|source\('raw', ')(\w+)'\)", text):
            if name not in streams:
                raise UserError(
                    f"streams/{name}.yml is missing, but dbt_project/{path} reads this stream: restore the contract (a"
                    " stream without messages costs nothing), or delete the model and the models that read it"
                )
    written[SNAPSHOTS] = snapshots(streams)
    return written


def event_models(stream: Stream) -> list[tuple[Path, str, dict[str, Any]]]:
    """Of each model its path without a suffix, its SQL, and what its yml says."""
    own = _own(stream)
    kept = [field for field in stream.fields if field.in_body not in own and field.personal != "drop"]
    columns = {
        **EVENT_IDENTITY,
        **({"event_type": doc("event_type")} if isinstance(stream.event_type, EventType) else {}),
        **{field.name: _meaning(field) for field in kept},
        "event_at": doc("event_at"),
        "event_date": doc("event_date"),
        **LOG_TIMES,
        **JUDGEMENT,
    }
    return [_staging(stream, "staged_events", f"{stream.description}", columns)]


def entity_models(stream: Stream) -> list[tuple[Path, str, dict[str, Any]]]:
    """Of each model its path without a suffix, its SQL, and what its yml says."""
    own = _own(stream)
    (key,) = (field for field in stream.fields if field.in_body == stream.key)
    kept = [field for field in stream.fields if field.in_body not in own and field.personal != "drop"]
    fields = {field.name: _meaning(field) for field in (key, *kept)}
    types = {field.name: TYPES.get(field.type, "string") for field in (key, *kept)}
    staged = {
        **IDENTITY,
        "version_key": doc("version_key_if_accepted"),
        **fields,
        "is_tombstone": doc("is_tombstone"),
        "created_at": doc("created_at"),
        "updated_at": doc("updated_at"),
        "deleted_at": doc("deleted_at"),
        **LOG_TIMES,
        **JUDGEMENT,
        "is_key_mismatch": doc("is_key_mismatch"),
    }
    current = {**fields, "created_at": doc("created_at"), "updated_at": doc("updated_at")}
    history = f"dim_{stream.name}_history"
    return [
        _staging(stream, "staged_versions", f"Versions and deletions. {stream.description}", staged),
        (
            ANALYTICS / history,
            f"-- Every version with the time it was valid (SCD2).\n-- {WRITTEN_BY}\n"
            "{{ config(\n    materialized='incremental',\n    unique_key='version_key',\n"
            f"    cluster_by='{key.name}'\n) }}}}\n{{{{ entity_history('{stream.name}') }}}}",
            {
                "description": f"One row per version of {stream.name} (version_key), deletions included: SCD2, exact"
                " however late versions arrive.",
                "data_tests": [
                    {"unique_key": {"arguments": {"columns": ["version_key"]}}},
                    {"continuous_history": {"arguments": {"id": key.name}}},
                ],
                "columns": _history_columns(key.name, fields, types),
            },
        ),
        (
            INTERMEDIATE / f"int_{stream.name}_latest",
            f"-- The latest version of each, deleted ones (deleted_at) included.\n-- {WRITTEN_BY}\n"
            f"{{{{ entity_latest('{stream.name}') }}}}",
            {
                "description": f"The latest version of each of {stream.name} that no tombstone removed ({key.name}).",
                "columns": _columns({**current, "deleted_at": doc("deleted_at")}),
            },
        ),
        (
            INTERMEDIATE / f"int_{stream.name}_current",
            f"-- Those that are not deleted, as they are now.\n-- {WRITTEN_BY}\n"
            f"{{{{ entity_current('{stream.name}') }}}}",
            {
                "description": f"The latest version of each of {stream.name} that is not deleted ({key.name}).",
                "columns": _columns(current),
            },
        ),
        (
            ANALYTICS / f"dim_{stream.name}",
            f"-- Those that are not deleted, as they are now.\n-- {WRITTEN_BY}\n"
            "{{ config(materialized='view') }}\n"
            f"select * from {{{{ ref('int_{stream.name}_current') }}}}",
            {
                "description": f"The latest version of each of {stream.name} that is not deleted ({key.name}).",
                "data_tests": [{"unique_key": {"arguments": {"columns": [key.name]}}}],
                "columns": _columns(current, types),
            },
        ),
    ]


def _staging(
    stream: Stream, macro: str, description: str, columns: Mapping[str, str]
) -> tuple[Path, str, dict[str, Any]]:
    return (
        STAGING / f"stg_{stream.name}",
        f"-- One row per message, parsed once.\n-- {WRITTEN_BY}\n"
        f"{{{{ config(meta={{'settings': ['earliest_event_at']}}) }}}}\n{{{{ {macro}('{stream.name}') }}}}",
        {
            "description": f"One row per message of {stream.name} (message_id, landed_at). {description}",
            "data_tests": [{"unique_key": {"arguments": {"columns": ["message_id", "landed_at"]}}}],
            "columns": _columns(columns),
        },
    )


def _history_columns(key: str, fields: Mapping[str, str], types: Mapping[str, str]) -> list[dict[str, Any]]:
    text = {"description": "", "data_type": "string"}
    required = {"constraints": [{"type": "not_null"}]}
    rest = _columns(
        {
            **{name: doc(name) for name in ("is_tombstone", "is_deleted", "created_at")},
            "updated_at": doc("updated_at_of_a_version"),
            **{name: doc(name) for name in ("deleted_at", "valid_from", "valid_to", "is_current", "message_id")},
            **LOG_TIMES,
        },
        {"is_tombstone": "boolean", "is_deleted": "boolean", "is_current": "boolean", "message_id": "string"},
    )
    for column in rest:
        if column["name"] not in ("created_at", "deleted_at"):
            column.update(required)
    columns = _columns(fields, types)
    columns[0].update(required)
    version_key = {"name": "version_key", **text, "description": doc("version_key"), **required}
    number = {
        "name": "version_number",
        "description": doc("version_number"),
        "data_type": "bigint",
        **required,
    }
    return [version_key, columns[0], number, *columns[1:], *rest]


def _columns(columns: Mapping[str, str], types: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """With types, those of a mart: what they do not name is a timestamp."""
    return [
        {
            "name": name,
            "description": description,
            **({} if types is None else {"data_type": types.get(name, "timestamp")}),
        }
        for name, description in columns.items()
    ]


def snapshots(streams: Mapping[str, Stream]) -> str:
    """dbt's snapshots of each entity: of its latest version, and of those that are not deleted."""
    found = []
    for stream in streams.values():
        if stream.kind == "entity":
            key = next(field.name for field in stream.fields if field.in_body == stream.key)
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
    return _yaml({"snapshots": found}) if found else f"# {WRITTEN_BY}\nversion: 2\n"


def _snapshot_columns(stream: Stream, *, deleted: bool) -> list[dict[str, Any]]:
    own = _own(stream)
    key = [field for field in stream.fields if field.in_body == stream.key]
    kept = [field for field in stream.fields if field.in_body not in own and field.personal != "drop"]
    fields = {field.name: _meaning(field) for field in key + kept}
    times = {"created_at": doc("created_at"), "updated_at": doc("updated_at")}
    names = ("dbt_scd_id", "dbt_updated_at", "dbt_valid_from", "dbt_valid_to", "dbt_is_deleted")
    types = {field.name: TYPES.get(field.type, "string") for field in key + kept}
    return _columns(
        {
            **fields,
            **times,
            **({"deleted_at": doc("deleted_at")} if deleted else {}),
            **{name: doc(name) for name in names},
        },
        {**types, "dbt_scd_id": "string", "dbt_is_deleted": "string"},
    )


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
    description: Messages as received, one table per stream, written by `python -m ingest land`; nothing is parsed.
    schema: "{{{{ env_var('DATASET_PREFIX', '') }}}}raw"
    config:
      loaded_at_field: landed_at
      freshness:
        warn_after: {{count: 1, period: day}}
    tables:
{tables}"""


def macros(streams: Mapping[str, Stream]) -> str:
    """Macros that give the contracts, as far as the models need them, and the columns of fct_events."""
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
    """What the models read of a contract, as Jinja. `lines` are the fields that tell events of one id apart, `own`
    those that have another column than their name."""
    of_type = stream.event_type
    told = {
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
        "own": _own(stream),
        **_listed(stream),
        "nulls": [*stream.nulls],
        "one_of": [[*group] for group in stream.one_of],
        "fields": [_field_for_models(field) for field in stream.fields if _is_read(stream, field)],
    }
    # no text of a contract begins or ends a block of Jinja
    return (
        repr({name: value for name, value in told.items() if value is not None})
        .replace("{%", r"\x7b%")
        .replace("{#", r"\x7b#")
    )


def _is_read(stream: Stream, field: BodyField) -> bool:
    """Whether a model needs the field: one that is dropped may be required, or tell events without an id apart."""
    judges = field.required or field.values or any(field.in_body in group for group in stream.one_of)
    has_id = any(one.required for one in stream.fields if one.in_body in stream.id[:1])
    tells_apart = stream.kind == "entity" or (field.type != "json" and not has_id)
    return field.personal != "drop" or bool(judges) or field.type not in ("string", "id", "json") or tells_apart


def _listed(stream: Stream) -> dict[str, list[str]]:
    """The names at the top of a body that the contract knows, but for objects of which it reads fields: `listed_inside`
    has the paths of these."""
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
    told = {
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
    return {name: value for name, value in told.items() if value or name == "nulls"}


def _own(stream: Stream) -> list[str]:
    """The fields that have a column of another name than theirs: id, type and time of an event, id and times of a
    version. An id that is one of the columns of fct_events, such as user_id, is there too."""
    of_type = [stream.event_type.field] if isinstance(stream.event_type, EventType) else []
    shared = [field.in_body for field in stream.fields if field.name in VOCABULARY]
    found = [name for name in (*stream.id[:1], *of_type) if name not in shared]
    if stream.kind == "entity":
        found += [*([stream.key] if stream.key else []), *([stream.created] if stream.created else []), *stream.deleted]
    return [*found, *stream.time]


def _meaning(field: BodyField) -> str:
    return f"{field.description} As a keyed hash." if field.personal == "hash" else field.description


def _description(stream: Stream) -> str:
    transport = {"pubsub": "Pub/Sub", "kafka": "Kafka"}[stream.transport]
    return f"{stream.description} From {transport}{f', keyed by {stream.key}' if stream.key else ''}."


def _yaml(content: dict[str, Sequence[Any]]) -> str:
    text: str = yaml.safe_dump({"version": 2, **content}, sort_keys=False, allow_unicode=True, width=1000)
    return f"# {WRITTEN_BY}\n{text}"


if __name__ == "__main__":
    try:
        argparse.ArgumentParser(
            prog="python -m dbt_project.contracts",
            description="Write the dbt files that follow from streams/*.yml: models, sources, macros and snapshots.",
        ).parse_args()
        write_contracts()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
