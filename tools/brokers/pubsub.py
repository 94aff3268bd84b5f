"""Google's Pub/Sub emulator."""

import shutil
import socket
from pathlib import Path

from tools.brokers.server import JAVA_OPTIONS, MissingError, Server, java


class PubSubEmulator(Server):
    """Google's Pub/Sub emulator. Its topics and messages are gone when it stops."""

    project = "test-project"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, "pubsub", port)
        self.host = self.address
        # It keeps every message in memory: 700,000 of them filled one gigabyte.
        self._command = [java(), *JAVA_OPTIONS, "-Xmx6g", "-jar", str(_emulator_jar())]

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


def _emulator_jar() -> Path:
    """The emulator's jar in the Google Cloud SDK."""
    roots = [Path("/usr/lib/google-cloud-sdk"), Path("/usr/share/google-cloud-sdk"), Path.home() / "google-cloud-sdk"]
    if gcloud := shutil.which("gcloud"):
        # bin/gcloud of the SDK, or a link to it; running gcloud to find out takes seconds
        roots.insert(0, Path(gcloud).resolve().parents[1])
    for root in roots:
        for jar in sorted((root / "platform" / "pubsub-emulator" / "lib").glob("cloud-pubsub-emulator-*-all.jar")):
            return jar
    raise MissingError(
        "Google's Pub/Sub emulator is missing: `gcloud components install pubsub-emulator`, "
        "or on Debian with Google's package source `apt-get install google-cloud-cli-pubsub-emulator`"
    )
