"""Settings, from the environment or a `.env` file. README lists them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ingest.errors import ContractError, UserError
from ingest.streams import STREAMS, Stream, named

BIGQUERY_LANDING = {"landing_max_rows": 1_000_000, "landing_max_bytes": 128 * 1024 * 1024}
"""Defaults where they differ for BigQuery."""

SCHEMAS = ("raw", "staging", "intermediate", "analytics", "snapshots", "main", "temp", "system")

NOT_IN_A_NAME = r"""[\x00-\x1f'":;?#\\]"""
"""Characters of a file name that DuckDB or dbt takes for something else when the file becomes a database."""
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._~+%-]{1,255}")
"""Characters of topic names, Kafka's and Pub/Sub's together."""
SUBSCRIPTION_NAME = re.compile(r"(projects/[a-z0-9.:-]+/subscriptions/)?[a-zA-Z][a-zA-Z0-9._~+%-]{2,254}")
"""A Pub/Sub subscription: its id, or its full resource name, which may be of another project."""


JSON_EXAMPLES = {
    "SERVE_TOKENS": 'a JSON object such as {"a-long-random-token": "*"}',
    "STREAMS": 'a JSON list such as ["web_events", "clicks"]',
}
JSON_EXAMPLE = 'a JSON object such as {"users": "shop-users"}'
"""For every other variable whose value is JSON."""


def _stream_names() -> list[str]:
    """None while a contract has a mistake: a command that needs contracts reports it, and others need no streams."""
    try:
        return list(STREAMS)
    except ContractError:
        return []


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",  # with or without a byte order mark
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    streams: list[str] = Field(default_factory=_stream_names)
    """JSON list: the streams to land, all unless set. The others keep what was landed of them before."""

    warehouse: Literal["duckdb", "bigquery"] = "duckdb"
    warehouse_path: Path = Path("warehouse.duckdb")
    warehouse_memory_limit: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    """The most memory that DuckDB takes for a build, such as 2GiB; what does not fit goes to disk. Four fifths of the
    machine's unless set."""
    gcp_project: str | None = Field(None, pattern=r"^[a-z][a-z0-9.:-]+$")
    """BigQuery's project."""
    dataset_prefix: str = Field("", pattern=r"^\w*$")
    """Before the names of BigQuery's datasets, such as dev_ for dev_raw and dev_analytics."""
    build_prefix: str | None = Field(None, pattern=r"^\w+$")
    """Before the names of the schemas that builds write, such as ann_ for ann_analytics; raw is shared."""
    gcp_location: str = "US"
    """Of BigQuery's datasets."""
    bigquery_maximum_bytes_billed: int = Field(1024**4, ge=1)
    """BigQuery refuses a query of a build that would read more."""
    bigquery_priority: Literal["interactive", "batch"] = "interactive"
    """Of a build's queries; those of a batch wait for idle slots."""
    bigquery_emulator_host: str | None = None
    """URL of an emulator instead of the cloud, such as http://127.0.0.1:9050."""
    spool_path: Path = Path("spool")

    kafka_bootstrap_servers: str | None = None
    kafka_config_file: Path | None = None
    """A librdkafka properties file (`key=value` lines), for what the bootstrap servers alone do not say."""
    kafka_group_id: str = "event-warehouse"
    """Overrides `group.id` of the properties file where it is set."""

    schema_registry_url: str | None = Field(None, repr=False)
    """Of the schema registry that streams in avro, protobuf or json_schema need. Overrides `schema.registry.url` of the
    properties file, which may hold its other settings."""

    pubsub_project: str | None = None
    pubsub_emulator_host: str | None = None

    push_audience: str | None = None
    """The audience that the token of each push must be for; without it pushes need no token."""
    push_service_account: str | None = None
    """E-mail of the only identity that may push; set with the audience, which anybody can have a token for."""

    topics: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to topic of the broker, where they differ."""
    subscriptions: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to Pub/Sub subscription, where it is not `<topic>-landing`. A full resource name
    (`projects/P/subscriptions/S`) may be of another project than PUBSUB_PROJECT."""
    pseudonym_key: SecretStr | None = Field(None, min_length=16)
    """The key of the hashes of personal fields; it counts when the warehouse is created, which has a random one
    without."""
    emit_topic: str = Field("time_on_page", pattern=f"^{TOPIC_NAME.pattern}$")
    """The Kafka topic of the results that `emit` publishes."""

    lock_timeout_seconds: float = Field(60.0, ge=0)
    """How long to wait for a DuckDB file that another process holds."""
    landing_max_rows: int = Field(122_880, ge=1)
    """A commit is due once this many messages, ... (By default a row group of DuckDB: those are written at once, while
    smaller ones are written again with what comes behind them.)"""
    landing_max_bytes: int = Field(48 * 1024 * 1024, ge=1024)
    """... or this many bytes wait. A commit holds less than twice as much of each source, and the source fetches
    as much again meanwhile: this bounds the memory of landing."""
    landing_max_seconds: float = Field(1.0, gt=0)
    """When following, what arrived waits at most this long for its commit."""
    metrics_host: str = "127.0.0.1"
    """The address on which `--metrics-port` serves."""

    serve_tokens: dict[str, Literal["*"] | list[str]] = Field(default_factory=dict, repr=False)
    """JSON object: bearer token to the questions that it may ask, "*" for all. Without it the endpoints are open, and
    on loopback only."""
    serve_max_rows: int = Field(10_000, ge=1)
    """Maximum rows of an answer; it says when it is cut."""
    serve_timeout_seconds: float = Field(10.0, gt=0)
    """A question that takes longer is interrupted."""
    serve_memory_limit: str = Field("2GiB", pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    """Maximum memory of DuckDB for the questions that run at one time; what does not fit goes to disk."""
    serve_max_bytes_billed: int = Field(10 * 1024**3, ge=1)
    """BigQuery refuses a question that would read more."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment replaces values of `.env`. pydantic-settings would merge two JSON objects, and a token that
        only `.env` has would stay valid."""
        if isinstance(env_settings, EnvSettingsSource) and isinstance(dotenv_settings, DotEnvSettingsSource):
            from_file = dotenv_settings.env_vars.items()
            dotenv_settings.env_vars = {name: value for name, value in from_file if name not in env_settings.env_vars}
        return init_settings, env_settings, dotenv_settings

    @model_validator(mode="after")
    def _suit_bigquery(self) -> Self:
        if self.warehouse == "bigquery":
            if self.gcp_project is None:
                raise ValueError("GCP_PROJECT: WAREHOUSE=bigquery needs the id of the Google Cloud project")
            for name, value in BIGQUERY_LANDING.items():
                if name not in self.model_fields_set:
                    setattr(self, name, value)
        return self

    @field_validator("warehouse_path")
    @classmethod
    def _name_a_database(cls, path: Path) -> Path:
        """Resolve a symbolic link: DuckDB names a database by the file it opens, dbt by the path it is given. The name
        must be none of a schema: in raw.duckdb, raw.users could be of either."""
        if path.is_symlink():
            path = Path(os.path.realpath(path))
        if not path.name or re.search(NOT_IN_A_NAME, path.name):
            raise ValueError(f"a warehouse cannot be named {path.name!r}: leave out quotes and : ; ? # \\")
        if path.stem.lower() in SCHEMAS:
            raise ValueError(f"a warehouse cannot be named {path.name}: {path.stem} is one of its schemas")
        return path

    @field_validator("streams")
    @classmethod
    def _list_streams(cls, names: list[str]) -> list[str]:
        if not names and _stream_names():
            raise ValueError("expected one stream at least")
        _check_streams(names)
        return names

    @field_validator("topics", "subscriptions")
    @classmethod
    def _name_streams(cls, names: dict[str, str]) -> dict[str, str]:
        _check_streams(names)
        return names

    @field_validator("topics")
    @classmethod
    def _are_topics(cls, topics: dict[str, str]) -> dict[str, str]:
        for stream, topic in topics.items():
            if not TOPIC_NAME.fullmatch(topic):
                raise ValueError(f"{stream}: {topic!r} is not a topic; give its name alone, without a path")
        return topics

    @field_validator("subscriptions")
    @classmethod
    def _are_subscriptions(cls, subscriptions: dict[str, str]) -> dict[str, str]:
        for stream, subscription in subscriptions.items():
            if not SUBSCRIPTION_NAME.fullmatch(subscription):
                raise ValueError(
                    f"{stream}: {subscription!r} is not a subscription; give its name, or"
                    " projects/PROJECT/subscriptions/NAME"
                )
        return subscriptions

    @field_validator("serve_tokens")
    @classmethod
    def _fit_a_header(cls, tokens: dict[str, Literal["*"] | list[str]]) -> dict[str, Literal["*"] | list[str]]:
        if not all(re.fullmatch(r"[!-~]+", token) for token in tokens):
            raise ValueError("a token consists of visible ASCII characters, without spaces")
        return tokens

    @model_validator(mode="after")
    def _share_nothing(self) -> Self:
        """Messages of a shared topic or subscription would be landed as one stream's only."""
        selected = self.selected() if _stream_names() else []
        kafka = [self.topic(stream) for stream in selected if stream.transport == "kafka"]
        pubsub = [self.subscription(stream) for stream in selected if stream.transport == "pubsub"]
        for variable, names in (("TOPICS", kafka), ("SUBSCRIPTIONS", pubsub)):
            if shared := sorted(name for name in set(names) if names.count(name) > 1):
                raise ValueError(f"{variable}: two streams share {shared[0]!r}; give each its own")
        if self.emit_topic in kafka:
            raise ValueError(f"EMIT_TOPIC: {self.emit_topic!r} is the topic of a stream; give the results their own")
        return self

    @model_validator(mode="after")
    def _verify_who_pushes(self) -> Self:
        if (self.push_audience is None) != (self.push_service_account is None):
            raise ValueError(
                "PUSH_AUDIENCE and PUSH_SERVICE_ACCOUNT: set both or neither; any Google account can sign a token for "
                "an audience, so only the two together tell who pushes"
            )
        return self

    @property
    def has_kafka(self) -> bool:
        return self.kafka_bootstrap_servers is not None or self.kafka_config_file is not None

    def transport(self, stream: Stream) -> Literal["kafka", "pubsub", "spool"]:
        """Where a stream is read from and published to."""
        if stream.transport == "kafka" and self.has_kafka:
            return "kafka"
        if stream.transport == "pubsub" and self.pubsub_project is not None:
            return "pubsub"
        return "spool"

    def topic(self, stream: Stream) -> str:
        return self.topics.get(stream.name, stream.topic or stream.name)

    def subscription(self, stream: Stream) -> str:
        """The full resource name, of PUBSUB_PROJECT (`-` without one) unless SUBSCRIPTIONS names another project."""
        name = self.subscriptions.get(stream.name, stream.subscription or f"{self.topic(stream)}-landing")
        return name if "/" in name else f"projects/{self.pubsub_project or '-'}/subscriptions/{name}"

    def selected(self, names: list[str] | None = None) -> list[Stream]:
        """The streams of these names, each once; all of STREAMS without names.

        Raises:
            UserError: for a name that is unknown, or that STREAMS leaves out.
        """
        found = named(names or self.streams)
        for stream in found:
            if stream.name not in self.streams:
                raise UserError(f"the stream {stream.name} is switched off: add it to STREAMS")
        return found


def _check_streams(names: Iterable[str]) -> None:
    try:
        named(list(names))
    except ContractError:
        return  # as in _stream_names
    except UserError as error:
        raise ValueError(str(error)) from None


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        UserError: naming the variable that cannot be read. Neither it nor its traceback shows the value, which may
            be secret.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        variable = f"{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise UserError(f"{variable}{first['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:  # a value that is no JSON
        field = re.search(r'field "(\w+)"', str(error))
        variable = field[1].upper() if field else "settings"
        raise UserError(f"{variable}: expected {JSON_EXAMPLES.get(variable, JSON_EXAMPLE)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f".env cannot be read: {error}") from error
    return settings
