"""Adds a field to a contract: `python -m ingest stream promote`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.streams import FOLDER, VOCABULARY, BodyField, Stream, read_contracts
from common.streams.names import PATH
from contracts.field_types import ID_WORDS
from contracts.files import validate
from contracts.names import reserved_names, sentence, snake_case, valid_name
from contracts.personal import looks_personal, why_personal
from contracts.text import yaml_text
from engines.warehouse import UnlistedField

SHOWN_CLOSE = 5
"""Maximum similar paths that an error suggests."""
MOST_UNLISTED = 20
"""Maximum unlisted fields that staging reports of one message."""
UNLISTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_:$-]{0,62}")
"""Names of the unlisted fields that staging reports. Other names may be values, such as those of a map."""


@dataclass(frozen=True)
class Promoted:
    """A field that was added to a contract."""

    name: str
    type: str
    personal: str
    """Why it is probably personal and so dropped; empty if it is not."""


def promote_field(
    name: str,
    path: str,
    kind: str | None = None,
    *,
    seen: Sequence[UnlistedField] | None = None,
    folder: Path = FOLDER,
) -> Promoted:
    """Append a field to a contract, whose text and comments stay as they are. A field that looks personal gets
    `personal: drop`.

    Args:
        name: The stream.
        path: Where the field is in the body, such as `props.ref`.
        kind: Its type; None chooses one that accepts all values seen so far.
        seen: The unlisted fields of landed messages; None if they are not known.
        folder: Folder of the contracts.

    Raises:
        UserError: for an unknown stream, an invalid path or type, a field that the contract already reads, and one that
            no message has.
    """
    streams = read_contracts(folder)
    if name not in streams:
        raise UserError(f"unknown stream {name!r}; the streams are {', '.join(streams)}")
    stream = streams[name]
    for field in stream.fields:
        if path in field.paths:
            raise UserError(f"{folder.name}/{name}.yml reads {path} already, as {field.name}")
    if not PATH.fullmatch(path):
        raise UserError(
            f"{path!r} is not a path; expected names with . between them, such as props.ref or items[0].sku"
        )
    for field in stream.fields:
        _check_not_inside(f"{folder.name}/{name}.yml", field, path)
    taken = {field.name.lower() for field in stream.fields}
    is_reserved = snake_case(path) in reserved_names(stream.kind)
    field_name = valid_name(snake_case(path), taken, is_reserved=is_reserved)
    of_path = [field for field in seen or () if field.path == path]
    kind = kind or _type_of(field_name, {field.type for field in of_path})
    # examples show every digit as 9, but 999.999.999.999 is not an IP address
    personal = why_personal(field_name, looks_personal([field.example.replace("9", "1") for field in of_path]))
    entries = {"name": field_name, "path": path, "type": kind, "description": sentence(field_name)}
    if path == field_name:
        del entries["path"]
    if kind == "string":
        del entries["type"]
    lines = [f"{key}: {yaml_text(value)}" for key, value in entries.items()]
    if personal:
        lines.insert(-1, f"personal: drop  # guessed: personal by {personal}; review it")
    file = folder / f"{name}.yml"
    text = _with_field(file, lines)
    validate(file, text)
    if seen is not None and not of_path and _would_be_reported(stream, path, seen):
        raise UserError(_unseen(name, path, seen))
    file.write_text(text, encoding="utf-8")
    return Promoted(field_name, kind, personal)


def _check_not_inside(file: str, field: BodyField, path: str) -> None:
    """Reject a path that is inside a field or around one."""
    for known in field.paths:
        if field.type == "json" and path.startswith((f"{known}.", f"{known}[")):
            raise UserError(
                f"{file} keeps {known} as json, so {path} cannot be read too: a list or an object is kept whole or read"
                f" by paths, not both; replace the field {field.name} by fields of its parts"
            )
        if known.startswith((f"{path}.", f"{path}[")):
            raise UserError(
                f"{file} reads {known}, so {path} cannot be kept too: a list or an object is kept whole or read by"
                " paths, not both"
            )


def _type_of(name: str, seen: set[str]) -> str:
    """Choose a type that accepts all values of these JSON types. A stricter one would make dead letters of messages
    that are accepted today."""
    if seen & {"object", "array"}:
        return "json"
    if name.rpartition("_")[2] in ID_WORDS:
        return "id"
    if name in VOCABULARY:
        return "amount" if VOCABULARY[name] == "amount" else "string"
    return {frozenset(["number"]): "amount", frozenset(["boolean"]): "boolean"}.get(frozenset(seen), "string")


def _would_be_reported(stream: Stream, path: str, seen: Sequence[UnlistedField]) -> bool:
    """Whether field_drift would list the path, or one around it, if a message had it."""
    first, *rest = (step.partition("[")[0] for step in path.split("."))
    reported = ".".join([first, *rest[:1]])
    known = [*stream.ignored, *(path for field in stream.fields for path in field.paths)]
    is_inside_known = any(
        one in (first, reported) or one.startswith((f"{first}[", f"{reported}.", f"{reported}[")) for one in known
    )
    paths = {field.path for field in seen}
    return (
        all(UNLISTED_NAME.fullmatch(step) for step in (first, *rest[:1]))
        and not is_inside_known
        and paths.isdisjoint({first, reported})
        and len(paths) < MOST_UNLISTED
    )


def _unseen(name: str, path: str, seen: Sequence[UnlistedField]) -> str:
    paths = [*dict.fromkeys(field.path for field in seen)]
    close = get_close_matches(path, paths, n=SHOWN_CLOSE, cutoff=0.5) or paths[:SHOWN_CLOSE]
    others = f"the closest unlisted fields are {', '.join(close)}" if close else "the contract lists all fields"
    return f"no message of {name} had {path} in the last build; {others}"


def _with_field(file: Path, entries: Sequence[str]) -> str:
    """Return the text of a contract with one more field after the last."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    root: Any = yaml.compose(text, yaml.CSafeLoader)
    [fields] = [value for key, value in root.value if key.value == "fields"]
    start = fields.value[0].start_mark
    indent = lines[start.line][: start.column]
    if not re.fullmatch(r" *- +", indent):
        raise UserError(f"{file.parent.name}/{file.name}: write each field on its own lines, beginning with - name:")
    last = fields.value[-1]
    while isinstance(last, yaml.MappingNode) and not last.flow_style:
        last = last.value[-1][1]
    end = last.end_mark.line + (last.end_mark.column > 0)  # a block of text ends at the beginning of the next line
    added = [f"{indent}{entries[0]}", *(f"{' ' * len(indent)}{entry}" for entry in entries[1:])]
    return "\n".join([*lines[:end], *added, *lines[end:], ""])
