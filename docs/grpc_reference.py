# SPDX-License-Identifier: Apache-2.0
"""
The reference of the gRPC services, from the comments of `protos/sparecode/v1`.

protoc describes the files, with the places and comments of what they define.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

PROTOS = Path(__file__).parents[1] / "protos"
PACKAGE = ".sparecode.v1."
FIRST = "authentication"
"""The file of the agents' service, which most programs need alone."""

# Numbers of fields in descriptor.proto: paths to comments consist of them.
_PACKAGE, _MESSAGE, _ENUM, _SERVICE = 2, 4, 5, 6
_FIELD, _NESTED, _NESTED_ENUM, _ONEOF = 2, 3, 4, 8
_VALUE, _METHOD = 2, 2

Where = tuple[int, ...]


def body() -> list[str]:
    """Return the lines of the page below its introduction."""
    files = described()
    files.sort(key=lambda file: (Path(file.name).stem != FIRST, file.name))
    lines = [
        "| service | methods | |",
        "|---|---|---|",
        *(_summary(file) for file in files if file.service),
        "",
    ]
    for file in files:
        lines += _File(file).lines()
    return lines[:-1]


def described() -> list[FileDescriptorProto]:
    """Return the descriptors of the public files, with source information."""
    names = sorted((PROTOS / "sparecode/v1").glob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "descriptors"
        arguments = [
            "protoc",
            f"-I{PROTOS}",
            f"-I{well_known}",
            "--include_source_info",
            f"--descriptor_set_out={file}",
            *map(str, names),
        ]
        if protoc.main(arguments):
            raise SystemExit("protoc failed")
        return list(FileDescriptorSet.FromString(file.read_bytes()).file)


def _summary(file: FileDescriptorProto) -> str:
    service = file.service[0]
    words = _File(file).comment((_SERVICE, 0))
    first = words.split(". ")[0].rstrip(".")
    return f"| {_link(service.name)} | {len(service.method)} | {_cell(first)}. |"


class _File:
    """One file: its definitions, and the comments before them."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(each.path): " ".join(
                (each.leading_comments or each.trailing_comments).split()
            )
            for each in file.source_code_info.location
        }

    def comment(self, where: Where) -> str:
        """Return the comment of a definition, on one line."""
        return self._comments.get(where, "")

    def lines(self) -> list[str]:
        """Return the section of this file."""
        name = Path(self._file.name)
        title = name.name
        path = f"../protos/{name}"
        lines = [f"## {title}", "", f"[{name}]({path}). {self.comment((_PACKAGE,))}"]
        lines.append("")
        for n, service in enumerate(self._file.service):
            lines += self._service(service, (_SERVICE, n))
        for n, message in enumerate(self._file.message_type):
            lines += self._message(message, (_MESSAGE, n), "")
        for n, enum in enumerate(self._file.enum_type):
            lines += self._enum(enum, (_ENUM, n), "")
        return lines

    def _service(self, service: ServiceDescriptorProto, where: Where) -> list[str]:
        rows = [
            f"| `{method.name}` | {_request(method)} | {_response(method)} | "
            f"{_cell(self.comment((*where, _METHOD, n)))} |"
            for n, method in enumerate(service.method)
        ]
        return [
            *self._heading(service.name, where),
            *("| method | request | response | |", "|---|---|---|---|"),
            *rows,
            "",
        ]

    def _message(
        self, message: DescriptorProto, where: Where, outer: str
    ) -> Iterator[str]:
        name = f"{outer}{message.name}"
        yield from self._heading(name, where)
        maps = {
            each.name: each for each in message.nested_type if each.options.map_entry
        }
        rows = [
            f"| `{field.name}` | {_type(field, maps)} | "
            f"{_cell(self._field(message, field, (*where, _FIELD, n)))} |"
            for n, field in enumerate(message.field)
        ]
        if rows:
            yield from ("| field | type | |", "|---|---|---|", *rows, "")
        for n, nested in enumerate(message.nested_type):
            if nested.name not in maps:
                yield from self._message(nested, (*where, _NESTED, n), f"{name}.")
        for n, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*where, _NESTED_ENUM, n), f"{name}.")

    def _field(
        self, message: DescriptorProto, field: FieldDescriptorProto, where: Where
    ) -> str:
        words = self.comment(where)
        if field.HasField("oneof_index") and not field.proto3_optional:
            words += f" (One of `{message.oneof_decl[field.oneof_index].name}`.)"
        return words

    def _enum(self, enum: EnumDescriptorProto, where: Where, outer: str) -> list[str]:
        rows = [
            f"| `{value.name}` | {value.number} | "
            f"{_cell(self.comment((*where, _VALUE, n)))} |"
            for n, value in enumerate(enum.value)
        ]
        return [
            *self._heading(f"{outer}{enum.name}", where),
            *("| value | number | |", "|---|---|---|"),
            *rows,
            "",
        ]

    def _heading(self, name: str, where: Where) -> Sequence[str]:
        return f"### {name}", "", self.comment(where), ""


def _request(method: MethodDescriptorProto) -> str:
    return _stream(method.input_type, streams=method.client_streaming)


def _response(method: MethodDescriptorProto) -> str:
    return _stream(method.output_type, streams=method.server_streaming)


def _stream(name: str, *, streams: bool) -> str:
    return f"{'stream of ' if streams else ''}{_link(name)}"


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    """Return the type of a field, as a file would have it, linked to its definition."""
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = (
        _link(field.type_name)
        if field.type_name
        else f"`{FieldDescriptorProto.Type.Name(field.type)[5:].lower()}`"
    )
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(full_name: str) -> str:
    """Return a link to a definition of this page; another one is only named."""
    if full_name.startswith(".") and not full_name.startswith(PACKAGE):
        return f"`{full_name[1:]}`"
    name = full_name.removeprefix(PACKAGE)
    return f"[{name}](#{name.replace('.', '').lower()})"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")
