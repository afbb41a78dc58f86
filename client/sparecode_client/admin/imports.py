# SPDX-License-Identifier: Apache-2.0
"""Files whose rows are answered one by one, by whichever nodes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import grpc

from sparecode_client.connection.client import Client, Stubs
from sparecode_client.errors import InvalidArgument, Unavailable

CONTENT_BYTES_MAX = 1024 * 1024
"""Of a file in one piece, as the contract has it."""

Q = TypeVar("Q")
A = TypeVar("A")


class Numbered(Protocol):
    """What became of a row."""

    @property
    def row(self) -> int:
        """Its number in the file, from 1."""


R = TypeVar("R", bound=Numbered)


def check_size(content: bytes) -> None:
    """
    Refuse a file that no node takes, before it is sent.

    Raises:
        InvalidArgument: It is too large.
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
    Return what became of every row. A node that breaks off is followed by another.

    *request_from* makes the request for the rows from a number on; *read* takes the
    row and the number of all rows from an answer.

    Raises:
        SparecodeError: See there what may be assumed.
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
            raise Unavailable("NO_ANSWER", "a node has answered for no row")
    return tuple(results)
