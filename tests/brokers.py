"""Real brokers for tests: Apache Kafka and Google's Pub/Sub emulator, each a Java process on a free loopback port.

A test module asks for them with `pytest_plugins = ("tests.brokers",)` and the fixtures `kafka_server` and
`pubsub_emulator`. A server that cannot be started fails the test and says what to install: nothing is skipped.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

CACHE = Path(__file__).parents[1] / ".cache" / "brokers"
KAFKA_VERSION = "3.9.1"
START_SECONDS = 60.0

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

LOG4J = """\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %m (%c)%n
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        pytest.fail("the broker tests need Java 17: install a JRE (Debian: apt-get install openjdk-17-jre-headless)")
    return java


class _Server:
    """One Java process. Its output goes to `log`; `stop` ends this process and no other."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.fail(f"{command[0]} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class KafkaServer(_Server):
    """Apache Kafka, one KRaft node. Data and port survive `stop` and another `start`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "kafka")
        self.port, controller = free_port(), free_port()
        self.bootstrap_servers = f"127.0.0.1:{self.port}"
        self._jars = _kafka_jars()
        self._properties = folder / "server.properties"
        self._properties.write_text(
            f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder / "data"}
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=10485760
log.retention.ms=-1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""
        )
        (folder / "log4j.properties").write_text(LOG4J)
        self._run("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", str(self._properties))

    def _command(self, *arguments: str) -> list[str]:
        return [
            _java(),
            "-Xmx768m",
            "-XX:+UseSerialGC",
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
            pytest.fail(f"{arguments[0]} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")

    def start(self) -> None:
        self._launch(self._command("kafka.Kafka", str(self._properties)))

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


class PubSubEmulator(_Server):
    """Google's Pub/Sub emulator. It keeps nothing when it stops."""

    project = "test-project"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "pubsub")
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._launch(
            [_java(), "-Xmx1g", "-jar", str(_pubsub_emulator_jar()), "--host=127.0.0.1", f"--port={self.port}"]
        )

    def _is_ready(self) -> bool:
        # The emulator answers plain HTTP on its gRPC port once it serves.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return probe.recv(12).endswith(b"200")
        except OSError:
            return False


def _kafka_jars() -> Path:
    """The folder of Kafka's jars, filled from Maven Central the first time."""
    jars = CACHE / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        pytest.fail("the Kafka tests fetch Kafka with Maven: install it (Debian: apt-get install maven)")
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    # Filled beside its final name, so that an interrupted download is never taken for a whole one.
    filling = CACHE / f"kafka-{KAFKA_VERSION}.{os.getpid()}"
    filling.mkdir()
    pom = filling / "pom.xml"
    pom.write_text(KAFKA_POM)
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={filling}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        shutil.rmtree(filling)
        pytest.fail(f"Maven could not fetch Kafka {KAFKA_VERSION} from Maven Central:\n{result.stdout[-2000:]}")
    try:
        filling.rename(jars)
    except OSError:  # another test run was first
        shutil.rmtree(filling)
    return jars


def _pubsub_emulator_jar() -> Path:
    """The emulator's jar in the Google Cloud SDK."""
    roots = [Path("/usr/lib/google-cloud-sdk"), Path("/usr/share/google-cloud-sdk"), Path.home() / "google-cloud-sdk"]
    if gcloud := shutil.which("gcloud"):
        # bin/gcloud of the SDK, or a link to it; asking gcloud itself takes seconds.
        roots.insert(0, Path(gcloud).resolve().parents[1])
    for root in roots:
        for jar in sorted((root / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*-all.jar")):
            return jar
    pytest.fail(
        "the Pub/Sub tests need Google's emulator: `gcloud components install pubsub-emulator`, "
        "or on Debian with Google's package source `apt-get install google-cloud-cli-pubsub-emulator`"
    )


@contextmanager
def running_kafka(folder: Path) -> Iterator[KafkaServer]:
    server = KafkaServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def running_pubsub(folder: Path) -> Iterator[PubSubEmulator]:
    server = PubSubEmulator(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Apache Kafka with no topics; tests use topics of their own names."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def pubsub_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubEmulator]:
    """Google's Pub/Sub emulator with no topics; tests use topics of their own names."""
    with running_pubsub(tmp_path_factory.mktemp("pubsub")) as emulator:
        yield emulator
