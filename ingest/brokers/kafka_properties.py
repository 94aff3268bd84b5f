"""Reads KAFKA_CONFIG_FILE, the librdkafka properties file that holds what bootstrap servers alone do not say."""

import re
from pathlib import Path

from common.errors import UserError
from common.settings import Settings

REGISTRY_PREFIXES = ("schema.registry.", "basic.auth.")
"""Of the schema registry's properties in KAFKA_CONFIG_FILE: librdkafka does not take them."""


def read_properties(path: Path) -> dict[str, str]:
    """The `key=value` lines of KAFKA_CONFIG_FILE.

    Raises:
        UserError: for a file that cannot be read. Its contents are secret and never part of the message.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # with or without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"KAFKA_CONFIG_FILE {path} cannot be read: {error}") from error
    properties = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        # The rest of a secret that was broken over two lines may hold an equals sign too.
        if not equals or not re.fullmatch(r"[a-z][a-z0-9._]*", name.strip()):
            raise UserError(f"KAFKA_CONFIG_FILE {path}, line {number}: expected key=value")
        properties[name.strip()] = value.strip()
    return properties


def registry_properties(settings: Settings) -> dict[str, str]:
    """The schema registry's settings, as its client names them: those of KAFKA_CONFIG_FILE that begin with
    `schema.registry.`, and `basic.auth.user.info`.

    Raises:
        UserError: as `read_properties`.
    """
    properties = read_properties(settings.kafka_config_file) if settings.kafka_config_file is not None else {}
    own = {name: value for name, value in properties.items() if name.startswith(REGISTRY_PREFIXES)}
    own = {name.removeprefix("schema.registry."): value for name, value in sorted(own.items())}
    own.pop("basic.auth.credentials.source", None)  # Java's clients need it
    if settings.schema_registry_url is not None:
        own["url"] = settings.schema_registry_url
    return own
