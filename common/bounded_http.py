"""uvicorn's HTTP/1.1 protocol with bounds that it lacks: size of the head, time to receive, pipelined requests.

Only uvicorn's slower h11 protocol bounds the head, and none of its protocols bounds the other two.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of the request line and the headers together."""
RECEIVE_SECONDS = 60.0
"""Maximum seconds from the connection to the first byte of a request, and from that byte to the end of its body."""
MAX_PIPELINED = 16
"""Maximum requests of one connection that wait while an earlier one is answered."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; a request that exceeds a bound ends it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_receiving = False
        """Whether a request has begun and not ended."""
        self._parsed_bytes = self._unparsed_bytes = 0
        """Bytes of the head that the parser has reported, and bytes that it has received but not reported, such as half
        a header."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unparsed_bytes > MAX_HEAD_BYTES:
            self.send_400_response("")
        elif not self._is_receiving and (self.cycle is None or self.cycle.response_complete):
            self._start_deadline()  # empty lines between requests stop the keep-alive timer

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_receiving = True
        self._parsed_bytes = self._unparsed_bytes = 0
        self._start_deadline()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")  # the parser stops, and sends 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_receiving = False
        self._unparsed_bytes = 0
        self._stop_deadline()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Send 431 instead if the head is too large."""
        if max(self._parsed_bytes, self._unparsed_bytes) <= MAX_HEAD_BYTES:
            super().send_400_response(msg)
            return
        text = b"the request line and headers are larger than %d bytes" % MAX_HEAD_BYTES
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[431] + head + text)
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        # close() would wait for a client that does not read
        self.transport.abort()

    def _count(self, number: int) -> None:
        self._parsed_bytes += number
        if self._parsed_bytes > MAX_HEAD_BYTES:
            raise ValueError("request line and headers too large")  # the parser stops, and send_400_response is called

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
