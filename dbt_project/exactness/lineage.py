"""What a mart is made from: its upstream models and the streams that they read."""

from collections.abc import Iterable, Iterator
from typing import Any

from dbt.artifacts.resources.types import NodeType

from common.streams import EventType, Stream
from dbt_project.warm import WarmProject


def marts_of(project: WarmProject) -> list[str]:
    """Models of the schema analytics that depend on a raw table."""
    return [
        node.name
        for node in project.nodes
        if node.resource_type == NodeType.Model
        and node.schema == "analytics"
        and any(id_.startswith("source.") for id_ in upstream_of(project, [node.unique_id]))
    ]


def upstream_of(project: WarmProject, unique_ids: Iterable[str]) -> list[str]:
    """These nodes and all nodes upstream of them, parents first."""
    found: dict[str, None] = {}

    def visit(unique_id: str) -> None:
        node = project.manifest.nodes.get(unique_id)
        for parent in node.depends_on_nodes if node else ():
            if parent not in found:
                visit(parent)
        found[unique_id] = None

    for unique_id in unique_ids:
        visit(unique_id)
    return list(found)


def models_behind(project: WarmProject, unique_id: str) -> Iterator[Any]:
    """The node of a model; for a view, also those of the models that it reads."""
    if (node := project.manifest.nodes.get(unique_id)) is not None:
        yield node
        if node.config.materialized == "view":
            for parent in node.depends_on_nodes:
                yield from models_behind(project, parent)


def is_named(stream: Stream, code: str) -> bool:
    types = [stream.event_type] if isinstance(stream.event_type, str) else []
    if isinstance(stream.event_type, EventType):
        types = [*stream.event_type.values.values()]
    return any(f"'{name}'" in code for name in (stream.name, f"stg_{stream.name}", *types))
