"""Reads files of past events: CSV, NDJSON, JSON and Parquet, each text also gzip-compressed or in UTF-16."""

import codecs
import csv
import glob
import gzip
import io
import json
import re
import shutil
import sys
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from json import JSONDecodeError
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, BinaryIO, Literal, NoReturn

import orjson
import structlog

from ingest.errors import UserError

Format = Literal["csv", "json", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "json",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
}
"""By the extension of the file's name, without .gz."""
Layout = Literal["lines", "array", "documents"]
"""Of a JSON file: one body per line, one array of bodies, or one body after the other."""

DELIMITERS = ",;\t|"
LINES_A_RECORD = 1_000
"""A quoted field may run over this many lines; a quote that opens and never closes must not eat the file."""
SAMPLE = 100
"""Lines that tell what a file is."""
BLOCK_BYTES = 1024 * 1024
"""Read at a time; also the longest line that is looked at to tell what a file is."""
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
WHITESPACE = re.compile(r"[ \t\r\n]*")

csv.field_size_limit(sys.maxsize)  # 128 KiB otherwise
log = structlog.get_logger()


class UnreadableError(Exception):
    """What is wrong with the content of a file; `EventFile.reading` adds its name."""


@dataclass
class EventFile:
    """One file, as it is named to people and where it can be read, as often as needed."""

    name: str
    path: Path
    copied: IO[bytes] | None = field(default=None, repr=False)
    """The temporary file at `path`, which goes when this does."""

    @property
    def format(self) -> Format:
        """By the name; that of standard input by its beginning.

        Raises:
            UserError: for another extension.
        """
        if self.copied is not None:
            if self.path.open("rb").read(4) == PARQUET:
                return "parquet"
            with self.open() as file:
                return "json" if file.read(BLOCK_BYTES).lstrip()[:1] in (b"{", b"[") else "csv"
        known = _format(self.path)
        if known is None:
            raise UserError(
                f"{self.name}: replay reads {', '.join(FORMATS)} (.gz too), and whatever of these comes from standard "
                "input: replay -"
            )
        return known

    def open(self) -> BinaryIO:
        """The decompressed text as UTF-8 without a byte order mark; text in UTF-16 is known by its mark."""
        file: BinaryIO = self.path.open("rb")
        if file.read(2) == GZIP:
            file.close()
            file = io.BufferedReader(gzip.GzipFile(self.path), BLOCK_BYTES)
        file.seek(0)
        mark = file.read(3)
        if mark == codecs.BOM_UTF8:
            return file
        file.seek(0)
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return io.BufferedReader(_Recoded(io.TextIOWrapper(file, "utf-16", newline="\n")))
        return file

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are read as they are, so that none is found unreadable later."""
        with self.path.open("rb") as file:
            return file.read(2) not in (GZIP, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what goes wrong while the file is read into a UserError that names it."""
        try:
            yield
        except UnreadableError as error:
            raise UserError(f"{self.name}: {error}") from error
        except OSError as error:  # of gzip too, without strerror
            raise UserError(f"{self.name} cannot be read: {error.strerror or error}") from error
        except (EOFError, zlib.error) as error:
            raise UserError(f"{self.name} cannot be decompressed: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name} is not the {error.encoding} that its beginning says: {error.reason}"
            ) from error


class _Recoded(io.RawIOBase):
    """Text as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        encoded = self._text.read(max(1, len(buffer) // 4)).encode()  # a character takes up to 4 bytes
        buffer[: len(encoded)] = encoded
        return len(encoded)

    def close(self) -> None:
        self._text.close()
        super().close()


# -- which files ------------------------------------------------------------------------------------------------------


def find_files(names: Sequence[str]) -> list[EventFile]:
    """The files that these names stand for, each once: a file, a folder with all below it, a glob, or `-`.

    In the order of the names, and by name within a folder or glob. Standard input is copied to a temporary file, since
    it is looked at before anything of it is published.

    Raises:
        UserError: for a name that stands for nothing, or standard input that cannot be copied.
    """
    found: list[EventFile] = []
    for name in names:
        if name == "-":
            found.append(_standard_input())
            continue
        path = Path(name)
        if path.is_dir():
            paths = _readable(name, path.rglob("*"))
        elif not path.exists() and glob.has_magic(name):
            paths = [path]
            matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207  an absolute one too
            if matches:
                below = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
                paths = _readable(name, below)
        else:
            paths = [path]
        found += [EventFile(str(path), path) for path in paths]
    return list({file.name: file for file in found}.values())


def _readable(name: str, paths: Iterable[Path]) -> list[Path]:
    """The files that have a known format, sorted; hidden ones and those that Spark names _SUCCESS are passed over."""
    files = sorted(path for path in set(paths) if path.is_file() and path.name[0] not in "._")
    known = [path for path in files if _format(path)]
    if not known:
        raise UserError(f"{name} holds no file that replay reads: {', '.join(FORMATS)} (.gz too)")
    if others := [str(path) for path in files if not _format(path)]:
        log.warning("left out: of other extensions than replay reads", files=others[:10], count=len(others))
    return known


def _format(path: Path) -> Format | None:
    return FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _standard_input() -> EventFile:
    copied = NamedTemporaryFile(prefix="replay-")  # noqa: SIM115  it lives as long as the EventFile
    try:
        shutil.copyfileobj(sys.stdin.buffer, copied)
        copied.flush()
    except OSError as error:
        raise UserError(f"standard input cannot be copied to {copied.name}: {error.strerror}; see TMPDIR") from error
    return EventFile("standard input", Path(copied.name), copied)


# -- JSON -------------------------------------------------------------------------------------------------------------


class NotJsonError(UnreadableError):
    """Where and why a text is not JSON."""


def json_layout(file: EventFile) -> Layout:
    """Tell from the beginning of a JSON file how its bodies stand in it.

    `[` opens an array, unless that line is one whole array and others follow. `{` opens a document: if it ends with
    its line, or cannot be read although half of the lines that follow can, there is one body per line.

    Raises:
        NotJsonError: when it is none of these.
    """
    with file.open() as text:
        first = next((line for line in iter(lambda: text.readline(BLOCK_BYTES), b"") if line.strip()), b"")
        following = [line for line in islice(text, SAMPLE) if line.strip()] if first.endswith(b"\n") else []
    opening, is_whole = first.lstrip()[:1], _is_json(first)
    if opening == b"[":
        return "lines" if is_whole and following else "array"
    if opening != b"{" or is_whole:
        return "lines"
    try:
        with file.open() as text:
            document = next(json_documents(text))
    except NotJsonError:
        readable = sum(map(_is_json, following))
        if readable and 2 * readable >= len(following):
            return "lines"
        raise
    with file.open() as text:
        line = next(line for line in iter(lambda: text.readline(len(document) + BLOCK_BYTES), b"") if line.strip())
    return "lines" if line.strip() == document else "documents"


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def json_documents(file: BinaryIO, *, in_array: bool = False) -> Iterator[bytes]:
    """The documents that follow each other in a file, or the elements of its one array, byte for byte.

    Raises:
        NotJsonError: at the first place that is not JSON.
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
    """A text of which one document at a time is held in memory.

    The standard library parses it, and says where a document ends. ijson and DuckDB hand out values instead: without
    repeated keys and the digits of long numbers, or with NaN.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.at = 0
        self._file = file
        self._text = ""
        self._line = 1
        """The number of the first line of `_text`."""
        self._is_end = False
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._parse = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str).raw_decode

    def next_character(self) -> str:
        """The next one that is not white space; '' at the end."""
        while True:
            if (space := WHITESPACE.match(self._text, self.at)) is not None:
                self.at = space.end()
            if self.at < len(self._text) or self._is_end:
                return self._text[self.at : self.at + 1]
            self._read_on()

    def document(self) -> bytes:
        """The document that begins here."""
        while True:
            try:
                _, end = self._parse(self._text, self.at)
            except JSONDecodeError as error:
                # It may only be the end of what was read so far: within a string, or less than 16 characters ago.
                if self._is_end or (error.pos < len(self._text) - 16 and "Unterminated string" not in error.msg):
                    self.at = error.pos
                    self.fail(f"not JSON: {error.msg.removesuffix(' at').removesuffix(': ')}")
            except _ConstantError as error:
                self.fail(f"{error}, somewhere in what begins here, is not JSON")
            except RecursionError:
                self.fail("nested too deeply")
            else:
                # A number may go on in the next block, as 1 with e+3.
                if self._is_end or end + 2 < len(self._text) or self._text[self.at] in '{["':
                    document, self.at = self._text[self.at : end], end
                    return document.encode()
            self._read_on()

    def fail(self, reason: str) -> NoReturn:
        raise NotJsonError(f"line {self._line + self._text.count(chr(10), 0, self.at):,}: {reason}")

    def _read_on(self) -> None:
        # As much again as is held, so that a document of many blocks is not parsed once per block.
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


# -- CSV --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header row of a CSV."""

    names: list[str]
    delimiter: str
    lines: int
    """How many lines it takes: 2 with Excel's `sep=;` before it."""


def csv_header(file: BinaryIO, known: Collection[str]) -> CsvHeader:
    """Read the header row, by the delimiter that gives the most known names.

    Raises:
        UnreadableError: for a line that cannot be a header.
    """
    line, lines, delimiters = file.readline(BLOCK_BYTES), 1, DELIMITERS
    if named := re.fullmatch(rb'"?sep=(.)"?\r?\n', line):
        line, lines, delimiters = file.readline(BLOCK_BYTES), 2, named[1].decode("latin-1")
    if not line.strip():
        raise UnreadableError("the first line must be a CSV header, and is empty")
    best: list[str] = []
    failure: Exception | None = None
    for delimiter in delimiters:
        try:
            names = _fields(line, delimiter)
        except (csv.Error, UnicodeDecodeError) as error:
            failure = error
            continue
        if not best or _fit(names, known) > _fit(best, known):
            best, chosen = names, delimiter
    if not best:
        raise UnreadableError(f"the first line is not a CSV header ({failure})")
    return CsvHeader(best, chosen, lines)


def _fit(names: list[str], known: Collection[str]) -> tuple[int, int]:
    return len(set(names).intersection(known)), len(names)


def csv_records(file: BinaryIO, header: CsvHeader) -> Iterator[list[str] | bytes]:
    """The fields of each row behind the header, or its bytes where it does not have as many fields as the header.

    Empty lines are passed over.
    """
    lines: Iterator[bytes] = islice(file, header.lines, None)
    width, delimiter = len(header.names), header.delimiter
    # lines that were read ahead for a quoted field that did not close, to be read again by themselves
    again: deque[bytes] = deque()
    while line := again.popleft() if again else next(lines, b""):
        if not line.strip():
            continue
        fields: list[str] | None = None
        if b'"' in line:
            fields = _quoted_fields(line, lines, again, width, delimiter)
        else:
            with suppress(UnicodeDecodeError):
                fields = line.rstrip(b"\r\n").decode().split(delimiter)
        yield line.rstrip(b"\r\n") if fields is None or len(fields) != width else fields


def _fields(record: bytes, delimiter: str) -> list[str]:
    """The fields of one record.

    Raises:
        csv.Error: for a quote that does not close, or text after a closing quote.
    """
    text = record.decode().removesuffix("\n").removesuffix("\r")
    # one string, not its lines: a newline within quotes belongs to the field
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


def _quoted_fields(
    line: bytes, lines: Iterator[bytes], again: deque[bytes], width: int, delimiter: str
) -> list[str] | None:
    """The fields of the record that begins with this line, with the following lines if a quoted field runs on.

    Lines that turn out not to belong to the record are put back into `again`.
    """
    ahead: list[bytes] = []
    # an odd number of quotes is no whole record, unless one stands in the midst of a bare field: so the line
    # is tried by itself first, then up to where the quotes are even
    quotes = line.count(b'"')
    record = line
    while True:
        try:
            fields = _fields(record, delimiter)
        except (csv.Error, UnicodeDecodeError):
            fields = []
        if len(fields) == width:
            return fields
        if quotes % 2 == 0:
            break
        while quotes % 2 and len(ahead) < LINES_A_RECORD:
            following = again.popleft() if again else next(lines, b"")
            if not following:
                break
            ahead.append(following)
            quotes += following.count(b'"')
        if quotes % 2:
            break
        record = b"".join((line, *ahead))
    again.extendleft(reversed(ahead))
    return None


# -- Parquet ----------------------------------------------------------------------------------------------------------


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        UnreadableError: for a file that is not Parquet.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names)
    except ArrowException as error:
        raise UnreadableError(f"not a Parquet file ({error})") from error


def parquet_bodies(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    """Each row as a JSON object with these names for its columns: integers and decimals exact, times as ISO 8601 in
    UTC, NaN and infinity as null.

    Raises:
        UnreadableError: for a file that cannot be read.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        columns = [f"c{number}" for number in range(len(names))]
        rows = (
            f"read_parquet($path, binary_as_string => true, hive_partitioning => false) as rows({', '.join(columns)})"
        )
        # a path is a glob for DuckDB
        parameters = {"path": re.sub(r"([*?\[])", r"[\1]", str(path))}
        try:
            types = connection.execute(f"describe select * from {rows}", parameters).fetchall()  # noqa: S608  no input
            values = [
                f"case when isfinite({column}) then {column} end" if kind in ("FLOAT", "DOUBLE") else column
                for column, kind, *_ in types
            ]
            fields = ", ".join(
                "'{}': {}".format(name.replace("'", "''"), value) for name, value in zip(names, values, strict=True)
            )
            select = f"select to_json({{{fields}}}) from {rows}"  # noqa: S608  names are quoted
            for batch in connection.sql(select, params=parameters).to_arrow_reader(10_000):
                for body in batch.column(0).to_pylist():
                    yield body.encode()
        except duckdb.Error as error:
            raise UnreadableError(str(error).partition("\n")[0]) from error
