"""Brokers on loopback without Docker: `make brokers` runs them, and tests and benchmarks start their own.

Tests use the fixtures `kafka_server`, `pubsub_emulator` and `schema_registry` (tests/conftest.py). If a server cannot
start, its tests fail with what to install; they are not skipped.
"""

from tools.brokers.kafka import KafkaServer
from tools.brokers.pubsub import PubSubEmulator
from tools.brokers.schema_registry import SchemaRegistry
from tools.brokers.server import free_port, running

__all__ = ["KafkaServer", "PubSubEmulator", "SchemaRegistry", "free_port", "running"]
