"""Real brokers, started once for all tests that ask for them."""

from collections.abc import Iterator

import pytest

from tests.brokers import KafkaServer, PubSubEmulator, running
from tests.dbt_project.warehouse import Warehouse


@pytest.fixture(scope="session")
def published_shop(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Three days of the shop, built and published, for tests that only read."""
    warehouse = Warehouse(tmp_path_factory.mktemp("published_shop"))
    warehouse.simulate(days=3)
    warehouse.land()
    warehouse.build()
    return warehouse


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Apache Kafka with no topics; tests use topics of their own names."""
    with running(KafkaServer(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture(scope="session")
def pubsub_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubEmulator]:
    """Google's Pub/Sub emulator with no topics; tests use topics of their own names."""
    with running(PubSubEmulator(tmp_path_factory.mktemp("pubsub"))) as emulator:
        yield emulator
