# SPDX-License-Identifier: Apache-2.0
"""
The content of a request: what its tag is computed from (Q1).

A retry is recognized by caller, method and request id. The tag tells whether its
content is still the same. It is computed from the arguments of the use case, so gRPC,
the console and the rows of files all get it in one place.

A retry may reach a node of another release and must get the same tag there. Therefore,
from 0.1.0 on:

* An argument or field keeps its name and its default.
* A new one has a default, and the default means what requests without it meant.

An argument that equals its default is left out, so a release that does not know it
computes the same content. `tests/services/test_idempotency.py` pins the names.
"""

import dataclasses
import enum
import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from sparecode_node.services.context import CallContext

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

_UseCase = Callable[Concatenate[S, CallContext, P], Awaitable[R]]


def idempotent(use_case: _UseCase[S, P, R]) -> _UseCase[S, P, R]:
    """Mark a use case that changes the state: a retry with the same id changes it once."""
    _service, _context, *arguments = inspect.signature(use_case).parameters.values()
    if any(each.kind is not each.KEYWORD_ONLY for each in arguments):
        raise TypeError(f"{use_case.__qualname__}: arguments must be given by name")
    defaults = {
        each.name: content_of(each.default)
        for each in arguments
        if each.default is not each.empty
    } | {"etag": content_of("")}

    @functools.wraps(use_case)
    async def call(
        service: S, context: CallContext, /, *args: P.args, **arguments: P.kwargs
    ) -> R:
        content = _named_content({**arguments, "etag": context.etag}, defaults)
        return await use_case(
            service, dataclasses.replace(context, content=content), *args, **arguments
        )

    return call


def row_context(context: CallContext, row: int, fields: object) -> CallContext:
    """
    Return the context of one row of a request, with an id and a content of its own.

    The id follows from the request's, so a retry of the request finds the results of
    the rows that were decided.
    """
    row_id = uuid.uuid5(uuid.UUID(context.request_id), f"row {row}")
    return dataclasses.replace(
        context, request_id=str(row_id), content=content_of(fields)
    )


def content_of(value: object) -> bytes:
    """
    Return a value as bytes: equal for equal values only, on every node and release.

    The fields of a dataclass are written by name; those that equal their default are
    left out.
    """
    match value:
        case None:
            return _part(b"-", b"")
        case enum.Enum():
            return content_of(value.value)
        case str():
            return _part(b"s", value.encode(errors="replace"))
        case bytes():
            return _part(b"b", value)
        case int():  # Also bool: True and 1 mean the same.
            return _part(b"i", str(int(value)).encode())
        case Mapping():
            return _named_content(value, {})
        case Sequence():
            return _part(b"l", b"".join(map(content_of, value)))
        case _ if dataclasses.is_dataclass(value):
            return _dataclass_content(value)
    raise TypeError(f"a request has no content of type {type(value).__name__}")


def _part(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(8) + content


def _named_content(
    values: Mapping[str, object], defaults: Mapping[str, bytes]
) -> bytes:
    """Return named values as bytes, without those that equal their default."""
    parts = []
    for name in sorted(values):
        content = content_of(values[name])
        if content != defaults.get(name):
            parts += [content_of(name), content]
    return _part(b"m", b"".join(parts))


def _dataclass_content(value: Any) -> bytes:  # noqa: ANN401 - any dataclass.
    fields = dataclasses.fields(value)
    return _named_content(
        {each.name: getattr(value, each.name) for each in fields},
        {
            each.name: content_of(each.default)
            for each in fields
            if each.default is not dataclasses.MISSING
        },
    )
