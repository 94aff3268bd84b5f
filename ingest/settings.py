"""Settings, from the environment or a `.env` file. README lists them."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from ingest.errors import UserError
from ingest.streams import STREAMS, Stream

BIGQUERY_LANDING = {"landing_max_rows": 1_000_000, "landing_max_bytes": 128 * 1024 * 1024}
"""Defaults where they differ for BigQuery."""

SCHEMAS = ("raw", "staging", "intermediate", "analytics", "snapshots", "main", "temp", "system")


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True)

    warehouse: Literal["duckdb", "bigquery"] = "duckdb"
    warehouse_path: Path = Path("warehouse.duckdb")
    warehouse_memory_limit: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    """The most memory that DuckDB takes for a build, such as 2GiB; what does not fit goes to disk. Four fifths of the
    machine's unless set."""
    gcp_project: str | None = Field(None, pattern=r"^[a-z][a-z0-9.:-]+$")
    """BigQuery's project."""
    dataset_prefix: str = Field("", pattern=r"^\w*$")
    """Before the names of BigQuery's datasets, such as dev_ for dev_raw and dev_analytics."""
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

    pubsub_project: str | None = None
    pubsub_emulator_host: str | None = None

    push_audience: str | None = None
    """The audience that the token of each push must be for; without it pushes need no token."""
    push_service_account: str | None = None
    """E-mail of the only identity that may push; set with the audience, which anybody can have a token for."""

    topics: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to topic of the broker, where they differ."""
    subscriptions: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to Pub/Sub subscription, where it is not `<topic>-landing`."""
    emit_topic: str = "time_on_page"
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
    def _is_no_schema(cls, path: Path) -> Path:
        """DuckDB names a database by its file: in raw.duckdb, raw.users could be of either."""
        if path.stem.lower() in SCHEMAS:
            raise ValueError(f"a warehouse cannot be named {path.name}: {path.stem} is one of its schemas")
        return path

    @field_validator("topics", "subscriptions")
    @classmethod
    def _name_streams(cls, names: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(names.keys() - STREAMS):
            raise ValueError(f"unknown stream {unknown[0]!r}; the streams are {', '.join(STREAMS)}")
        return names

    @field_validator("serve_tokens")
    @classmethod
    def _fit_a_header(cls, tokens: dict[str, Literal["*"] | list[str]]) -> dict[str, Literal["*"] | list[str]]:
        if not all(re.fullmatch(r"[!-~]+", token) for token in tokens):
            raise ValueError("a token consists of visible ASCII characters, without spaces")
        return tokens

    @model_validator(mode="after")
    def _share_nothing(self) -> Self:
        """Messages of a shared topic or subscription would be landed as one stream's only."""
        kafka = [self.topic(stream) for stream in STREAMS.values() if stream.transport == "kafka"]
        pubsub = [self.subscription(stream) for stream in STREAMS.values() if stream.transport == "pubsub"]
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
        return self.topics.get(stream.name, stream.name)

    def subscription(self, stream: Stream) -> str:
        return self.subscriptions.get(stream.name, f"{self.topic(stream)}-landing")


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        UserError: naming the variable that cannot be read.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise UserError(f"{variable}{first['msg'].removeprefix('Value error, ')}") from error
    except SettingsError as error:  # a value that is no JSON
        field = re.search(r'field "(\w+)"', str(error))
        variable = field[1].upper() if field else "settings"
        example = '{"a-long-random-token": "*"}' if variable == "SERVE_TOKENS" else '{"users": "shop-users"}'
        raise UserError(f"{variable}: expected a JSON object such as {example}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f".env cannot be read: {error}") from error
    return settings
