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
from sparecode_node.replication.log.boots import KEPT_MAX, Boot, Position
from sparecode_node.replication.log.skips import SHOWN_MAX
from sparecode_node.replication.raft.rollback import Hello

HELLO = "sparecode-hello-bin"
"""The key of a `Hello`; gRPC allows bytes under a key with this ending."""

REFUSAL_S = 0.05
"""A refused call ends this soon after its initial metadata."""


NONCE_MAX = 64
"""Characters of the random number of a start; current ones have 16."""


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


def to_message(cluster_id: str, hello: Hello) -> peers_pb2.Hello:
    """Return what this node shows, as a message."""
    return peers_pb2.Hello(
        cluster_id=cluster_id,
        journal_id=hello.journal_id,
        address=hello.address,
        boots=[
            peers_pb2.Boot(
                number=boot.number,
                nonce=boot.nonce,
                began=_to_position(boot.began),
            )
            for boot in hello.boots
        ],
        position=_to_position(hello.position),
        applied_index=hello.applied_index,
        skipped=[
            peers_pb2.SkippedEntry(index=index, digest=bytes.fromhex(digest))
            for index, digest in hello.skipped
        ],
    )


def from_message(shown: peers_pb2.Hello) -> Hello:
    """Return what another node shows; its starts are bounded, because they are kept."""
    boots = [
        Boot(boot.number, boot.nonce[:NONCE_MAX], _from_position(boot.began))
        for boot in shown.boots[-KEPT_MAX:]
    ]
    position = _from_position(shown.position)
    skipped = [(each.index, each.digest.hex()) for each in shown.skipped[-SHOWN_MAX:]]
    return Hello(
        shown.journal_id,
        shown.address,
        tuple(boots),
        position,
        shown.applied_index,
        tuple(skipped),
    )


def _to_position(position: Position) -> peers_pb2.LogPosition:
    term, entry_term, entry_index = position
    return peers_pb2.LogPosition(
        term=term, entry_term=entry_term, entry_index=entry_index
    )


def _from_position(shown: peers_pb2.LogPosition) -> Position:
    return shown.term, shown.entry_term, shown.entry_index


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
    return Introduction(from_message(hello), await level_of_peer(call))
