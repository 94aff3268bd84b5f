"""Expensive fixtures: a built warehouse, created once per run, and real brokers, started once per worker."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.brokers import KafkaServer, PubSubEmulator, SchemaRegistry, running
from tools.warehouses.commands import Warehouse

# A background process ignores SIGINT, and its children inherit that; tests send SIGINT to children.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHOP_OUTPUT = "build.txt"
"""Name of the file with the output of the shop's build."""


def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `-n auto`: one more than the CPUs, since tests also wait for processes and locks."""
    return (os.cpu_count() or 1) + 1


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Shared:
    """Returns the folder of this name. The first worker that asks for it fills it."""

    def fill_once(name: str, fill: Callable[[Path], object]) -> Path:
        base = tmp_path_factory.getbasetemp()
        folder = (base if worker_id == "master" else base.parent) / name
        is_filled = folder.with_name(f"{name}.filled")
        with folder.with_name(f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_filled.exists():
                folder.mkdir()
                fill(folder)
                is_filled.touch()
        return folder

    return fill_once


@pytest.fixture(scope="session")
def shop(shared: Shared) -> Warehouse:
    """Three days of the shop, built and published. Tests write to copies of it."""

    def build(folder: Path) -> None:
        warehouse = Warehouse(folder)
        warehouse.simulate(days=3)
        warehouse.land()
        (folder / SHOP_OUTPUT).write_text(warehouse.build().stdout)

    return Warehouse(shared("shop", build))


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


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """A schema registry with no schemas; tests use topics of their own names."""
    with running(SchemaRegistry(tmp_path_factory.mktemp("registry"))) as registry:
        yield registry
