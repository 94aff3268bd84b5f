"""A client of schema registries that have Confluent's API."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from common.errors import UnavailableError, UserError
from common.settings import Settings
from ingest.brokers.kafka_properties import registry_properties

REQUEST_TIMEOUT_SECONDS = 10.0
"""Maximum seconds that the registry may take to answer a request."""
MISSING_CODES = (40401, 40402, 40403)
"""The registry's error codes for a missing subject, version and schema. Any other 404 comes from a server that is not a
registry, or from a wrong path."""
MAX_REFERENCES = 1_000

Answer = TypeVar("Answer")


class RegistryRejectsError(UnavailableError):
    """The registry rejects this client's credentials."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema of the registry."""

    type: str
    """AVRO, PROTOBUF or JSON."""
    text: str
    references: Mapping[str, str]
    """The texts of the schemas that it refers to, directly or through others, by name."""
    is_complete: bool = True
    """Whether the registry has all references."""


class Registry:
    """A client of the schema registry in the settings.

    Raises:
        UserError: if the URL is missing or a setting is invalid.
        UnavailableError: from every method, if the server does not answer or is not a schema registry.
    """

    def __init__(self, settings: Settings) -> None:
        config: dict[str, Any] = dict(registry_properties(settings))
        urls = [urlsplit(url.strip()) for url in config.get("url", "").split(",")]
        if not all(url.scheme in ("http", "https") and url.hostname for url in urls):
            raise UserError("schema registry: SCHEMA_REGISTRY_URL must be a URL such as https://registry.example:8081")
        hosts = ", ".join(f"{url.hostname}:{url.port}" if url.port else str(url.hostname) for url in urls)
        self._name = f"the schema registry at {hosts}"
        try:
            # Without the client's retries: `Decoder` retries, and logs at once that the registry is down.
            self._client = SchemaRegistryClient({"timeout": REQUEST_TIMEOUT_SECONDS, "max.retries": 0, **config})
        except (ValueError, TypeError, OSError) as error:
            raise UserError(f"schema registry: {error}; see KAFKA_CONFIG_FILE") from error

    def schema(self, schema_id: int) -> Registered | None:
        """Return a schema by its id; None if the registry does not have it."""
        schema = self._request(lambda: self._client.get_schema(schema_id))
        return None if schema is None else self._with_references(schema)

    def newest(self, schema_id: int, subject: str) -> Registered | None:
        """Return the newest version of the schema's subject; None if the subject is not known.

        The subject is `subject` if the schema is registered there, otherwise the only one where it is registered.
        """
        try:
            versions = self._request(lambda: self._client.get_schema_versions(schema_id)) or []
            subjects = {version.subject for version in versions if version.subject}
            if subject not in subjects:
                if len(subjects) != 1:
                    return None
                [subject] = subjects
            newest = self._request(lambda: self._client.get_version(subject, "latest"))
            return None if newest is None else self._with_references(newest.schema)
        except RegistryRejectsError:
            return None  # the credentials may read schemas, but not subjects

    def _with_references(self, schema: Schema) -> Registered:
        found: dict[str, str] = {}
        is_complete = True
        waiting = list(schema.references or ())
        while waiting and len(found) < MAX_REFERENCES:
            reference = waiting.pop()
            if reference.name in found:
                continue
            referred = self._request(partial(self._version, reference))
            if referred is None:
                is_complete = False
                continue
            found[reference.name or ""] = referred.schema.schema_str or ""
            waiting += referred.schema.references or ()
        return Registered(schema.schema_type or "AVRO", schema.schema_str or "", found, is_complete)

    def _version(self, reference: SchemaReference) -> RegisteredSchema:
        return self._client.get_version(reference.subject or "", reference.version or "latest", deleted=True)

    def _request(self, send: Callable[[], Answer]) -> Answer | None:
        """Return the registry's answer; None for 404, if the registry does not have the schema, version or subject."""
        try:
            return send()
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in MISSING_CODES:
                return None
            if error.http_status_code in (401, 403):
                raise RegistryRejectsError(
                    f"{self._name} rejects this client (HTTP {error.http_status_code}): see"
                    " schema.registry.basic.auth.user.info in KAFKA_CONFIG_FILE"
                ) from error
            if error.http_status_code == 404:
                raise UnavailableError(f"{self._name} has no such path (404): check SCHEMA_REGISTRY_URL") from error
            raise UnavailableError(f"{self._name} does not answer: HTTP {error.http_status_code}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OAuthTokenError, OSError) as error:
            reason = type(error).__name__ if isinstance(error, OAuthTokenError) else str(error) or type(error).__name__
            raise UnavailableError(f"{self._name} does not answer: {reason}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnavailableError(
                f"{self._name} does not answer like a schema registry: check SCHEMA_REGISTRY_URL"
            ) from error
