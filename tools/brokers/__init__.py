"""Brokers on loopback without Docker: `make brokers` runs them, and tests and benchmarks start their own."""

from tools.brokers.servers import KafkaServer, PubSubEmulator, SchemaRegistry, running

__all__ = ["KafkaServer", "PubSubEmulator", "SchemaRegistry", "running"]
