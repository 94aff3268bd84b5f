"""Reads files of events: CSV, NDJSON, JSON and Parquet, gzip-compressed or not. Text may be in UTF-16.

`replay` publishes them, `stream add` and `stream check` read them as samples.
"""

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
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from json import JSONDecodeError
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, BinaryIO, Literal, NoReturn, TypeAlias

import orjson
import structlog

from common.errors import UserError

Format = Literal["csv", "json", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "json",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
}
"""File extension, without .gz, to format."""
Layout = Literal["lines", "array", "documents"]
"""How a JSON file holds its bodies: one per line, as elements of one array, or as consecutive documents."""

DELIMITERS = ",;\t|"
SHOWN_CHARACTERS = 300
"""Maximum length of a file's content in an error message."""
LINES_PER_RECORD = 1_000
"""Maximum lines of one CSV record: a quote that never closes must not swallow the rest of the file."""
SAMPLE = 100
"""Lines or bodies that are read to detect what a file is."""
BLOCK_BYTES = 1024 * 1024
"""Bytes per read, and maximum length of a line in the sample."""
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
WHITESPACE = re.compile(r"[ \t\r\n]*")

csv.field_size_limit(sys.maxsize)  # the default, 128 KiB, turns long fields into dead letters
log = structlog.get_logger()


class UnreadableError(Exception):
    """The content of a file cannot be read; `EventFile.reading` adds the file's name."""


@dataclass
class EventFile:
    """One file, which can be read several times."""

    name: str
    """The name for messages to the user."""
    path: Path
    copy: IO[bytes] | None = field(default=None, repr=False)
    """The temporary file at `path`, if the events came from a pipe. It is deleted with this object."""

    @property
    def format(self) -> Format:
        """The format by the file's extension, or by the first bytes of a pipe.

        Raises:
            UserError: for an unknown extension.
        """
        if self.copy is not None:
            with self.path.open("rb") as file:
                if file.read(len(PARQUET)) == PARQUET:
                    return "parquet"
            with self.open() as file:
                return "json" if file.read(BLOCK_BYTES).lstrip()[:1] in (b"{", b"[") else "csv"
        known = _format(self.path)
        if known is None:
            raise UserError(
                f"{self.name}: expected {', '.join(FORMATS)} (also .gz); pipe any other file in, with - as the file"
            )
        return known

    def open(self) -> BinaryIO:
        """Open the text, decompressed, as UTF-8 without a byte order mark. UTF-16 is detected by its mark."""
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

    def open_parquet(self) -> Path:
        """Return the path of a Parquet file. It is read at random positions: a compressed one is copied first."""
        with self.path.open("rb") as file:
            is_compressed = file.read(len(GZIP)) == GZIP
        if is_compressed:
            with self.open() as file:
                copied = _copy(self.name, file)
            self.path, self.copy = copied.path, copied.copy
        return self.path

    @property
    def is_plain(self) -> bool:
        """Whether the file needs neither decompression nor decoding, which can fail at any byte."""
        with self.path.open("rb") as file:
            return file.read(2) not in (GZIP, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors from reading the file into a UserError that names it."""
        try:
            yield
        except UnreadableError as error:
            raise UserError(f"{self.name}: {error}") from error
        except OSError as error:  # gzip raises it too, without strerror
            raise UserError(f"{self.name} cannot be read: {error.strerror or error}") from error
        except (EOFError, zlib.error) as error:
            raise UserError(f"{self.name} cannot be decompressed: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name} is not the {error.encoding} that its first bytes announce: {error.reason}"
            ) from error


class _Recoded(io.RawIOBase):
    """Encodes text as UTF-8."""

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
    """Find the files that the names stand for. A name is a file, a pipe, a folder, a glob, or `-` for standard input.

    Pipes and standard input are copied to a temporary file, because a file is checked before it is published.

    Returns:
        Each file once, in the order of the names; sorted by path within a folder (recursively) or a glob.

    Raises:
        UserError: for a folder or glob without a file of a known format, or a pipe that cannot be copied.
    """
    found: list[EventFile] = []
    for name in names:
        path = Path(name)
        if name == "-":
            found.append(_copy("standard input", sys.stdin.buffer))
        elif path.is_fifo() or path.is_char_device():
            with path.open("rb") as pipe:
                found.append(_copy(name, pipe))
        elif path.is_dir():
            found += _known_files(name, path.rglob("*"))
        elif not path.exists() and (matches := glob.glob(name, recursive=True)):  # noqa: PTH207  may be absolute
            folders = [Path(match).rglob("*") for match in matches if Path(match).is_dir()]
            found += _known_files(name, chain(map(Path, matches), *folders))
        else:
            found.append(EventFile(str(path), path))
    return list({file.name: file for file in found}.values())


def _known_files(name: str, paths: Iterable[Path]) -> list[EventFile]:
    """The files of known formats, sorted. Hidden files and Spark's _SUCCESS are skipped, others with a warning."""
    files = sorted(path for path in set(paths) if path.is_file() and path.name[0] not in "._")
    known = [EventFile(str(path), path) for path in files if _format(path)]
    if not known:
        raise UserError(f"{name} contains no file of a known format: {', '.join(FORMATS)} (also .gz)")
    if others := [str(path) for path in files if not _format(path)]:
        log.warning("skipped files of unknown formats", files=others[:10], count=len(others))
    return known


def _format(path: Path) -> Format | None:
    return FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _copy(name: str, pipe: BinaryIO) -> EventFile:
    copy = NamedTemporaryFile(prefix="events-")  # noqa: SIM115  it lives as long as the EventFile
    try:
        shutil.copyfileobj(pipe, copy)
        copy.flush()
    except OSError as error:
        raise UserError(f"{name} cannot be copied to {copy.name}: {error.strerror}; set TMPDIR") from error
    return EventFile(name, Path(copy.name), copy)


# -- bodies -----------------------------------------------------------------------------------------------------------


def read_bodies(file: EventFile) -> Iterator[bytes]:
    """Yield the body of each row, without knowing the stream. A row of a CSV that cannot be read is its bytes.

    Raises:
        UnreadableError: for a file that cannot be read, or a CSV with an unknown delimiter; see `EventFile.reading`.
        UserError: for a file of an unknown format, or with two columns of one name.
    """
    if file.format == "json":
        yield from json_bodies(file, json_layout(file))
    elif file.format == "parquet":
        columns = parquet_columns(file.open_parquet())
        check_distinct(file, columns)
        yield from parquet_bodies(file.path, columns)
    else:
        with file.open() as text:
            header = csv_header(text, ())
        check_distinct(file, header.names)
        if len(header.names) == 1 and re.search(r"[^\w .\[\]-]", header.names[0]):
            raise UnreadableError(
                f"the header has only one column, {header.names[0][:SHOWN_CHARACTERS]!r}: separate columns by a comma,"
                " semicolon, tab or |"
            )
        body = csv_body(header.names)
        with file.open() as text:
            for record in csv_records(text, header):
                yield record if isinstance(record, bytes) else body(record)


def check_distinct(file: EventFile, columns: Sequence[str]) -> None:
    """Reject a file with two columns of one name.

    Raises:
        UserError: naming file and column.
    """
    column, times = Counter(columns).most_common(1)[0] if columns else ("", 0)
    if times > 1:
        raise UserError(f"{file.name} has {times} columns named {column!r}; remove or rename all but one")


Value: TypeAlias = "int | dict[str, Value] | list[Value] | None"
"""The number of a column, or an object or list of such; None for an element that no column gives."""
_Steps = dict[str | int, "int | _Steps"]
"""The same with lists as objects: index to element."""
MOST_ELEMENTS = 1_000
"""Maximum elements of a list that columns make: `items[999999999]` must not fill the memory."""


def nested(columns: Sequence[str]) -> dict[str, Value]:
    """Nest columns as the paths of a contract do: `props.ref` is the field `ref` of the object `props`, `items[0].sku`
    the field `sku` of the first element of the list `items`.

    A name stays as it is where it cannot be a path: with an empty part, beside a column `props`, or beside another
    column that makes `props` a list.
    """
    flat = set(columns)
    fields: _Steps = {}
    for number, column in enumerate(columns):
        steps = _steps(column)
        if any(column[: place.start()] in flat for place in re.finditer(r"[.\[]", column)) or not _fits(steps, fields):
            steps = [column]
        inner = fields
        for step in steps[:-1]:
            below = inner.setdefault(step, {})
            assert not isinstance(below, int)  # noqa: S101  `_fits` says so
            inner = below
        inner[steps[-1]] = number
    return {str(name): _with_lists(inner) for name, inner in fields.items()}


def _steps(column: str) -> list[str | int]:
    """Names and indexes: `items[0].sku` as items, 0, sku."""
    steps: list[str | int] = []
    for part in column.split("."):
        indexed = re.fullmatch(r"([^\[\]]+)((?:\[[0-9]{1,9}\])+)", part)
        if not part or (indexed is None and not part.strip("[]")):
            return [column]
        if indexed is None:
            steps.append(part)
        else:
            steps += [indexed[1], *map(int, re.findall("[0-9]+", indexed[2]))]
    return steps


def _fits(steps: Sequence[str | int], fields: _Steps) -> bool:
    """Whether these steps do not make an object of a list, or the reverse."""
    inner: int | _Steps = fields
    for step in steps:
        is_index = isinstance(step, int)
        if isinstance(step, int) and step >= MOST_ELEMENTS:
            return False
        if isinstance(inner, int) or any(isinstance(other, int) != is_index for other in inner):
            return False
        inner = inner.get(step, {})
    return inner == {}


def _with_lists(inner: "int | _Steps") -> Value:
    if isinstance(inner, int):
        return inner
    if places := [step for step in inner if isinstance(step, int)]:
        return [_with_lists(inner[place]) if place in inner else None for place in range(max(places) + 1)]
    return {str(name): _with_lists(below) for name, below in inner.items()}


# -- JSON -------------------------------------------------------------------------------------------------------------


class NotJsonError(UnreadableError):
    """The line and reason why a text is not JSON."""


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
        NotJsonError: for an array or documents that cannot be read. A line can be anything.
    """
    with file.open() as text:
        if layout == "lines":
            for line in text:
                if line.strip():
                    yield line.rstrip(b"\r\n")
        else:
            yield from json_documents(text, in_array=layout == "array")


def _parsed(line: bytes) -> Any:
    """The value of a JSON text; None if it is not JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def json_documents(file: BinaryIO, *, in_array: bool = False) -> Iterator[bytes]:
    """Yield consecutive documents, or the elements of one array, byte for byte. Memory is bound by the largest.

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

    The standard library's parser reports where a document ends, so its bytes can be kept as they are. ijson returns
    values, without repeated keys; DuckDB accepts NaN and a comma before the end.
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
                # An unclosed string, or an error in the last 16 characters, may only be the end of the block.
                if self._is_end or (error.pos < len(self._text) - 16 and "Unterminated string" not in error.msg):
                    self.at = error.pos
                    self.fail(f"not JSON: {error.msg.removesuffix(' at').removesuffix(': ')}")
            except _ConstantError as error:
                self.fail(f"{error}, somewhere in what begins here, is not JSON")
            except RecursionError:
                self.fail("nested too deeply")
            else:
                # A number may continue in the next block, such as 1 with e+3.
                if self._is_end or end + 2 < len(self._text) or self._text[self.at] in '{["':
                    document, self.at = self._text[self.at : end], end
                    return document.encode()
            self._read_on()

    def fail(self, reason: str) -> NoReturn:
        raise NotJsonError(f"line {self._line + self._text.count(chr(10), 0, self.at):,}: {reason}")

    def _read_on(self) -> None:
        # Double the text, so that a document of many blocks is not parsed once per block.
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
    """Number of lines up to the first record: 2 if Excel's `sep=;` precedes the header."""


def csv_header(file: BinaryIO, known: Collection[str]) -> CsvHeader:
    """Read the header row, with the delimiter that results in the most known names.

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
        except (csv.Error, ValueError) as error:
            failure = error
            continue
        if not best or _fit(names, known) > _fit(best, known):
            best, chosen = names, delimiter
    if not best:
        raise UnreadableError(f"the first line is not a CSV header ({failure})")
    return CsvHeader(best, chosen, lines)


def _fit(names: list[str], known: Collection[str]) -> tuple[int, int]:
    return len(set(names).intersection(known)), len(names)


def csv_body(columns: Sequence[str]) -> Callable[[list[str]], bytes]:
    """Return a function that turns the fields of a row into its body, a JSON object of strings."""
    fields = nested(columns)

    def value_of(inner: Value, record: list[str]) -> Any:
        if isinstance(inner, dict):
            return {name: value_of(below, record) for name, below in inner.items()}
        if isinstance(inner, list):
            return [value_of(element, record) for element in inner]
        return None if inner is None else record[inner]

    if len(fields) == len(columns) and all(isinstance(inner, int) for inner in fields.values()):
        return lambda record: orjson.dumps(dict(zip(columns, record, strict=True)))  # a third faster
    return lambda record: orjson.dumps(value_of(fields, record))


def csv_records(file: BinaryIO, header: CsvHeader) -> Iterator[list[str] | bytes]:
    """Yield the fields of each row, or the row's bytes if it has not as many fields as the header.

    Empty lines are skipped.
    """
    lines: Iterator[bytes] = islice(file, header.lines, None)
    width, delimiter = len(header.names), header.delimiter
    # Lines read ahead for a quoted field that did not close: each is read again on its own.
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
    """Split one record.

    Raises:
        csv.Error: for a quote that does not close, or text after a closing quote.
    """
    text = record.decode().removesuffix("\n").removesuffix("\r")
    # A list of one string: a newline within quotes belongs to the field.
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


def _quoted_fields(
    line: bytes, lines: Iterator[bytes], again: deque[bytes], width: int, delimiter: str
) -> list[str] | None:
    """Split the record that begins with this line, reading more lines if a quoted field contains newlines.

    Lines that do not belong to the record are put back into `again`.
    """
    ahead: list[bytes] = []
    # A line with an odd number of quotes is incomplete, unless one is inside an unquoted field: try the line first,
    # then everything up to the line that makes the number even.
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
        while quotes % 2 and len(ahead) < LINES_PER_RECORD:
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
    """Return the names of the columns.

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
    """Yield each row as a JSON object with these names for the columns, in order.

    Integers and decimals are exact, times are ISO 8601 in UTC, NaN and infinity are null.

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
        # DuckDB reads a path as a glob.
        parameters = {"path": re.sub(r"([*?\[])", r"[\1]", str(path))}
        try:
            types = connection.execute(f"describe select * from {rows}", parameters).fetchall()  # noqa: S608  no input
            values = [
                f"case when isfinite({column}) then {column} end" if kind in ("FLOAT", "DOUBLE") else column
                for column, kind, *_ in types
            ]
            select = f"select to_json({_struct(nested(names), values)}) from {rows}"  # noqa: S608  names are quoted
            for batch in connection.sql(select, params=parameters).to_arrow_reader(10_000):
                for body in batch.column(0).to_pylist():
                    yield body.encode()
        except duckdb.Error as error:
            raise UnreadableError(str(error).partition("\n")[0]) from error


def _struct(inner: Value, values: Sequence[str]) -> str:
    """Return the SQL of an object or a list of these values."""
    if isinstance(inner, dict):
        fields = ("'{}': {}".format(name.replace("'", "''"), _struct(below, values)) for name, below in inner.items())
        return f"{{{', '.join(fields)}}}"
    if isinstance(inner, list):  # whose elements may differ in type, other than those of a list of DuckDB
        return f"json_array({', '.join(_struct(element, values) for element in inner)})"
    return "null" if inner is None else values[inner]
