# SPDX-License-Identifier: Apache-2.0
"""
A stolen member's certificate on the live peer ports changes nothing.

Bytes that are no frame end the link, frames of an earlier time are dropped, and no
bytes from the network ever become a Python object.
"""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from local_cluster.cluster import LocalCluster, LocalNode

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.hello import HELLO, to_message
from sparecode_node.replication.links.tls import target_name
from sparecode_node.replication.links.transport import MESSAGE_BYTES_MAX
from sparecode_node.replication.log import boots
from sparecode_node.replication.offline.inspection import read_journal
from sparecode_node.replication.raft.rollback import Hello
from tests.system.estate import PIN, Estate
from tests.system.test_strangers import rows, settled_rows

pytestmark = pytest.mark.asyncio

THIEF = "n2"
ATTEMPTS = 10
CLOSED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def no_frames(mark: Path) -> Iterator[bytes]:
    """Yield bytes that are no message between members."""
    evil = pickle.dumps(Touch(mark))
    yield evil
    yield pickle.dumps({"type": "append_entries", "entries": [evil]})
    yield b"\xff" * 64
    yield bytes(MESSAGE_BYTES_MAX + 1)


def replayed(mark: Path) -> Iterator[peers_pb2.LinkRequest]:
    """Yield frames of a term that has passed, with a pickle wherever bytes may be."""
    evil = pickle.dumps(Touch(mark))
    for kind in range(4):  # As PySyncObj marks its commands, and ours.
        entry = peers_pb2.RaftEntry(command=bytes([kind]) + evil, index=2, term=0)
        yield peers_pb2.LinkRequest(
            append_entries=peers_pb2.AppendEntries(
                term=0, commit_index=10**6, entries=[entry]
            )
        )
    yield peers_pb2.LinkRequest(
        acknowledge=peers_pb2.Acknowledge(term=0, next_index=10**6, success=True)
    )
    yield peers_pb2.LinkRequest(grant_vote=peers_pb2.GrantVote(term=0))
    yield peers_pb2.LinkRequest(
        request_vote=peers_pb2.RequestVote(
            term=0, last_log_index=10**6, last_log_term=10**6
        )
    )
    yield peers_pb2.LinkRequest(confirm_term=peers_pb2.ConfirmTerm(term=0, round=10**6))
    yield peers_pb2.LinkRequest(
        offer_snapshot=peers_pb2.OfferSnapshot(term=0, index=10**6)
    )
    yield peers_pb2.LinkRequest(
        hand_over=peers_pb2.HandOver(term=0, last_log_index=10**6, last_log_term=10**6)
    )


def stolen_hello(cluster: LocalCluster) -> bytes:
    """
    Return what the member shows of itself, its journal's name and starts with it.

    The thief claims a position after every promise that the member has made.
    """
    (data,) = (
        n.directory / "data" / "journal" for n in cluster.nodes if n.node_id == THIEF
    )
    facts = read_journal(data)
    member = facts.configuration.member(NodeId(THIEF))
    assert member
    assert member.journal_id
    slots = (data / boots.NAME).read_bytes()
    newest, other = (
        boots._read_slot(slots[at : at + boots.SLOT_BYTES].rstrip(b"\0")) or {}
        for at in (0, boots.SLOT_BYTES)
    )
    if other.get("version", 0) > newest.get("version", 0):
        newest = other
    position = (10**6, 10**6, 10**6)
    hello = Hello(
        member.journal_id,
        member.address,
        tuple(boots.Boot(n, nonce, tuple(at)) for n, nonce, at in newest["boots"]),
        position,
    )
    return to_message(facts.cluster_id, hello).SerializeToString()


def send(cluster: LocalCluster, node: LocalNode, frames: list[bytes]) -> grpc.Future:
    """
    Send bytes over a link to *node* as the thief; return the call when it has ended.

    The member itself links again at once. If its link comes before the bytes, the node
    ends the thief's call as `ABORTED`: send them again.
    """
    for _ in range(ATTEMPTS):
        call = _sent(cluster, node, frames)
        if call.code() is not grpc.StatusCode.ABORTED:
            break
    return call


def _sent(cluster: LocalCluster, node: LocalNode, frames: list[bytes]) -> grpc.Future:
    path = cluster.certificates / THIEF
    credentials = grpc.ssl_channel_credentials(
        cluster.members_ca.read_bytes(),
        private_key=path.with_suffix(".key").read_bytes(),
        certificate_chain=path.with_suffix(".pem").read_bytes(),
    )
    options = (
        ("grpc.ssl_target_name_override", target_name(node.node_id)),
        ("grpc.use_local_subchannel_pool", 1),
    )
    with grpc.secure_channel(
        f"127.0.0.1:{node.ports.peers}", credentials, options=options
    ) as channel:
        link = channel.stream_unary(
            "/sparecode.internal.v1.PeerService/Link",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        shown = ((HELLO, stolen_hello(cluster)),)
        call = link.future(iter(frames), timeout=60, metadata=shown)
        call.exception()  # Waits for the end.
    return call


async def test_hostile_frames_change_nothing(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Pickles, an oversized frame, and a replayed stream, on the ports of live nodes."""
    mark = tmp_path / "unpickled"
    async with Estate(cluster) as estate:
        holder = await estate.holder("target", codes=3)
        await estate.until_equal()
        before = settled_rows(cluster)
        lives = [node.pid for node in cluster.nodes]
        for node in cluster.nodes:
            if node.node_id == THIEF:
                continue
            for data in no_frames(mark):
                assert send(cluster, node, [data]).code() in CLOSED
            stream = [frame.SerializeToString() for frame in replayed(mark)]
            send(cluster, node, stream)
            send(cluster, node, stream * 2)
        assert [rows(node) for node in cluster.nodes] == before
        assert not mark.exists()

        for code in holder.codes[:2]:
            assert (await estate.any_agent.authenticate("target", PIN + code)).accepted
            for agent in estate.agents.values():
                assert not (await agent.authenticate("target", PIN + code)).accepted
        assert await estate.until_equal()
    assert [node.pid for node in cluster.nodes] == lives
    assert all(node.running for node in cluster.nodes)
