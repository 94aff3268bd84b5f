"""The text of a new contract, with a comment wherever it is a guess."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from common.console import count
from contracts.draft import FEW, SHOWN_PATHS, Draft
from contracts.names import sentence


def contract_text(draft: Draft) -> str:
    """Return the text of streams/NAME.yml."""
    return "\n".join([*_header(draft), *_keys(draft), *_field_lines(draft), ""])


def _header(draft: Draft) -> Iterator[str]:
    sample = draft.sample
    yield f"# From {'' if sample.is_all else 'the first '}{count(sample.read)} of {_printable(sample.origin)}."
    yield "# `# guessed` marks what to check; `stream check` reports what the contract rejects."
    if sample.unreadable:
        yield f"# Not a JSON object: {sample.unreadable:,} of them. Staging makes a dead letter of each."
    if draft.left_out:
        yield f"# Left out: {shown_paths(draft.left_out)}."


def _keys(draft: Draft) -> Iterator[str]:
    for key, (value, guess) in draft.contract.items():
        comment = _comment([guess] if guess else [])
        if isinstance(value, dict):
            yield f"{key}:{comment}"
            yield from (f"  {inner}: {yaml_text(one)}" for inner, one in value.items())
        else:
            yield f"{key}: {yaml_text(value)}{comment}"
    if draft.kind == "event" and "id" not in draft.contract:
        yield "# guessed: no field identifies an event, so its content does; id: [FIELD] names one that does."


def _field_lines(draft: Draft) -> Iterator[str]:
    few = [f"required is what {count(draft.messages)} have, which are few"] if draft.messages < FEW else []
    yield f"fields:{_comment(few)}"
    required = {*draft.contract.get("time", ([], ""))[0][: 0 if draft.kind == "entity" else 1]}
    for line in draft.lines:
        field = line.field
        values: Mapping[str, Any] = {
            "name": line.name,
            "path": line.path if line.path != line.name else None,
            "type": field.type if field.type != "string" else None,
            "unit": field.unit,
            "format": field.format,
            "required": True if draft.is_in_all(line) or line.path in required else None,
            "personal": line.personal,
            "description": sentence(draft.base_name(line.path)),
        }
        entries = [f"{key}: {yaml_text(value)}" for key, value in values.items() if value is not None]
        yield f"  - {entries[0]}{_comment(line.guesses)}"
        yield from (f"    {entry}" for entry in entries[1:])


def shown_paths(paths: Sequence[str]) -> str:
    """List the first SHOWN_PATHS of some paths on one line."""
    more = f" and {len(paths) - SHOWN_PATHS:,} more" if len(paths) > SHOWN_PATHS else ""
    return f"{_printable(', '.join(path[:100] for path in paths[:SHOWN_PATHS]))}{more}"


def yaml_text(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    return str(text).removesuffix("\n").removesuffix("\n...").strip()


def _comment(guesses: Sequence[str]) -> str:
    return f"  # guessed: {_printable('; '.join(guesses))}" if guesses else ""


def _printable(text: str) -> str:
    """Replace characters that YAML comments cannot have, such as newlines."""
    return "".join(character if character.isprintable() else "?" for character in text)
