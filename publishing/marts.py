"""Which relations of the dbt project are published, by the manifest that a build leaves."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.errors import UserError
from engines.marts import Mart
from publishing.versions import SEMANTIC_MANIFEST

MANIFEST = "manifest.json"
OPTIONS_OF_DBT = ("merge_update_columns", "merge_exclude_columns", "merge_clauses", "incremental_predicates")
"""Models with these are merged by dbt's own macros."""
PUBLISHED_SCHEMAS = ("intermediate", "analytics")


@dataclass(frozen=True)
class Artifacts:
    """What publishing needs of the files that a build leaves."""

    marts: tuple[Mart, ...]
    semantic_manifest: bytes


def read_artifacts(target: Path) -> Artifacts:
    """Read what publishing needs of a build.

    Args:
        target: where dbt wrote the artifacts of the build.

    Raises:
        UserError: when a file is missing or incomplete, as dbt leaves it on a full disk, or lists no marts.
    """
    try:
        semantic_manifest = (target / SEMANTIC_MANIFEST).read_bytes()
        json.loads(semantic_manifest)
        marts = read_marts(target)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read dbt's files in {target}: {error}; run `make build`") from error
    if not marts:
        raise UserError(f"the manifest in {target} lists no marts: run `make build` without BUILD_PREFIX")
    return Artifacts(marts, semantic_manifest)


def has_artifacts(target: Path) -> bool:
    """Whether `read_artifacts` can read them."""
    try:
        read_artifacts(target)
    except UserError:
        return False
    return True


def read_marts(target: Path) -> tuple[Mart, ...]:
    """The relations to publish; their schemas are those of a build without a prefix.

    These are the schema analytics, and what its views, the queries, the metrics and the exposures read of the schema
    intermediate. A view that reads staging or raw is left out.

    Args:
        target: where dbt wrote the artifacts of the build.

    Raises:
        OSError: when the manifest is not there.
        ValueError: when it is not whole.
    """
    file = target / MANIFEST
    return _read(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(file: Path, _: int) -> tuple[Mart, ...]:
    manifest = json.loads(file.read_bytes())
    nodes: dict[str, Any] = manifest["nodes"]
    readers = [*manifest["exposures"].values(), *manifest["semantic_models"].values()]
    readers += [node for node in nodes.values() if node["resource_type"] == "analysis"]
    publishable = {id: node for id, node in nodes.items() if _is_publishable(id, nodes)}
    wanted = [id for id, node in publishable.items() if node["schema"] == "analytics"]
    wanted += [parent for reader in readers for parent in reader["depends_on"]["nodes"]]
    found: dict[str, Mart] = {}
    while wanted:
        id = wanted.pop()
        if id in publishable and id not in found:
            found[id] = _mart(publishable[id], manifest["metadata"]["project_name"])
            wanted += _parents(publishable[id])
    return tuple(found.values())


def _is_publishable(id: str, nodes: Mapping[str, Any]) -> bool:
    """Whether this is a table of these schemas, or a view of such tables only."""
    node = nodes.get(id)
    return (
        node is not None
        and node["resource_type"] in ("model", "seed")
        and node["schema"] in PUBLISHED_SCHEMAS
        and node["config"]["materialized"] != "ephemeral"
        and all(_is_publishable(parent, nodes) for parent in _parents(node))
    )


def _parents(node: Mapping[str, Any]) -> Iterable[str]:
    """The relations that a view reads; a table has its rows."""
    return node["depends_on"]["nodes"] if node["config"]["materialized"] == "view" else ()


def _mart(node: Mapping[str, Any], project: str) -> Mart:
    config = node["config"]
    unique_key = config.get("unique_key") or ()
    return Mart(
        schema=node["schema"],
        name=node["name"],
        is_view=config["materialized"] == "view",
        records_changes=_records_changes(node, project),
        unique_key=(unique_key,) if isinstance(unique_key, str) else tuple(unique_key),
        partition_by=(config.get("partition_by") or {}).get("field"),
        unpublished=frozenset(
            column["name"]
            for column in node["columns"].values()
            if not {**column["meta"], **column["config"]["meta"]}.get("is_published", True)
        ),
    )


def _records_changes(node: Mapping[str, Any], project: str) -> bool:
    """Whether dbt merges its rows by the macros of this project: see `merges_by_partition` there."""
    config = node["config"]
    return (
        config["materialized"] == "incremental"
        and config.get("incremental_strategy") == "merge"
        and node["package_name"] == project
        and not any(config.get(option) for option in OPTIONS_OF_DBT)
    )
