"""A schema registry in this process, with the part of Confluent's API that landing uses: for tests without Java."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit


class LocalRegistry:
    """Serves schemas from memory on a loopback port."""

    def __init__(self) -> None:
        self.status = 200
        """If not 200, the status of every response."""
        self.forbidden: tuple[str, ...] = ()
        """Prefixes of paths that get 403."""
        self.requests: list[str] = []
        """Requested paths."""
        self.authorizations: list[str | None] = []
        self._schemas: dict[int, dict[str, Any]] = {}
        self._subjects: dict[str, list[int]] = {}
        """Subject to the schema ids of its versions."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def register(self, subject: str, schema: str, type_: str = "AVRO", references: list[Any] | None = None) -> int:
        """Returns the id of the new version of the subject."""
        schema_id = len(self._schemas) + 1
        self._schemas[schema_id] = {"schema": schema, "schemaType": type_, "references": references or []}
        self._subjects.setdefault(subject, []).append(schema_id)
        return schema_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> tuple[int, Any]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["schemas", "ids"]:
            return self._answer_schema(int(parts[2]), parts[3:])
        if parts[0] == "subjects":
            return self._answer_version(parts[1], parts[3])
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _answer_schema(self, schema_id: int, more: list[str]) -> tuple[int, Any]:
        if schema_id not in self._schemas:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        if not more:
            return 200, self._schemas[schema_id]
        return 200, [
            {"subject": subject, "version": ids.index(schema_id) + 1}
            for subject, ids in self._subjects.items()
            if schema_id in ids
        ]

    def _answer_version(self, subject: str, version: str) -> tuple[int, Any]:
        ids = self._subjects.get(subject, [])
        number = len(ids) if version == "latest" else int(version)
        if not 0 < number <= len(ids):
            return 404, {"error_code": 40402 if ids else 40401, "message": "Version or subject not found"}
        schema_id = ids[number - 1]
        return 200, {"subject": subject, "version": number, "id": schema_id, **self._schemas[schema_id]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests.append(self.path)
                registry.authorizations.append(self.headers["Authorization"])
                status, answer = registry._answer(urlsplit(self.path).path)
                if self.path.startswith(registry.forbidden):
                    status, answer = 403, {"error_code": 40301, "message": "User is denied operation"}
                if registry.status != 200:
                    status, answer = registry.status, {"error_code": registry.status, "message": "no"}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
