# SPDX-License-Identifier: Apache-2.0
"""
A certificate alone makes no member: the caller shows the key that the state has (P5a).

The attack: a removed machine has the key of the members' authority. With it, it makes a
certificate in the name of a member, fetches the ring's new key, moves the primary,
announces a successor of its own, and has a certificate signed by it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.calls.peer_calls import PeerCalls
from sparecode_node.replication.errors import NoPrimaryError, NoQuorumError
from sparecode_node.replication.links.key_exchange import KeyExchange, NoKeys
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.links.refusal_log import (
    KINDS_MAX,
    LINE_S,
    RefusalLog,
)
from sparecode_node.replication.links.transport import PeerAddresses, PeerTransport
from sparecode_node.replication.members import key_in
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.replica.engine_thread import EngineThread, LoopCalls
from sparecode_node.replication.replicator import BarrierPassed, Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.joining import fingerprint_of
from sparecode_node.services.cluster.own_key import KeyNotRecordedError, OwnKey
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import NoteMemberKey
from sparecode_node.statemachine.feature_level import FIRST, NEWEST
from sparecode_node.statemachine.tables.membership import member_keys
from tests.replication.cluster import member_tls, new_authority, until
from tests.replication.test_transport import (
    WAIT_S,
    Answering,
    FakeEngine,
    addresses,
    code_of,
    shown,
    stub_of,
    vote,
)
from tests.rpc.edge import MEMBERS, NOW
from tests.rpc.loopback_node import new_id
from tests.security.test_a_member_passes_a_joiner_on import N3, cluster, csr, stub
from tests.services.one_node import OneNode, one_node
from tests.services.two_replicas import NODE

__all__ = ["addresses"]

N1, N2 = NodeId("n1"), NodeId("n2")
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
OTHER = MEMBERS.issue_member("n3", hosts=("n3.example",), now=NOW)
"""A certificate in the name of n3, by the same authority, for another key."""


class Called:
    """Member n1, and the keys that it knows."""

    def __init__(self, members: dict[NodeId, str], authority: Authority) -> None:
        own = PeerAddresses(node_id=N1, listen=members[N1], members=members)
        self.engine = FakeEngine(own)
        self.keys = MemberKeys()
        self.authority, self.address = authority, members[N1]
        self.transport = PeerTransport(
            own,
            member_tls(authority, "n1"),
            "test",
            KeyExchange(NoKeys()),
            member_keys=self.keys,
        )

    async def start(self) -> None:
        self.transport.wire(LoopCalls(asyncio.get_running_loop()))
        await self.transport.start(
            cast("EngineThread", self.engine), cast("PeerCalls", Answering())
        )


@contextlib.asynccontextmanager
async def called(members: dict[NodeId, str]) -> AsyncIterator[Called]:
    running = Called(members, new_authority())
    await running.start()
    try:
        yield running
    finally:
        await running.transport.stop()


def calls_of(member: Any) -> dict[str, Any]:
    """Return every call that a member makes to another one, begun."""
    pb2 = peers_pb2
    return {
        "Link": member.Link(
            iter([frames.encode(vote(1))]), metadata=shown("n2"), wait_for_ready=True
        ),
        "FetchKey": member.FetchKey(pb2.FetchKeyRequest()),
        "HoldKey": member.HoldKey(pb2.HoldKeyRequest()),
        "Forward": member.Forward(pb2.ForwardRequest()),
        "GetReadIndex": member.GetReadIndex(pb2.GetReadIndexRequest()),
        "TransferPrimary": member.TransferPrimary(pb2.TransferPrimaryRequest()),
        "ChangeMembers": member.ChangeMembers(pb2.ChangeMembersRequest()),
        "GetMemberStatus": member.GetMemberStatus(pb2.GetMemberStatusRequest()),
        "Ping": member.Ping(pb2.PingRequest()),
    }


@pytest.mark.asyncio
async def test_the_authoritys_key_makes_no_member(
    addresses: dict[NodeId, str],
) -> None:
    """(P5a) Every call in the name of n2 is refused, also while n2 itself has a link."""
    async with called(addresses) as n1:
        genuine = member_tls(n1.authority, "n2")
        n1.keys.follow({N2: MemberKey(fingerprint=key_in(genuine.certificate))})
        channel, member = stub_of(genuine, n1.address, "n1")
        link = member.Link(wait_for_ready=True, metadata=shown("n2"))
        async with channel, asyncio.timeout(WAIT_S):
            await link.initial_metadata()
            other, attacker = stub_of(member_tls(n1.authority, "n2"), n1.address, "n1")
            async with other:
                refused = {
                    name: (await code_of(call), await call.details())
                    for name, call in calls_of(attacker).items()
                }
            denied = PERMISSION_DENIED, Refusal.ANOTHER_KEY.value
            assert refused == dict.fromkeys(refused, denied)
            assert ("message", "n2", 1) not in n1.engine.guard.events
            # The member goes on.
            await member.Ping(peers_pb2.PingRequest())
            await member.TransferPrimary(peers_pb2.TransferPrimaryRequest())
            await member.FetchKey(peers_pb2.FetchKeyRequest())
            link.cancel()


@pytest.mark.asyncio
async def test_a_refused_node_fills_no_log(
    addresses: dict[NodeId, str], caplog: pytest.LogCaptureFixture
) -> None:
    """(P5a) It pings every second. The line names the key, for its operator to compare."""
    async with called(addresses) as n1:
        n1.keys.follow({N2: MemberKey(fingerprint="0" * 64)})
        other = member_tls(n1.authority, "n2")
        channel, member = stub_of(other, n1.address, "n1")
        async with channel:
            for _ in range(10):
                ping = member.Ping(peers_pb2.PingRequest(), wait_for_ready=True)
                assert await code_of(ping) is PERMISSION_DENIED
            removed = member.GetMemberStatus(peers_pb2.GetMemberStatusRequest())
            assert await code_of(removed) is PERMISSION_DENIED
    (line,) = (each for each in caplog.records if each.message == "stranger_refused")
    assert vars(line)["key"] == key_in(other.certificate)
    assert vars(line)["cause"] == Refusal.ANOTHER_KEY.value


def test_equal_refusals_share_a_line_in_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another cause or key has its own. Too many keys share one, also with their count."""
    now_s = 0.0
    lines = RefusalLog(logging.getLogger("test"), lambda: now_s)
    for _ in range(5):
        lines.write("ipv4:192.0.2.1:9", "n2", "another key", "aa")
        lines.write("ipv4:192.0.2.1:9", "n2", "removed", "aa")
    assert len(caplog.records) == 2
    now_s += LINE_S
    lines.write("ipv4:192.0.2.1:9", "n2", "another key", "aa")
    assert vars(caplog.records[-1])["repetitions"] == 4
    caplog.clear()
    for number in range(3 * KINDS_MAX):
        lines.write("ipv4:192.0.2.1:9", "n2", "another key", f"{number:064}")
    assert len(caplog.records) == KINDS_MAX
    now_s += LINE_S
    for _ in range(2):
        lines.write("ipv4:192.0.2.1:9", "n2", "another key", "bb")
    assert vars(caplog.records[-1])["key"] == "bb"


@pytest.mark.asyncio
async def test_a_renewed_certificate_has_the_same_key(
    addresses: dict[NodeId, str],
) -> None:
    """(P5a) So it is accepted at once; and the operator of a node may accept another."""
    async with called(addresses) as n1:
        first = member_tls(n1.authority, "n2")
        key = key_in(first.certificate)
        n1.keys.follow({N2: MemberKey(fingerprint="0" * 64)})
        channel, member = stub_of(first, n1.address, "n1")
        async with channel:
            ping = member.Ping(peers_pb2.PingRequest(), wait_for_ready=True)
            assert await code_of(ping) is PERMISSION_DENIED
            n1.keys.permitted = {"n2": key}
            await member.Ping(peers_pb2.PingRequest())
            n1.keys.permitted = {"n3": key}
            assert await code_of(member.Ping(peers_pb2.PingRequest())) is (
                PERMISSION_DENIED
            )
            n1.keys.follow({N2: MemberKey(fingerprint="0" * 64, former=key)})
            await member.Ping(peers_pb2.PingRequest())


@pytest.mark.asyncio
async def test_a_link_ends_when_its_key_is_not_the_members_any_more(
    addresses: dict[NodeId, str],
) -> None:
    """(P5a) The key was stolen, and the operator has replaced it."""
    async with called(addresses) as n1:
        stolen = member_tls(n1.authority, "n2")
        n1.keys.follow({N2: MemberKey(fingerprint=key_in(stolen.certificate))})
        channel, member = stub_of(stolen, n1.address, "n1")
        async with channel, asyncio.timeout(WAIT_S):
            link = member.Link(wait_for_ready=True, metadata=shown("n2"))
            await until(lambda: N2 in n1.transport._servicer._inbound)
            n1.keys.follow({N2: MemberKey(fingerprint="0" * 64)})
            assert await code_of(link) is grpc.StatusCode.ABORTED


@pytest.mark.asyncio
async def test_a_link_ends_when_the_operator_accepts_its_key_no_more(
    addresses: dict[NodeId, str],
) -> None:
    """(P5a) Not only the next one: a link lasts for up to half an hour."""
    async with called(addresses) as n1:
        accepted = member_tls(n1.authority, "n2")
        n1.keys.follow({N2: MemberKey(fingerprint="0" * 64)})
        n1.keys.permit({"n2": key_in(accepted.certificate)})
        channel, member = stub_of(accepted, n1.address, "n1")
        async with channel, asyncio.timeout(WAIT_S):
            link = member.Link(wait_for_ready=True, metadata=shown("n2"))
            await until(lambda: N2 in n1.transport._servicer._inbound)
            n1.keys.permit({})
            assert await code_of(link) is grpc.StatusCode.ABORTED


@pytest.mark.asyncio
async def test_no_certificate_is_signed_for_another_key(tmp_path: Path) -> None:
    """(P5a) Neither for a caller with another key, nor for another key than the member's."""
    async with cluster(tmp_path) as running:
        key = ec.generate_private_key(ec.SECP256R1())
        request = pb.RenewCertificateRequest(certificate_request=csr(key))
        keys = running.authority.servicer._member_keys
        keys.follow({NodeId("n3"): MemberKey(fingerprint=key_in(N3.certificate))})
        async with stub(running.authority, OTHER) as forger:
            renewal = forger.RenewCertificate(request, timeout=60)
            assert await code_of(renewal) is PERMISSION_DENIED
            passed = forger.Join(
                pb.JoinRequest(ticket_certificate=running.called.doors[0]), timeout=60
            )
            assert await code_of(passed) is PERMISSION_DENIED
        note(running.node, "n3", key_in(N3.certificate))
        async with stub(running.authority, N3) as member:
            renewal = member.RenewCertificate(request, timeout=60)
            assert await code_of(renewal) is grpc.StatusCode.FAILED_PRECONDITION
        note(running.node, "n3", fingerprint_of(key.public_key()))
        running.node.clock.now += 10_000
        async with stub(running.authority, N3) as member:
            await member.RenewCertificate(request, timeout=60)


def note(node: OneNode, member: str, fingerprint: str) -> None:
    """Record a key as its member does."""
    own = NodeId(member)
    command = NoteMemberKey(node_id=own, fingerprint=fingerprint)
    call = UnstampedCall.of_node(own, command, RequestId(new_id()))
    node.replicator.commit([Proposal(call=call)])


def events(node: OneNode) -> int:
    """Return the number of events in the audit log."""
    (count,) = node.primary_db.execute("SELECT count(*) FROM audit_events").fetchone()
    return int(count)


class Own:
    """What a node shows, and the task that records it."""

    def __init__(self, node: OneNode) -> None:
        self.node = node
        self.shown = "k1"
        self.level = NEWEST
        self.task = OwnKey(
            replicator=node.replicator,
            entropy=SystemEntropy(),
            shown=lambda: self.shown,
            recorded=self.recorded,
            feature_level=lambda: self.level,
            applied_s=0.2,
        )

    def recorded(self) -> MemberKey | None:
        return member_keys(self.node.primary_db).get(NODE)


@pytest.mark.asyncio
async def test_a_member_tells_its_own_key_once(tmp_path: Path) -> None:
    """(P5a) From the level on that has such a record."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        own.level = FIRST
        await own.task.step()
        assert own.recorded() is None
        own.level = NEWEST
        await own.task.step()
        assert own.recorded() == MemberKey(fingerprint="k1")
        before = len(node.replicator.entries)
        await own.task.step()
        assert len(node.replicator.entries) == before


@pytest.mark.asyncio
async def test_another_key_is_recorded_before_it_is_shown(tmp_path: Path) -> None:
    """(P5a) Until then, and until the member shows it, the present one is valid."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        await own.task.replace("k1")
        assert own.recorded() == MemberKey(fingerprint="k1")
        await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")
        assert node.replicator.transfers == []
        own.shown = "k2"
        await own.task.step()
        assert own.recorded() == MemberKey(fingerprint="k2")


@pytest.mark.asyncio
async def test_a_record_that_this_node_has_not_applied_yet_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P5a) The others know the present key, and would refuse the new one."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        applied = own.recorded
        barrier = node.replicator.read_barrier
        own.level = FIRST
        monkeypatch.setattr(own.task, "_recorded", lambda: None)

        async def passed(*, timeout_s: float) -> BarrierPassed:
            own.level = NEWEST
            monkeypatch.setattr(own.task, "_recorded", applied)
            return await barrier(timeout_s=timeout_s)

        monkeypatch.setattr(node.replicator, "read_barrier", passed)
        await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("level", "key", "shown"),
    [(NEWEST, "k1", True), (NEWEST, "k2", False), (FIRST, "k2", True)],
    ids=["same key", "another key", "release 0.1.0"],
)
async def test_what_may_be_shown_without_a_quorum(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: int,
    key: str,
    shown: bool,
) -> None:
    """(P5a) If all certificates have expired, only new ones bring the quorum back."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        own.level = level

        async def none(*, timeout_s: float) -> BarrierPassed:
            raise NoQuorumError(f"no contact to a quorum for {timeout_s} s")

        monkeypatch.setattr(node.replicator, "read_barrier", none)
        refused = contextlib.nullcontext() if shown else pytest.raises(NoQuorumError)
        with refused:
            await own.task.replace(key)
        assert own.recorded() is None


@pytest.mark.asyncio
async def test_the_shown_key_stays_valid_while_a_third_one_replaces_the_second(
    tmp_path: Path,
) -> None:
    """(P5a) The others accept the last two, and the second was never shown."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        node.replicator.lagging = {"n0"}
        for key in ("k2", "k3"):
            with pytest.raises(KeyNotRecordedError):
                await own.task.replace(key)
            assert own.recorded() == MemberKey(fingerprint=key, former="k1")


@pytest.mark.asyncio
async def test_a_key_that_was_never_recorded_stays_valid(tmp_path: Path) -> None:
    """(P5a) Its own record may be on its way: it would make the new key void."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")


@pytest.mark.asyncio
async def test_a_primary_hands_over_before_it_shows_another_key(
    tmp_path: Path,
) -> None:
    """(P5a) A member without the record would refuse it, and so never get the record."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        node.replicator.leads = True
        await own.task.step()
        await own.task.replace("k1")
        assert node.replicator.transfers == []
        await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")
        assert node.replicator.transfers == [None]
        # The handover may fail once: the next try begins with it.
        await own.task.replace("k2")
        assert node.replicator.transfers == [None, None]
        node.replicator.gone = {"n0", "n3"}
        await own.task.replace("k2")
        assert node.replicator.transfers == [None, None]


@pytest.mark.asyncio
async def test_a_key_is_not_shown_until_running_members_know_it(
    tmp_path: Path,
) -> None:
    """
    (P5a) They would refuse it, and hear nothing from a primary that shows it.

    A member that is down is not awaited. The next try records nothing again.
    """
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        node.replicator.lagging = {"n0"}
        with pytest.raises(KeyNotRecordedError, match="n0: has not applied the record"):
            await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")
        node.replicator.lagging = set()
        node.replicator.busy = {"n3"}
        before = events(node)
        with pytest.raises(KeyNotRecordedError, match="n3: has not applied the record"):
            await own.task.replace("k2")
        node.replicator.busy = set()
        await own.task.replace("k2")
        assert events(node) == before


@pytest.mark.asyncio
async def test_a_key_is_not_shown_while_no_status_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P5a) On a machine that is too busy to ask, any member may lack the record."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()

        async def never(**_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(node.replicator, "status", never)
        with pytest.raises(KeyNotRecordedError, match="not known"):
            await own.task.replace("k2")


@pytest.mark.asyncio
async def test_the_former_key_that_is_shown_again_voids_no_new_one(
    tmp_path: Path,
) -> None:
    """(P5a) After an attempt with an unknown outcome, the old key is told a second time."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        await own.task.replace("k2")
        await own.task.step()
        assert own.recorded() == MemberKey(fingerprint="k1", former="k2")
        await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k2", former="k1")


@pytest.mark.asyncio
async def test_a_key_is_not_shown_without_its_record(tmp_path: Path) -> None:
    """(P5a) The others would refuse it. The node keeps the present one and tries again."""
    async with one_node(tmp_path) as node:
        own = Own(node)
        await own.task.step()
        node.replicator.down = NoPrimaryError("no primary")
        with pytest.raises((KeyNotRecordedError, NoPrimaryError)):
            await own.task.replace("k2")
        assert own.recorded() == MemberKey(fingerprint="k1")
