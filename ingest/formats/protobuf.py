"""Decodes Protobuf by a schema of the registry, which is the text of a .proto file."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from confluent_kafka.schema_registry.confluent import meta_pb2
from confluent_kafka.schema_registry.confluent.type import decimal_pb2, variant_pb2
from confluent_kafka.schema_registry.confluent.types import decimal_pb2 as former_decimal_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from google.type import date_pb2  # type: ignore[import-untyped]

from ingest.message import HEADER_BYTES

COMPILE_SECONDS = 30.0
MOST_INDEXES = 100
"""Depth at which a message may be nested in others: Protobuf's own limit for values."""
GOOGLE_TYPES = Path(date_pb2.__file__).parents[2]
"""Holds google/type/*.proto."""
CONFLUENT_TYPES = (meta_pb2, decimal_pb2, variant_pb2, former_decimal_pb2)
"""Files that a schema may import without a reference, beside Google's."""

Decode = Callable[[bytes], bytes]
"""Takes a message, header included, to JSON text."""


def protobuf_decoder(schema: str, references: Mapping[str, str]) -> Decode:
    """A function that reads the messages of a schema: their place in it comes before them.

    Fields keep the names of the schema. One without presence is there with its default where the message has none:
    0 and false are values.

    Args:
        schema: the text of a .proto file.
        references: path of an import to the text of that file.

    Raises:
        ValueError: for a schema that does not compile.
    """
    files = _compile(schema, references)
    pool = DescriptorPool()
    for file in files:
        pool.Add(file)
    root = files[-1]
    classes: dict[tuple[int, ...], Any] = {}

    def decode(payload: bytes) -> bytes:
        stream = BytesIO(payload)
        stream.seek(HEADER_BYTES)
        indexes = _read_indexes(stream)
        if indexes not in classes:
            classes[indexes] = GetMessageClass(pool.FindMessageTypeByName(_full_name(root, indexes)))
        message = classes[indexes].FromString(stream.read())
        value = MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            descriptor_pool=pool,
        )
        return orjson.dumps(value)

    return decode


def _compile(schema: str, references: Mapping[str, str]) -> list[FileDescriptorProto]:
    """The schema, last, after what it imports."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in references.items():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"a reference cannot be called {path}")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        own = "schema.proto"
        while own in references:
            own = f"_{own}"
        (folder / own).write_text(schema, encoding="utf-8")
        known = FileDescriptorSet()
        for module in CONFLUENT_TYPES:
            module.DESCRIPTOR.CopyToProto(known.file.add())
        (folder / "known").write_bytes(known.SerializeToString())
        # In a process of its own, since the compiler is not Python and prints what is wrong with a schema; isolated
        # (-I), since the names of references are not ours: one could be that of a module, and be run.
        command = [
            sys.executable,
            "-I",
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"-I{GOOGLE_TYPES}",
            "--descriptor_set_in=known",
        ]
        command += ["--include_imports", "--descriptor_set_out=compiled", own]
        try:
            result = subprocess.run(  # noqa: S603  a list, of names that are ours
                command, cwd=folder, capture_output=True, check=False, timeout=COMPILE_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError("the schema did not compile in time") from error
        if result.returncode:
            raise ValueError(result.stderr.decode(errors="replace"))
        return list(FileDescriptorSet.FromString((folder / "compiled").read_bytes()).file)


def _read_indexes(stream: BytesIO) -> tuple[int, ...]:
    """Where the message stands in its file: its number, and before it those of the messages that it is nested in."""
    count = _read_integer(stream)
    if not 0 <= count <= MOST_INDEXES:
        raise ValueError("no place of a message")
    return tuple(_read_integer(stream) for _ in range(count)) or (0,)


def _read_integer(stream: BytesIO) -> int:
    """A varint, zigzag-encoded."""
    value = 0
    for shift in range(0, 35, 7):
        [byte] = stream.read(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise ValueError("a varint that is too long")


def _full_name(file: FileDescriptorProto, indexes: tuple[int, ...]) -> str:
    names = [file.package] if file.package else []
    messages: Any = file.message_type
    for index in indexes:
        if index < 0:
            raise IndexError(index)
        message: DescriptorProto = messages[index]
        names.append(message.name)
        messages = message.nested_type
    return ".".join(names)
