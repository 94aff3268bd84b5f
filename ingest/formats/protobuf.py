"""Decodes Protobuf messages with a schema of the registry, which is the text of a .proto file."""

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
MAX_INDEXES = 100
"""Maximum depth at which a message type may be nested in others: Protobuf's own limit for values."""
GOOGLE_TYPES = Path(date_pb2.__file__).parents[2]
"""Directory that contains google/type/*.proto."""
CONFLUENT_TYPES = (meta_pb2, decimal_pb2, variant_pb2, former_decimal_pb2)
"""Confluent's files, which a schema may import without a reference, like Google's."""

Decode = Callable[[bytes], bytes]
"""Decodes a message, header included, to JSON text."""


def protobuf_decoder(schema: str, references: Mapping[str, str]) -> Decode:
    """Return a function that decodes messages of a schema. Each message begins with the path of its type in the schema.

    Fields keep their names in the schema. Fields without presence always appear, with their default if unset: Protobuf
    does not distinguish 0 from unset there.

    Args:
        schema: the text of a .proto file.
        references: texts of the imported files, by import path.

    Raises:
        ValueError: if the schema does not compile.
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
    """Compile a schema; returns the files that it imports, and the schema itself as the last one."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in references.items():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"the path of a reference leaves the schema's directory: {path}")
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
        # A separate process, since the compiler is native code and prints errors of a schema to standard error. With
        # -I, since a reference could have the path of a Python module, which would be imported and run.
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
            result = subprocess.run(  # noqa: S603  no argument comes from the schema
                command, cwd=folder, capture_output=True, check=False, timeout=COMPILE_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"the schema did not compile within {COMPILE_SECONDS:.0f} seconds") from error
        if result.returncode:
            raise ValueError(result.stderr.decode(errors="replace"))
        return list(FileDescriptorSet.FromString((folder / "compiled").read_bytes()).file)


def _read_indexes(stream: BytesIO) -> tuple[int, ...]:
    """Read the path of a message type: an index per level, from the top-level message to the nested one."""
    count = _read_integer(stream)
    if not 0 <= count <= MAX_INDEXES:
        raise ValueError("the path of the message type has an invalid length")
    return tuple(_read_integer(stream) for _ in range(count)) or (0,)


def _read_integer(stream: BytesIO) -> int:
    """Read a zigzag-encoded varint of up to 32 bits."""
    value = 0
    for shift in range(0, 35, 7):
        [byte] = stream.read(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise ValueError("a varint has more than 32 bits")


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
