"""Makes names of fields, and their descriptions, from the names that messages use."""

import re
from collections.abc import Collection
from itertools import count
from typing import Literal

from common.streams.names import OWN_COLUMNS, OWN_PREFIXES, RESERVED


def snake_case(name: str) -> str:
    """Write a name in small letters with _ between words: `props.userId` becomes props_user_id."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()


def singular(name: str) -> str:
    """The name of one message of a stream: page_view for page_views."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith(("sses", "xes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name


def reserved_names(kind: Literal["event", "entity"]) -> set[str]:
    """Names that only the time, the type and the id of a message may have."""
    return {*RESERVED.split(), *OWN_COLUMNS[kind].split()}


def valid_name(name: str, taken: Collection[str], *, is_reserved: bool) -> str:
    """Make a name valid: prefix a reserved one with `body_`, and number one that is taken."""
    name = name[:55].rstrip("_")
    if is_reserved or name.startswith(OWN_PREFIXES) or not re.match("[a-z]", name):
        name = f"body_{name}".rstrip("_")
    numbered = (name if number == 1 else f"{name}_{number}" for number in count(1))
    return next(one for one in numbered if one not in taken)


def sentence(name: str) -> str:
    """Write a name as a description, such as `Signed up at.`"""
    text = name.strip("_").replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}."
