"""`make brokers`: runs Kafka, the Pub/Sub emulator and a schema registry until Ctrl-C."""

import signal
import sys
import time
from contextlib import ExitStack
from typing import NoReturn

import typer

from tools.brokers.downloads import CACHE
from tools.brokers.kafka import KafkaProtocol, KafkaServer, TansuServer
from tools.brokers.pubsub import PubSubEmulator
from tools.brokers.schema_registry import SchemaRegistry
from tools.brokers.server import BrokerError, MissingError, Server


def main(kafka_port: int = 9092, pubsub_port: int = 8085, registry_port: int = 8081) -> None:
    """Run Kafka, the Pub/Sub emulator and a schema registry until Ctrl-C or SIGTERM."""
    folder = CACHE / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as at_the_end:
        servers: list[Server] = []

        def start(server: Server) -> None:
            at_the_end.callback(server.end)
            server.start()
            servers.append(server)

        try:
            try:
                kafka: KafkaProtocol = KafkaServer(folder, kafka_port)
            except MissingError as missing:
                typer.echo(
                    f"running Tansu instead of Apache Kafka: {missing}. Tansu keeps its messages in memory, and differs"
                    " from Kafka in transactions and in the end offsets of partitions"
                )
                kafka = TansuServer(folder, kafka_port)
            start(kafka)
            settings = [f"KAFKA_BOOTSTRAP_SERVERS={kafka.address}"]
            try:
                pubsub = PubSubEmulator(folder, pubsub_port)
            except MissingError as missing:
                typer.echo(f"running without Pub/Sub, whose streams use the spool: {missing}")
            else:
                start(pubsub)
                settings += ["PUBSUB_PROJECT=local", f"PUBSUB_EMULATOR_HOST={pubsub.address}"]
            try:
                registry = SchemaRegistry(folder, registry_port)
            except MissingError as missing:
                typer.echo(f"running without a schema registry: {missing}")
            else:
                start(registry)
                settings.append(f"SCHEMA_REGISTRY_URL={registry.url}")
            typer.echo("\n".join(["# put this into .env, then run `python -m ingest provision`", *settings]))
            _watch(servers)
        except BrokerError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            # Ctrl-C also reached the servers. They get their time to end, however often it is pressed.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _watch(servers: list[Server]) -> NoReturn:
    while True:
        for server in servers:
            if server.has_ended():
                raise BrokerError(f"a broker ended unexpectedly: see {server.log}")
        time.sleep(0.5)


if __name__ == "__main__":
    typer.run(main)
