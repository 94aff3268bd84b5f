"""Nodes of parse trees and resolved trees, and the parts of statements that they stand for."""

import re
from typing import Any

TABLE_NAME = re.compile(r"`([\w-]+)(?:`\.`|\.)(\w+)(?:`\.`|\.)(\w+)`")


def concrete(node: Any) -> Any:
    """The node as its most specific class: a proto holds each subclass in a field of the base class."""
    while "node" in node.DESCRIPTOR.oneofs_by_name and node.WhichOneof("node"):
        node = getattr(node, node.WhichOneof("node"))
    return node


def created_name(statement: Any) -> str:
    """The name of the table or view that a statement creates."""
    while "name_path" not in statement.DESCRIPTOR.fields_by_name:
        statement = statement.parent
    path = list(statement.name_path)
    return ".".join(path)


def names_in(sql: str) -> list[str]:
    """Names of tables in a statement, as project.dataset.name."""
    return list(dict.fromkeys(".".join(found) for found in TABLE_NAME.findall(sql)))


def with_flat_names(sql: str) -> str:
    """The statement with each table name in one pair of quotes, padded so that lines and columns stay the same."""
    return TABLE_NAME.sub(lambda found: f"`{'.'.join(found.groups())}`".ljust(len(found[0])), sql)


def text_of(sql: str, node: Any) -> str:
    """The part of a statement that a node of its parse tree stands for."""
    node = concrete(node)
    while "parse_location_range" not in node.DESCRIPTOR.fields_by_name:
        node = node.parent
    place = node.parse_location_range
    return sql.encode()[place.start : place.end].decode()
