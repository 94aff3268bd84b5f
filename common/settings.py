"""Settings, from the environment or a `.env` file. docs/settings.md is generated from the docstrings of `Settings`."""

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

from common.errors import ContractError, UserError
from common.streams import STREAMS, Stream, named

BIGQUERY_DEFAULTS = {
    "landing_max_rows": 1_000_000,
    "landing_max_bytes": 128 * 1024 * 1024,
    "live_build_seconds": 600.0,
}
"""Defaults that differ for BigQuery."""

SCHEMAS = ("raw", "staging", "intermediate", "analytics", "snapshots", "main", "temp", "system")

NOT_IN_A_NAME = r"""[\x00-\x1f'":;?#\\]"""
"""Characters with a special meaning for DuckDB or dbt in the name of a database file."""
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._~+%-]{1,255}")
"""A topic of Kafka or Pub/Sub."""
SUBSCRIPTION_NAME = re.compile(r"(projects/[a-z0-9.:-]+/subscriptions/)?[a-zA-Z][a-zA-Z0-9._~+%-]{2,254}")
"""A Pub/Sub subscription: its id, or its full resource name, which may be in another project."""


JSON_EXAMPLES = {
    "SERVE_TOKENS": 'a JSON object such as {"a-long-random-token": "*"}',
    "STREAMS": 'a JSON list such as ["web_events", "clicks"]',
}
JSON_EXAMPLE = 'a JSON object such as {"users": "shop-users"}'
"""Example for every other variable whose value is JSON."""


def _stream_names() -> list[str]:
    """Return no names if a contract has a mistake: commands that need the contracts report it, others run."""
    try:
        return list(STREAMS)
    except ContractError:
        return []


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True,  # docs/settings.md shows them
        env_file=".env",
        env_file_encoding="utf-8-sig",  # with or without a byte order mark
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    streams: list[str] = Field(default_factory=_stream_names)
    """JSON list of the streams to land: all streams unless set. Messages of other streams that landed earlier stay."""

    warehouse: Literal["duckdb", "bigquery"] = "duckdb"
    """Engine of the warehouse."""
    warehouse_path: Path = Path("warehouse.duckdb")
    """The DuckDB file. A symbolic link is resolved when a command starts."""
    warehouse_memory_limit: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    """Maximum memory of DuckDB during a build, a backup or a restore, such as `2GiB`; the rest spills to disk. Four
    fifths of the machine's memory unless set."""
    build_prefix: str | None = Field(None, pattern=r"^\w+$")
    """Prefix of the schemas that a build writes: `ann_` gives `ann_staging`, `ann_analytics` and so on. `raw` is
    shared, and nothing is published."""
    retention_raw_days: int | None = Field(None, ge=1)
    """Days for which accepted messages and their copies stay in raw and staging after they have landed; then builds
    remove them, and the marts stay as they are. Everything is kept unless set. See docs/operations.md#retention."""
    retention_dead_letter_days: int | None = Field(None, ge=1)
    """Days for which rejected messages stay in raw, staging and `dead_letters`. All are kept unless set."""
    umask: str = Field("077", pattern="^0?[0-7]{3}$")
    """Permissions that new files and folders do not get, in octal. With `077` the warehouse, what is published, the
    spool and backups are for their owner alone; with `027` the group can read them, with `007` also write."""
    lock_timeout_seconds: float = Field(60.0, ge=0)
    """Maximum wait for a DuckDB file that another process holds, in seconds."""

    gcp_project: str | None = Field(None, pattern=r"^[a-z][a-z0-9.:-]+$")
    """Google Cloud project of BigQuery. Required with `WAREHOUSE=bigquery`."""
    gcp_location: str = "US"
    """Location of BigQuery's datasets."""
    dataset_prefix: str = Field("", pattern=r"^\w*$")
    """Prefix of BigQuery's datasets: `dev_` gives `dev_raw`, `dev_analytics` and so on."""
    bigquery_maximum_bytes_billed: int = Field(1024**4, ge=1)
    """Maximum bytes that one query of a build may read. BigQuery rejects a larger one before it costs anything."""
    bigquery_priority: Literal["interactive", "batch"] = "interactive"
    """Priority of a build's queries; `batch` queries wait for idle slots."""
    bigquery_emulator_host: str | None = None
    """URL of a BigQuery emulator to land in instead of the cloud, such as `http://127.0.0.1:9050`."""

    spool_path: Path = Path("spool")
    """Directory of message logs, which stands in for a broker that is not configured."""

    kafka_bootstrap_servers: str | None = None
    """Kafka brokers, such as `127.0.0.1:9092`. Kafka streams then come from Kafka instead of the spool."""
    kafka_config_file: Path | None = None
    """A librdkafka properties file (`key=value` lines) for credentials and other options. Its `bootstrap.servers`
    counts unless KAFKA_BOOTSTRAP_SERVERS is set."""
    kafka_group_id: str = "event-warehouse"
    """Consumer group, by default `group.id` of the properties file if it has one. The warehouse keeps the offsets that
    count; those of the group serve lag tools."""

    schema_registry_url: str | None = Field(None, repr=False)
    """URL of the schema registry that streams in Avro, Protobuf or JSON Schema need. Replaces `schema.registry.url` of
    the properties file, which may hold credentials and other registry options."""

    pubsub_project: str | None = None
    """Google Cloud project of Pub/Sub. Pub/Sub streams then come from Pub/Sub instead of the spool."""
    pubsub_emulator_host: str | None = None
    """Address of the Pub/Sub emulator to use instead of the cloud, such as `127.0.0.1:8085`."""

    topics: dict[str, str] = Field(default_factory=dict)
    """JSON object, stream to topic: replaces the `topic` of the contract, which is the stream's name by default."""
    subscriptions: dict[str, str] = Field(default_factory=dict)
    """JSON object, stream to Pub/Sub subscription: replaces the `subscription` of the contract, which is
    `<topic>-landing` by default. A full name, `projects/P/subscriptions/S`, may be in another project."""

    push_audience: str | None = None
    """Audience that the token of each push must have. Set it together with PUSH_SERVICE_ACCOUNT; without them, pushes
    need no token and `push` listens on loopback only."""
    push_service_account: str | None = None
    """E-mail address of the only account that may push."""

    pseudonym_key: SecretStr | None = Field(None, min_length=16)
    """Key of the hashes of personal fields, at least 16 characters. It is read when a warehouse is created; a random
    key is drawn if it is not set."""

    emit_topic: str = Field("time_on_page", pattern=f"^{TOPIC_NAME.pattern}$")
    """Kafka topic to which `emit` produces its results."""

    landing_max_rows: int = Field(122_880, ge=1)
    """Maximum rows per commit (one row group of DuckDB). 1,000,000 with `WAREHOUSE=bigquery`."""
    landing_max_bytes: int = Field(48 * 1024 * 1024, ge=1024)
    """A commit is due once this many bytes wait. Each source holds up to twice as much in memory, and during a commit
    fetches as much again. 128 MiB with `WAREHOUSE=bigquery`."""
    landing_max_seconds: float = Field(1.0, gt=0)
    """Maximum wait of an arrived message for its commit, in seconds. 60 for `land` without `--follow` with
    `WAREHOUSE=bigquery`."""

    metrics_host: str = "127.0.0.1"
    """Address on which `--metrics-port` listens."""

    live_build_seconds: float = Field(0.0, ge=0)
    """`live`: minimum seconds between the starts of two builds. 600 with `WAREHOUSE=bigquery`: each costs money."""
    live_test_seconds: float = Field(60.0, ge=0)
    """`live`: pause between two rounds in which every test reads what changed. A round runs in parts between builds."""
    live_snapshot_seconds: float = Field(300.0, gt=0)
    """`live`: seconds between two runs of the snapshots."""
    live_emit_seconds: float = Field(5.0, gt=0)
    """`live`: seconds between two runs of `emit`, where Kafka is configured."""

    serve_tokens: dict[str, Literal["*"] | list[str]] = Field(default_factory=dict, repr=False)
    """JSON object, bearer token to a list of queries, or to `"*"` for all of them. Without it, `serve` needs no token
    and listens on loopback only."""
    serve_max_rows: int = Field(10_000, ge=1)
    """Maximum rows of an answer, over HTTP, on the command line, in the dashboard and the report. An answer that was
    cut says so."""
    serve_timeout_seconds: float = Field(10.0, gt=0)
    """Maximum time of a query, in seconds; a slower one is interrupted."""
    serve_memory_limit: str = Field("2GiB", pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    """Maximum memory of DuckDB for the queries that run at one time; the rest spills to disk."""
    serve_max_bytes_billed: int = Field(10 * 1024**3, ge=1)
    """Maximum bytes that one query of an endpoint may read on BigQuery, which rejects a larger one."""

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
            for name, value in BIGQUERY_DEFAULTS.items():
                if name not in self.model_fields_set:
                    setattr(self, name, value)
        return self

    @field_validator("warehouse_path")
    @classmethod
    def _name_a_database(cls, path: Path) -> Path:
        """Resolve a symbolic link, since DuckDB names a database by the file it opens and dbt by the path it is given.
        Reject the name of a schema: with raw.duckdb, raw.users would be ambiguous."""
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
            raise ValueError("expected at least one stream")
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
        """Reject a shared topic or subscription, whose messages would land in one of the streams only."""
        selected = self.selected() if _stream_names() else []
        kafka = [self.topic(stream) for stream in selected if stream.transport == "kafka"]
        pubsub = [self.subscription(stream) for stream in selected if stream.transport == "pubsub"]
        for variable, names in (("TOPICS", kafka), ("SUBSCRIPTIONS", pubsub)):
            if shared := sorted(name for name in set(names) if names.count(name) > 1):
                raise ValueError(f"{variable}: two streams share {shared[0]!r}; give each its own")
        if self.emit_topic in kafka:
            raise ValueError(f"EMIT_TOPIC: {self.emit_topic!r} is the topic of a stream; choose another topic")
        return self

    @model_validator(mode="after")
    def _verify_who_pushes(self) -> Self:
        if (self.push_audience is None) != (self.push_service_account is None):
            raise ValueError(
                "PUSH_AUDIENCE and PUSH_SERVICE_ACCOUNT: set both or neither: any Google account can get a token "
                "for an audience, so only the two together identify the sender"
            )
        return self

    @property
    def has_kafka(self) -> bool:
        return self.kafka_bootstrap_servers is not None or self.kafka_config_file is not None

    def transport(self, stream: Stream) -> Literal["kafka", "pubsub", "spool"]:
        """Where a stream is read from and produced to."""
        if stream.transport == "kafka" and self.has_kafka:
            return "kafka"
        if stream.transport == "pubsub" and self.pubsub_project is not None:
            return "pubsub"
        return "spool"

    def topic(self, stream: Stream) -> str:
        return self.topics.get(stream.name, stream.topic or stream.name)

    def subscription(self, stream: Stream) -> str:
        """The full resource name, in PUBSUB_PROJECT (`-` without one) unless SUBSCRIPTIONS names another project."""
        name = self.subscriptions.get(stream.name, stream.subscription or f"{self.topic(stream)}-landing")
        return name if "/" in name else f"projects/{self.pubsub_project or '-'}/subscriptions/{name}"

    def selected(self, names: list[str] | None = None) -> list[Stream]:
        """Return the streams of these names, each once; without names, those of the setting STREAMS.

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
        return  # a mistake in a contract: see _stream_names
    except UserError as error:
        raise ValueError(str(error)) from None


def load_settings() -> Settings:
    """Read the settings, and let this process create its files as UMASK says.

    Raises:
        UserError: naming the variable with an invalid value. Neither the message nor the traceback shows the value,
            which may be secret.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        variable = f"{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise UserError(f"{variable}{first['msg'].removeprefix('Value error, ')}") from None
    except SettingsError as error:  # a value that is not JSON
        field = re.search(r'field "(\w+)"', str(error))
        variable = field[1].upper() if field else "settings"
        raise UserError(f"{variable}: expected {JSON_EXAMPLES.get(variable, JSON_EXAMPLE)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f".env cannot be read: {error}") from error
    os.umask(int(settings.umask, 8))  # here, since every command reads its settings before it creates files
    return settings
