"""Settings, from the environment or a `.env` file. README lists them."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest.errors import UserError
from ingest.streams import Stream


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True)

    warehouse: Literal["duckdb", "bigquery"] = "duckdb"
    warehouse_path: Path = Path("warehouse.duckdb")
    spool_path: Path = Path("spool")

    kafka_bootstrap_servers: str | None = None
    kafka_config_file: Path | None = None
    """A librdkafka properties file (`key=value` lines), for what the bootstrap servers alone do not say."""
    kafka_group_id: str = "event-warehouse"

    pubsub_project: str | None = None
    pubsub_emulator_host: str | None = None

    topics: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to topic, where they differ."""
    subscriptions: dict[str, str] = Field(default_factory=dict)
    """JSON object: stream name to Pub/Sub subscription, where it is not `<topic>-landing`."""

    lock_timeout_seconds: float = Field(60.0, ge=0)
    """How long to wait for a DuckDB file that another process holds."""
    landing_max_rows: int = Field(200_000, ge=1)
    """A commit holds at most this many messages, ..."""
    landing_max_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """... this many bytes of payload (a single larger message excepted), ..."""
    landing_max_seconds: float = Field(1.0, gt=0)
    """... and, when following, waits at most this long."""

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
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "settings"
        raise UserError(f"{name}: {first['msg']}") from error
    except Exception as error:  # pydantic-settings wraps JSON errors in its own SettingsError
        raise UserError(f"settings: {error}") from error
