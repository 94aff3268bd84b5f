"""Reads contracts from the files of a folder, such as streams/."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from common.errors import ContractError
from common.streams.contract import Stream, Transport
from common.streams.mistakes import describe_empty, describe_mistake


class _Loader(yaml.CSafeLoader):
    """Rejects a repeated key: YAML would silently use the last one. Keeps dates as text: MySQL's 0000-00-00 is not a
    date."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key has to be a name", problem_mark=key.start_mark)
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is listed twice", problem_mark=key.start_mark)
            known.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def read_contracts(folder: Path) -> dict[str, Stream]:
    """Read the contracts of a folder.

    Returns:
        The contracts by stream name: events before entities, sorted by name.

    Raises:
        ContractError: naming the file, the place in it and what is expected there.
    """
    if not (files := sorted(folder.glob("*.yml"))):
        raise ContractError(f"there is no contract in {folder}: add a file per stream, such as clicks.yml")
    streams = [_read(path) for path in files]
    owners: dict[tuple[Transport, str], str] = {}
    for path, stream in zip(files, streams, strict=True):
        topic = stream.topic or stream.name
        if (owner := owners.setdefault((stream.transport, topic), stream.name)) != stream.name:
            raise ContractError(
                f"{folder.name}/{path.name}: topic: {topic} is the topic of {owner} too; give each its own"
            )
    return {stream.name: stream for stream in sorted(streams, key=lambda one: one.kind != "event")}


def _read(path: Path) -> Stream:
    file = f"{path.parent.name}/{path.name}"
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  _Loader is a safe loader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ContractError(f"{file}: {line}{error.problem}") from error
    except OSError as error:
        raise ContractError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError(f"{file} is not UTF-8 text: {error}") from error
    except ValueError as error:  # such as an integer of thousands of digits
        raise ContractError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise ContractError(f"{file}: expected keys such as transport, kind and fields")
    if empty := describe_empty(found):
        raise ContractError(f"{file}: {empty}")
    try:
        return Stream.model_validate({**found, "name": path.stem})
    except ValidationError as error:
        raise ContractError(f"{file}: {describe_mistake(error, found)}") from error
