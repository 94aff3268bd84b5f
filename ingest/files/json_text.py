"""Reads the bodies of JSON files byte for byte, in every Layout."""

import codecs
import json
import re
from collections.abc import Iterator
from itertools import islice
from json import JSONDecodeError
from typing import Any, BinaryIO, Literal, NoReturn

import orjson

from ingest.files.event_file import BLOCK_BYTES, SAMPLE, EventFile, UnreadableError

Layout = Literal["lines", "array", "documents"]
"""How a JSON file holds its bodies: one per line, as elements of one array, or as consecutive documents."""
WHITESPACE = re.compile(r"[ \t\r\n]*")


class NotJsonError(UnreadableError):
    """A text is not JSON; the message gives line and reason."""


def json_layout(file: EventFile) -> Layout:
    """Detect the layout of a JSON file from its beginning.

    `[` opens an array, unless the line is a complete array and more lines follow. `{` opens a document. If the first
    document ends with its line, or cannot be read although half of the next lines are objects, the layout is lines.

    Raises:
        NotJsonError: for a first document that cannot be read, with no lines of objects after it.
    """
    with file.open() as text:
        lines = (line for line in iter(lambda: text.readline(BLOCK_BYTES), b"") if line.strip())
        first, following = next(lines, b""), list(islice(lines, SAMPLE))
    opening, parsed = first.lstrip()[:1], _parsed(first)
    if opening == b"[":
        return "lines" if parsed is not None and following else "array"
    if opening != b"{" or parsed is not None:
        return "lines"
    try:
        with file.open() as text:
            document = next(json_documents(text))
    except NotJsonError:
        objects = sum(isinstance(_parsed(line), dict) for line in following)
        if objects and 2 * objects >= len(following):
            return "lines"
        raise
    with file.open() as text:
        lines = (line for line in iter(lambda: text.readline(len(document) + BLOCK_BYTES), b"") if line.strip())
        return "lines" if next(lines).strip() == document else "documents"


def json_bodies(file: EventFile, layout: Layout) -> Iterator[bytes]:
    """Yield the bodies of a JSON file byte for byte. Empty lines are skipped.

    Raises:
        NotJsonError: for an array or documents that cannot be read. With one body per line, lines are not checked.
    """
    with file.open() as text:
        if layout == "lines":
            for line in text:
                if line.strip():
                    yield line.rstrip(b"\r\n")
        else:
            yield from json_documents(text, in_array=layout == "array")


def _parsed(line: bytes) -> Any:
    """Parse a JSON text; None if it is not JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def json_documents(file: BinaryIO, *, in_array: bool = False) -> Iterator[bytes]:
    """Yield consecutive documents, or the elements of one array, byte for byte. Holds one document in memory at a time.

    Raises:
        NotJsonError: at the first line that is not JSON.
    """
    text = _JsonText(file)
    if not in_array:
        while text.next_character():
            yield text.document()
        return
    text.next_character()
    text.at += 1
    if text.next_character() != "]":
        yield text.document()
        while (separator := text.next_character()) == ",":
            text.at += 1
            text.next_character()
            yield text.document()
        if separator != "]":
            text.fail("expected , or ] in the array" if separator else "the array does not end: was the file cut?")
    text.at += 1
    if text.next_character():
        text.fail("text after the end of the array")


class _JsonText:
    """Splits JSON text into documents, in blocks.

    The standard library's parser reports where a document ends, so its bytes can be kept as they are. Not ijson, which
    returns only values and loses repeated keys; not DuckDB, which accepts NaN and a trailing comma.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.at = 0
        self._file = file
        self._text = ""
        self._line = 1
        """Line number at the start of `_text`."""
        self._is_end = False
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._parse = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str).raw_decode

    def next_character(self) -> str:
        """Skip white space and return the next character, '' at the end."""
        while True:
            if (space := WHITESPACE.match(self._text, self.at)) is not None:
                self.at = space.end()
            if self.at < len(self._text) or self._is_end:
                return self._text[self.at : self.at + 1]
            self._read_on()

    def document(self) -> bytes:
        """Return the document that begins at `at`, and move past it."""
        while True:
            try:
                _, end = self._parse(self._text, self.at)
            except JSONDecodeError as error:
                # the end of the block may have caused an unclosed string, or an error in the last 16 characters
                if self._is_end or (error.pos < len(self._text) - 16 and "Unterminated string" not in error.msg):
                    self.at = error.pos
                    self.fail(f"not JSON: {error.msg.removesuffix(' at').removesuffix(': ')}")
            except _ConstantError as error:
                self.fail(f"{error} is not JSON, in the document that begins here")
            except RecursionError:
                self.fail("nested too deeply")
            else:
                # a number may continue in the next block, such as 1 with e+3
                if self._is_end or end + 2 < len(self._text) or self._text[self.at] in '{["':
                    document, self.at = self._text[self.at : end], end
                    return document.encode()
            self._read_on()

    def fail(self, reason: str) -> NoReturn:
        raise NotJsonError(f"line {self._line + self._text.count(chr(10), 0, self.at):,}: {reason}")

    def _read_on(self) -> None:
        # doubles the text, so that a document of many blocks is not parsed once per block
        block = self._file.read(max(BLOCK_BYTES, len(self._text) - self.at))
        self._is_end = not block
        self._line += self._text.count("\n", 0, self.at)
        self._text, self.at = self._text[self.at :], 0
        try:
            self._text += self._decode(block, self._is_end)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            self.at = len(self._text)
            self.fail("not UTF-8")


class _ConstantError(ValueError):
    """NaN, Infinity or -Infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)
