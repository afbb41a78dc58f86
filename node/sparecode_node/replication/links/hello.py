# SPDX-License-Identifier: Apache-2.0
"""What both ends of a link say of themselves when it begins, in its metadata."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from sparecode.internal.v1 import peers_pb2
from sparecode_node.replication.levels import level_of_peer
from sparecode_node.replication.raft.admission import Hello

HELLO = "sparecode-hello-bin"
"""The key of a `Hello`; gRPC allows bytes under a key with this ending."""

REFUSAL_S = 0.05
"""A refused call ends this soon after its initial metadata."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the called member shows."""

    hello: Hello
    level: int


def hello_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> peers_pb2.Hello:
    """Return what a node shows; an empty message if it is missing or malformed."""
    for key, value in metadata or ():
        if key == HELLO and isinstance(value, bytes):
            try:
                return peers_pb2.Hello.FromString(value)
            except DecodeError:
                break
    return peers_pb2.Hello()


async def introduction_of(
    call: "grpc.aio.StreamUnaryCall[Any, Any]",
) -> Introduction | None:
    """Return what the called member shows, or None if it ends the call instead."""
    hello = hello_in(await call.initial_metadata())
    if not hello.journal_id:  # A node that refuses this one shows none.
        ending = asyncio.ensure_future(call.code())
        done, _ = await asyncio.wait({ending}, timeout=REFUSAL_S)
        ending.cancel()
        if done:
            return None
    return Introduction(
        Hello(hello.journal_id, hello.address), await level_of_peer(call)
    )
