"""Reads KAFKA_CONFIG_FILE, a librdkafka properties file with settings such as credentials."""

import re
from pathlib import Path

from common.errors import UserError
from common.settings import Settings

REGISTRY_PREFIXES = ("schema.registry.", "basic.auth.")
"""Prefixes of the schema registry's properties in KAFKA_CONFIG_FILE, which librdkafka rejects."""


def read_properties(path: Path) -> dict[str, str]:
    """Return the properties in KAFKA_CONFIG_FILE.

    Raises:
        UserError: if the file cannot be read. The error never shows its contents, which may be secret.
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
        # Checking the name also rejects the second half of a secret that was broken over two lines and has a "=".
        if not equals or not re.fullmatch(r"[a-z][a-z0-9._]*", name.strip()):
            raise UserError(f"KAFKA_CONFIG_FILE {path}, line {number}: expected key=value")
        properties[name.strip()] = value.strip()
    return properties


def registry_properties(settings: Settings) -> dict[str, str]:
    """Return the schema registry's properties by the names that its client uses, without the prefix `schema.registry.`.

    Raises:
        UserError: if KAFKA_CONFIG_FILE cannot be read.
    """
    properties = read_properties(settings.kafka_config_file) if settings.kafka_config_file is not None else {}
    own = {name: value for name, value in properties.items() if name.startswith(REGISTRY_PREFIXES)}
    own = {name.removeprefix("schema.registry."): value for name, value in sorted(own.items())}
    own.pop("basic.auth.credentials.source", None)  # needed by the Java client, unknown to ours
    if settings.schema_registry_url is not None:
        own["url"] = settings.schema_registry_url
    return own
