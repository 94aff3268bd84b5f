"""Apicurio Registry, a schema registry with Confluent's API."""

from pathlib import Path
from urllib.request import urlopen

from tools.brokers.downloads import downloaded, maven
from tools.brokers.server import JAVA_OPTIONS, Server, java

APICURIO_VERSION = "3.0.9"
"""The last version that runs on Java 17."""


class SchemaRegistry(Server):
    """Apicurio Registry, with Confluent's API at `url`. Schemas and port survive `stop` and another `start`."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "registry", port)
        self.url = f"http://{self.address}/apis/ccompat/v7"
        [jar] = _application().glob("*-runner.jar")
        self._command = [
            java(),
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


def _application() -> Path:
    """The folder of the application, downloaded from Maven Central the first time."""
    java()
    artifact = f"-Dartifact=io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
    return downloaded(
        f"apicurio-{APICURIO_VERSION}",
        lambda folder: [maven(), "-q", "-B", "dependency:unpack", artifact, f"-DoutputDirectory={folder}"],
    )
