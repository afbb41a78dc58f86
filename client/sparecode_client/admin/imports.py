# SPDX-License-Identifier: Apache-2.0
"""Imports of files: the cluster sends a result for each row."""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import grpc

from sparecode_client.connection.client import Client, Stubs
from sparecode_client.errors import InvalidArgument, Unavailable

CONTENT_BYTES_MAX = 1024 * 1024
"""Size limit of a file, as the API defines it."""

Q = TypeVar("Q")
A = TypeVar("A")


class Numbered(Protocol):
    """The result of a row."""

    @property
    def row(self) -> int:
        """Number of the row in the file, from 1."""


R = TypeVar("R", bound=Numbered)


def check_size(content: bytes) -> None:
    """
    Refuse a file that is too large, before it is sent.

    Raises:
        InvalidArgument: The file exceeds the limit.
    """
    if len(content) > CONTENT_BYTES_MAX:
        raise InvalidArgument(
            "content", f"has {len(content)} bytes; at most {CONTENT_BYTES_MAX}"
        )


async def import_rows(
    client: Client,
    method: Callable[[Stubs], grpc.aio.UnaryStreamMultiCallable[Q, A]],
    request_from: Callable[[int], Q],
    read: Callable[[A], tuple[R, int]],
    *,
    progress: Callable[[R, int], object],
    request_id: str,
    within: timedelta | None,
) -> tuple[R, ...]:
    """
    Return the result of every row. If a node breaks off, another one continues.

    *request_from* builds the request for the rows from a given number on. *read* returns
    the result in an answer, and the number of all rows.

    Raises:
        SparecodeError: See its subclasses for what may be assumed.
    """
    results: list[R] = []
    row_count = 1

    def take(answer: A) -> bool:
        nonlocal row_count
        result, row_count = read(answer)
        if result.row != len(results) + 1:
            return False
        results.append(result)
        progress(result, row_count)
        return True

    while len(results) < row_count:
        results_before = len(results)
        await client.stream_out(
            method,
            lambda: request_from(len(results) + 1),
            take,
            request_id=request_id,
            within=within,
        )
        if len(results) == results_before:
            raise Unavailable("NO_ANSWER", "the node sent no results")
    return tuple(results)
