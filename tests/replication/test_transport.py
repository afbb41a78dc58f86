# SPDX-License-Identifier: Apache-2.0
"""Members over real gRPC and mutual TLS: order, fences, strangers, sizes."""

import asyncio
import contextlib
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self, cast

import grpc
import grpc.aio
import pytest
from local_cluster.cluster import free_ports

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.console.server import CONNECTIONS_MAX
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.calls.forward_queue import UNDER_WAY_MAX
from sparecode_node.replication.calls.peer_calls import PeerCalls
from sparecode_node.replication.calls.peer_messages import ask_status
from sparecode_node.replication.errors import OutcomeUnknownError, StoppingError
from sparecode_node.replication.links import limits, peer_service, transport
from sparecode_node.replication.links import outbound as links
from sparecode_node.replication.links.key_exchange import KeyExchange, NoKeys
from sparecode_node.replication.links.limits import (
    MEMBER_CALLS_MAX,
    STREAMS_MAX,
    Connections,
)
from sparecode_node.replication.links.peer_service import PeerServicer
from sparecode_node.replication.links.tls import PeerTls, caller, target_name
from sparecode_node.replication.links.transport import (
    MESSAGE_BYTES_MAX,
    PeerAddresses,
    PeerTransport,
)
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.owned_tasks import OnFailed
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import ADVICE, Refusal
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.engine_thread import EngineThread, LoopCalls
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.rpc.server import ADMIN_CALLS
from tests.replication.cluster import member_tls, new_authority, until

pytestmark = pytest.mark.asyncio

WAIT_S = 60


def journal_of(member: str) -> str:
    """Return the name of a member's journal in these tests."""
    return f"journal of {member}"


def shown(member: str, **other: str) -> tuple[tuple[str, bytes], ...]:
    """Return what a member shows when it opens a link."""
    says = {"journal_id": journal_of(member), **other}
    data = peers_pb2.Hello(**{"cluster_id": "test", **says}).SerializeToString()
    return ((links.HELLO, data),)


class FakeGuard:
    """Keeps what reaches the engine."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.changed = asyncio.Event()

    def _add(self, *event: Any) -> None:
        self.events.append(event)
        self.changed.set()

    def connected(self, peer: str, hello: Hello) -> None:
        assert hello.journal_id == journal_of(peer)
        self._add("connected", peer)

    def disconnected(self, peer: str) -> None:
        self._add("disconnected", peer)

    def receive(self, peer: str, message: Message, hello: Hello) -> None:
        assert hello.journal_id == journal_of(peer)
        self._add("message", peer, message["term"])


class FakeEngine:
    """Runs jobs at once, in the loop."""

    def __init__(self, addresses: PeerAddresses) -> None:
        self.guard = FakeGuard()
        self.full = False
        configuration = Configuration.of(addresses.written())
        self.current = ReplicaStatus(configuration=configuration, agreed=configuration)
        self.shown = Hello(
            journal_of(addresses.node_id), addresses.members[addresses.node_id]
        )
        self.older_copies: set[str] = set()
        self.refused_by = ""
        self.told = asyncio.Event()

    def status(self) -> ReplicaStatus:
        return self.current

    def hello(self) -> Hello:
        return self.shown

    def refusal_of_link(self, peer: str, hello: Hello) -> Refusal | None:
        assert hello.journal_id == journal_of(peer)
        return Refusal.ROLLED_BACK if peer in self.older_copies else None

    def hear_nothing(self, member: str) -> None:
        self.refused_by = member
        self.told.set()

    async def run(self, job: Callable[[Any], object], *, timeout_s: float) -> Any:
        assert timeout_s > 0
        return job(self)

    def has_room(self) -> bool:
        return not self.full

    def post(self, job: Callable[[Any], object]) -> None:
        job(self)


class Answering:
    """Answers every caller that gets this far."""

    def __init__(self) -> None:
        self.snapshots = self.changes = self

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: object) -> Any:
            return {
                "forward": peers_pb2.ForwardResponse,
                "read_index": peers_pb2.GetReadIndexResponse,
                "answer_transfer": peers_pb2.TransferPrimaryResponse,
                "answer_change": peers_pb2.ChangeMembersResponse,
                "member_status": peers_pb2.GetMemberStatusResponse,
            }[name]()

        return answer

    async def send(self, *_: object) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        yield peers_pb2.FetchSnapshotResponse()


class End:
    """One member's transport, with a fake engine behind it."""

    def __init__(
        self,
        addresses: PeerAddresses,
        tls: PeerTls,
        patience_s: float = transport.DEFAULTS.election_min_s,
        on_failed: OnFailed = lambda _: None,
    ) -> None:
        self.engine = FakeEngine(addresses)
        self.transport = PeerTransport(
            addresses,
            tls,
            "test",
            KeyExchange(NoKeys()),
            patience_s=patience_s,
            on_failed=on_failed,
        )

    async def start(self) -> None:
        self.wire = self.transport.wire(LoopCalls(asyncio.get_running_loop()))
        await self.transport.start(
            cast("EngineThread", self.engine), cast("PeerCalls", Answering())
        )

    async def until_seen(self, *event: Any, times: int = 1) -> None:
        """Return when the engine has seen an event this many times."""
        async with asyncio.timeout(WAIT_S):
            while self.engine.guard.events.count(event) < times:
                self.engine.guard.changed.clear()
                await self.engine.guard.changed.wait()

    def terms(self, peer: str) -> list[int]:
        return [e[2] for e in self.engine.guard.events if e[:2] == ("message", peer)]


def vote(term: int) -> Message:
    return {"type": frames.RESPONSE_VOTE, "term": term}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority()


@pytest.fixture
def addresses() -> dict[NodeId, str]:
    ports = free_ports(3)
    return {NodeId(f"n{i + 1}"): f"127.0.0.1:{port}" for i, port in enumerate(ports)}


@contextlib.asynccontextmanager
async def ends(
    authority: Authority, addresses: dict[NodeId, str], *ids: str
) -> AsyncIterator[list[End]]:
    made = [
        End(
            PeerAddresses(
                node_id=NodeId(i), listen=addresses[NodeId(i)], members=addresses
            ),
            member_tls(authority, i),
        )
        for i in ids
    ]
    for end in made:
        await end.start()
    try:
        yield made
    finally:
        for end in made:
            await end.transport.stop()


def stub_of(tls: PeerTls, address: str, called: str) -> tuple[grpc.aio.Channel, Any]:
    """Return a way to call a member with any certificate."""
    channel = grpc.aio.secure_channel(
        address,
        tls.channel_credentials(),
        options=[
            ("grpc.ssl_target_name_override", target_name(NodeId(called))),
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )
    return channel, peers_pb2_grpc.PeerServiceStub(channel)


class Dialing:
    """A link to n2 that is dialed by hand."""

    def __init__(self, authority: Authority, address: str) -> None:
        tls = member_tls(authority, "n1")
        self.channel = transport.dial(NodeId("n2"), address, tls)
        self.calls: list[Any] = []
        self.dialed = asyncio.Event()
        self.up = asyncio.Event()
        self.hitches: list[Exception] = []
        self.link = links.OutboundLink(
            NodeId("n2"),
            self.channel,
            hello=self._show,
            on_up=self._take_up,
            on_down=lambda _peer: None,
            on_refused=lambda _peer, _why: None,
        )
        self._stub = self.link._stub
        self.link._stub = cast("Any", self)

    async def _show(self) -> bytes:
        return shown("n1")[0][1]

    def Link(self, **options: Any) -> Any:
        call = self._stub.Link(**options)
        self.calls.append(call)
        self.dialed.set()
        return call

    def _take_up(self, *_: object) -> None:
        if self.hitches:
            raise self.hitches.pop()
        self.up.set()

    async def until_up(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.up.wait()

    async def __aenter__(self) -> Self:
        self.link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.stop()
        await self.channel.close()


async def test_a_call_that_grpc_cancels_ends_one_link_and_not_the_dialing(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with (
        Dialing(authority, addresses[NodeId("n2")]) as dialing,
        ends(authority, addresses, "n2"),
    ):
        await dialing.dialed.wait()
        dialing.calls[0].cancel()
        await dialing.until_up()
        async with asyncio.timeout(WAIT_S):
            await until(lambda: len(dialing.calls) > 1)


async def test_a_link_ends_with_the_task_that_runs_it(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """A closing loop cancels what is left: the link must not dial on forever."""
    async with (
        Dialing(authority, addresses[NodeId("n2")]) as dialing,
        ends(authority, addresses, "n2"),
    ):
        await dialing.dialed.wait()
        task = dialing.link._task
        assert task is not None
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=WAIT_S)
        assert done
        assert task.cancelled()


async def test_a_link_that_has_ended_connects_no_more(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """The address of a removed member may be that of another one by now."""
    connections = 0

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    host, _, port = addresses[NodeId("n2")].rpartition(":")
    server = await asyncio.start_server(refuse, host, int(port))
    async with server, asyncio.timeout(WAIT_S):
        async with Dialing(authority, addresses[NodeId("n2")]):
            await until(lambda: connections > 1)
        before = connections
        # gRPC connects again after half a second at most.
        await asyncio.sleep(1.5)
        assert connections <= before + 1  # One may have been on its way.


async def test_an_unexpected_error_ends_one_link_and_not_the_dialing(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with Dialing(authority, addresses[NodeId("n2")]) as dialing:
        dialing.hitches.append(ValueError("what a member shows cannot be read"))
        async with ends(authority, addresses, "n2"):
            await dialing.until_up()
    assert dialing.hitches == []


async def test_a_link_that_cannot_be_written_to_ends(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """Otherwise it would look up while nothing arrives."""
    sizes = iter([1])  # When it is queued, and not when it is written.
    no_frame = SimpleNamespace(ByteSize=lambda: next(sizes))
    async with (
        Dialing(authority, addresses[NodeId("n2")]) as dialing,
        ends(authority, addresses, "n2"),
    ):
        await dialing.until_up()
        dialing.up.clear()
        dialing.link.send(dialing.link.epoch, cast("Any", no_frame))
        await dialing.until_up()


async def test_messages_arrive_in_order(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await one.until_seen("connected", "n2")
        await two.until_seen("connected", "n1")
        for term in range(1, 2001):
            one.wire.send("n2", vote(term))
        await two.until_seen("message", "n1", 2000)
        assert two.terms("n1") == list(range(1, 2001))


async def test_a_member_that_comes_back_is_reached_again(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        for _ in range(2):
            async with ends(authority, addresses, "n2") as (two,):
                await one.until_seen("connected", "n2")
                one.wire.send("n2", vote(1))
                await two.until_seen("message", "n1", 1)
            await one.until_seen("disconnected", "n2")
            one.engine.guard.events.clear()


async def test_what_was_meant_for_an_earlier_link_is_not_sent_on_the_newer(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """
    It may be on its way from the engine when the link ends (invariant 6).

    Behind what the earlier one has lost it would leave a gap, out of order.
    """
    n2 = NodeId("n2")
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await one.until_seen("connected", n2)
        link = one.transport._links[n2]
        earlier, call = link.epoch, link._call
        assert call is not None
        call.cancel()
        await one.until_seen("connected", n2, times=2)
        link.send(earlier, frames.encode(vote(1)))
        one.wire.send(n2, vote(2))
        await two.until_seen("message", "n1", 2)
        assert two.terms("n1") == [2]


async def test_a_newer_link_ends_the_older_one(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """Nothing of the old connection is delivered after the new one is up (10)."""
    async with ends(authority, addresses, "n1") as (one,):
        tls = member_tls(authority, "n2")
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        other, other_stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        old = stub.Link(wait_for_ready=True, metadata=shown("n2"))
        await old.initial_metadata()
        await old.write(frames.encode(vote(1)))
        await one.until_seen("message", "n2", 1)
        new = other_stub.Link(wait_for_ready=True, metadata=shown("n2"))
        await new.initial_metadata()
        async with asyncio.timeout(WAIT_S):
            assert await old.code() is not grpc.StatusCode.OK
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await old.write(frames.encode(vote(2)))
        await new.write(frames.encode(vote(3)))
        await one.until_seen("message", "n2", 3)
        assert one.terms("n2") == [1, 3]
        new.cancel()
        await channel.close()
        await other.close()


async def code_of(call: Any) -> grpc.StatusCode:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize("who", ["n9", "n1"], ids=["no member", "the member itself"])
async def test_a_caller_that_is_no_other_member_is_refused(
    authority: Authority, addresses: dict[NodeId, str], who: str
) -> None:
    """The authority vouches for the name; the configuration decides who is a member."""
    async with ends(authority, addresses, "n1") as (one,):
        tls = member_tls(authority, who)
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        calls = [
            stub.Forward(peers_pb2.ForwardRequest(), wait_for_ready=True),
            stub.GetMemberStatus(peers_pb2.GetMemberStatusRequest()),
            stub.Link(iter([frames.encode(vote(1))])),
        ]
        codes = [await code_of(call) for call in calls]
        assert codes == [grpc.StatusCode.PERMISSION_DENIED] * 3
        assert one.terms(who) == []
        await channel.close()


@pytest.mark.parametrize(
    ("names", "member"),
    [
        ([b"sparecode://member/n2", b"n2.members.sparecode"], "n2"),
        ([b"sparecode://member/n2", b"sparecode://member/n3"], None),
        ([b"sparecode://joiner/n2"], None),
        ([b"n2.members.sparecode"], None),
        ([], None),
    ],
)
async def test_a_certificate_is_of_one_member_or_of_none(
    names: list[bytes], member: str | None
) -> None:
    assert caller({"x509_subject_alternative_name": names}) == member


async def test_the_certificate_of_another_authority_is_refused(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        forged = member_tls(new_authority(), "n2")
        tls = PeerTls(certificate=forged.certificate, key=forged.key, ca=authority.pem)
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        call = stub.Forward(peers_pb2.ForwardRequest(), timeout=WAIT_S)
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        assert one.engine.guard.events == []
        await channel.close()


async def test_a_caller_without_a_certificate_is_refused(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1"):
        channel = grpc.aio.secure_channel(
            addresses[NodeId("n1")],
            grpc.ssl_channel_credentials(root_certificates=authority.pem),
            options=[("grpc.ssl_target_name_override", target_name(NodeId("n1")))],
        )
        stub: Any = peers_pb2_grpc.PeerServiceStub(channel)
        call = stub.Forward(peers_pb2.ForwardRequest(), timeout=WAIT_S)
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        await channel.close()


async def test_an_agent_of_the_same_authority_is_no_member(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """No URI of a member: not even if everything else is right."""
    async with ends(authority, addresses, "n1"):
        import datetime as dt  # noqa: PLC0415

        issued = authority.issue_agent("vpn", now=dt.datetime.now(dt.UTC))
        tls = PeerTls(certificate=issued.certificate, key=issued.key, ca=authority.pem)
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        call = stub.Forward(peers_pb2.ForwardRequest(), timeout=WAIT_S)
        assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
        await channel.close()


async def test_an_answer_in_another_members_name_is_not_believed(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """A wrong address does not lead a member astray."""
    swapped = {**addresses, NodeId("n2"): addresses[NodeId("n3")]}
    async with (
        ends(authority, addresses, "n3") as (three,),
        ends(authority, swapped, "n1") as (one,),
    ):
        await three.until_seen("connected", "n1")
        await one.until_seen("connected", "n3")
        assert ("connected", "n2") not in one.engine.guard.events


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        (
            pickle.dumps({"type": "status"}),
            {grpc.StatusCode.INVALID_ARGUMENT},
        ),
        # Before any code reads its content.
        (bytes(MESSAGE_BYTES_MAX + 1), {grpc.StatusCode.RESOURCE_EXHAUSTED}),
    ],
    ids=["a pickle", "too large"],
)
async def test_what_is_no_frame_ends_the_link(
    authority: Authority,
    addresses: dict[NodeId, str],
    data: bytes,
    codes: set[grpc.StatusCode],
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        tls = member_tls(authority, "n2")
        channel, _ = stub_of(tls, addresses[NodeId("n1")], "n1")
        raw: Any = channel.stream_unary("/sparecode.internal.v1.PeerService/Link")
        call = raw(iter([data]), wait_for_ready=True, metadata=shown("n2"))
        assert await code_of(call) in codes
        assert one.terms("n2") == []
        await channel.close()


@pytest.mark.parametrize(
    ("bound", "value"), [("QUEUE_FRAMES_MAX", 10), ("QUEUE_BYTES_MAX", 60)]
)
async def test_a_queue_that_is_full_ends_the_link_and_leaves_no_gap(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    value: int,
) -> None:
    monkeypatch.setattr(links, bound, value)
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await one.until_seen("connected", "n2")
        for term in range(1, 101):
            one.wire.send("n2", vote(term))
        await one.until_seen("disconnected", "n2")
        await one.until_seen("connected", "n2", times=2)
        one.wire.send("n2", vote(1000))
        await two.until_seen("message", "n1", 1000)
        *before, last = two.terms("n1")
        assert before == list(range(1, len(before) + 1))
        assert len(before) <= 10
        assert last == 1000


async def test_an_engine_that_lags_resets_the_link(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        tls = member_tls(authority, "n2")
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        one.engine.full = True
        frame = frames.encode(vote(1))
        call = stub.Link(iter([frame]), wait_for_ready=True, metadata=shown("n2"))
        assert await code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await channel.close()


# --- Who the members are by now


def became(end: End, configuration: Configuration, *, committed: bool = True) -> None:
    """Tell a transport that there are other members."""
    before = end.engine.current
    agreed = configuration if committed else before.agreed
    after = replace(before, configuration=configuration, agreed=agreed)
    end.engine.current = after
    end.transport.take_status(after)


async def test_a_link_to_a_member_follows_the_configuration(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """It is dialed when it is added, elsewhere when it has moved, and not when it is none."""
    n2 = NodeId("n2")
    begun = {NodeId("n1"): addresses[NodeId("n1")]}
    moved = f"127.0.0.1:{free_ports(1)[0]}"
    async with ends(authority, begun, "n1") as (one,):
        alone = one.engine.current.configuration
        added = alone.with_member(Member(node_id=n2, address=addresses[n2]))
        # They say nothing of themselves: only the one is to dial.
        async with ends(authority, {n2: addresses[n2]}, "n2"):
            became(one, added)
            await one.until_seen("connected", "n2")
            first = one.transport._links[n2].epoch
            became(one, alone.with_member(Member(node_id=n2, address=moved)))
            await one.until_seen("disconnected", "n2")
            async with ends(authority, {n2: moved}, "n2"):
                await one.until_seen("connected", "n2", times=2)
                # Otherwise messages for the first link would be sent on this one.
                assert one.transport._links[n2].epoch > first
                became(one, added.without(n2))
                await one.until_seen("disconnected", "n2", times=2)
                assert one.transport.channel(n2) is None


async def test_a_member_that_has_moved_is_dialed_where_it_says(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """
    The primary writes it down; but there may be none before they have met again.

    So of several that move at once, each that finds one that stayed is found by it.
    """
    n2 = NodeId("n2")
    before = {**addresses, n2: f"127.0.0.1:{free_ports(1)[0]}"}
    async with ends(authority, before, "n1") as (one,):
        async with ends(authority, addresses, "n2"):
            await one.until_seen("connected", "n2")
        await one.until_seen("disconnected", "n2")
        async with ends(authority, before, "n2"):
            await one.until_seen("connected", "n2", times=2)


CALLS: dict[str, Any] = {
    "Forward": peers_pb2.ForwardRequest,
    "GetReadIndex": peers_pb2.GetReadIndexRequest,
    "TransferPrimary": peers_pb2.TransferPrimaryRequest,
    "ChangeMembers": peers_pb2.ChangeMembersRequest,
    "HoldKey": peers_pb2.HoldKeyRequest,
    "GetMemberStatus": peers_pb2.GetMemberStatusRequest,
    "FetchKey": peers_pb2.FetchKeyRequest,
}

STREAMS: dict[str, Any] = {
    "FetchSnapshot": peers_pb2.FetchSnapshotRequest,
    "FetchSegment": peers_pb2.FetchSegmentRequest,
}


async def codes_of_calls(stub: Any) -> dict[str, grpc.StatusCode]:
    """Ask everything, and return what comes of it."""
    codes = {}
    for name, request in CALLS.items():
        codes[name] = await code_of(getattr(stub, name)(request(), wait_for_ready=True))
    for name, request in STREAMS.items():
        parts = getattr(stub, name)(request())
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in parts:
                pass
        codes[name] = await parts.code()
    if codes["FetchSegment"] is grpc.StatusCode.NOT_FOUND:
        codes["FetchSegment"] = grpc.StatusCode.OK  # It was asked, and has none.
    return codes


TAKES_PART = {
    "Forward",
    "GetReadIndex",
    "TransferPrimary",
    "ChangeMembers",
    "FetchSnapshot",
    "FetchSegment",
    "HoldKey",
}
"""Calls that only full members make; the others are also made before joining and offline."""


async def test_calls_wait_for_the_link_of_their_member(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """After a start, calls may arrive before the link over the same channel."""
    async with ends(authority, addresses, "n1"):
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        await channel.channel_ready()
        calls = {
            name: getattr(stub, name)(CALLS[name](), timeout=WAIT_S)
            for name in sorted(TAKES_PART - STREAMS.keys())
        }
        link = stub.Link(metadata=shown("n2"))
        codes = {name: await code_of(call) for name, call in calls.items()}
        assert await calls["HoldKey"].details() == "this node has no key ring"
        assert codes.pop("HoldKey") is grpc.StatusCode.FAILED_PRECONDITION
        assert set(codes.values()) == {grpc.StatusCode.OK}
        link.cancel()
        await channel.close()


async def test_a_transfer_of_unknown_outcome_is_no_fault_of_the_primary(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its engine is held up, such as by a slow disk. The caller is told without an error."""

    async def held_up(*_: object) -> None:
        raise OutcomeUnknownError("the engine did not answer in time")

    async with ends(authority, addresses, "n1") as (one,):
        calls: Any = one.transport._servicer._calls
        monkeypatch.setattr(calls, "answer_transfer", held_up, raising=False)
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        link = stub.Link(metadata=shown("n2"))
        call = stub.TransferPrimary(peers_pb2.TransferPrimaryRequest(), timeout=WAIT_S)
        assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.details() == "the engine did not answer in time"
        link.cancel()
        await channel.close()
    assert "Traceback" not in caplog.text


async def test_a_call_without_a_link_is_refused_before_its_deadline(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a deadline the caller would not know whether the call was carried out."""
    monkeypatch.setattr(peer_service, "LINK_S", float("inf"))
    async with ends(authority, addresses, "n1") as (one,):
        servicer: Any = one.transport._servicer
        context = Greeted(lambda: None)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ConnectionError):
                await servicer.Forward(peers_pb2.ForwardRequest(), context)
        assert context.aborted == peer_service.NO_LINK


async def test_a_node_that_is_removed_while_its_call_waits_is_refused(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        gone = one.engine.current.configuration.without(NodeId("n2"))

        async def remove(*_: object) -> None:
            became(one, gone)

        monkeypatch.setattr(PeerServicer, "_wait_for_link", remove)
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        call = stub.Forward(peers_pb2.ForwardRequest(), wait_for_ready=True)
        assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
        await channel.close()


async def test_a_calling_member_has_shown_its_journal(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wiped node has the certificate but no link: it takes part in no decision."""
    monkeypatch.setattr(peer_service, "LINK_S", 0.01)
    async with ends(authority, addresses, "n1") as (one,):
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        codes = await codes_of_calls(stub)
        refused = grpc.StatusCode.FAILED_PRECONDITION
        assert {name for name in codes if codes[name] is refused} == TAKES_PART
        assert codes["GetMemberStatus"] is grpc.StatusCode.OK
        assert codes["FetchKey"] is grpc.StatusCode.OK
        link = stub.Link(metadata=shown("n2"))
        await link.initial_metadata()
        codes = await codes_of_calls(stub)
        assert codes.pop("HoldKey") is grpc.StatusCode.FAILED_PRECONDITION  # No ring.
        assert set(codes.values()) == {grpc.StatusCode.OK}
        # As the primary writes it down; the link began before.
        one.engine.current = replace(
            one.engine.current,
            configuration=one.engine.current.configuration.naming("n2", "another"),
        )
        one.transport._peers._status = one.engine.current
        codes = await codes_of_calls(stub)
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}
        await one.transport._dial_all()
        assert await link.code() is grpc.StatusCode.ABORTED
        await channel.close()


async def test_a_guest_reads_the_status_and_decides_nothing(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """The members' authority signed its certificate, but it may not be a member."""
    begun = {NodeId("n1"): addresses[NodeId("n1")]}
    async with ends(authority, begun, "n1"):
        channel, stub = stub_of(
            member_tls(authority, "n3"), addresses[NodeId("n1")], "n1"
        )
        link = stub.Link(
            metadata=shown("n3", address=addresses[NodeId("n3")]), wait_for_ready=True
        )
        await link.initial_metadata()
        codes = await codes_of_calls(stub)
        assert codes.pop("GetMemberStatus") is grpc.StatusCode.OK
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}
        link.cancel()
        await channel.close()


async def test_a_stopping_member_says_so_when_asked_for_its_digest(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception without a handler would be reported as a bug."""

    async def stopping(*_: object) -> None:
        raise StoppingError

    monkeypatch.setattr(Answering, "member_status", stopping, raising=False)
    async with ends(authority, addresses, "n1"):
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        with pytest.raises(grpc.aio.AioRpcError) as report:
            await stub.GetMemberStatus(
                peers_pb2.GetMemberStatusRequest(digest=True), wait_for_ready=True
            )
        assert report.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "this node stops" in str(report.value.details())
        await channel.close()


@pytest.mark.parametrize(
    "says",
    [
        {"address": "n2"},
        {"address": "n2:0"},
        {"address": "n2:1\nn3"},
        {"address": "n" * 300 + ":1"},
        {"journal_id": "j" * 65},
    ],
)
async def test_invalid_addresses_do_not_enter_the_configuration(
    authority: Authority, addresses: dict[NodeId, str], says: dict[str, str]
) -> None:
    """A member's own address is written into an entry, which has a limit."""
    async with ends(authority, addresses, "n1"):
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        call = stub.Link(
            wait_for_ready=True, metadata=shown("n2", **says), timeout=WAIT_S
        )
        assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
        assert await call.details() == "shows no journal and address"
        await channel.close()


class Greeted:
    """The context of a link whose other side changes during the handshake."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens
        self.aborted = ""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": [b"sparecode://member/n3"]}

    def invocation_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return shown("n3", address="n3:7301")

    def peer(self) -> str:
        return "the test"

    def time_remaining(self) -> float:
        return 0.02

    async def send_initial_metadata(self, _: object) -> None:
        self._happens()

    async def abort(self, _: object, why: str) -> None:
        self.aborted = why
        raise ConnectionError(why)


async def test_a_node_that_leaves_during_the_handshake_is_no_guest(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """Otherwise it would be dialed forever."""

    def gone() -> None:
        raise ConnectionResetError

    begun = {NodeId("n1"): addresses[NodeId("n1")]}
    async with ends(authority, begun, "n1") as (one,):
        servicer: Any = one.transport._servicer
        with pytest.raises(ConnectionResetError):
            await servicer.Link(no_messages(), Greeted(gone))
        await one.transport._dial_all()
        assert one.transport.channel(NodeId("n3")) is None


async def no_messages() -> AsyncIterator[peers_pb2.LinkRequest]:
    """Send nothing."""
    return
    yield


async def test_a_node_that_is_removed_while_it_is_greeted_gets_no_link(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        gone = one.engine.current.configuration.without(NodeId("n3"))
        context = Greeted(lambda: became(one, gone))
        servicer: Any = one.transport._servicer
        with pytest.raises(ConnectionError):
            await servicer.Link(no_messages(), context)
        assert context.aborted == Refusal.REMOVED
        assert servicer._inbound == {}


async def test_a_removed_node_is_refused_and_told_what_to_do(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = asyncio.Event()

    def error(event: str, *, extra: dict[str, str]) -> None:
        if (event, extra["cause"]) == ("refused_as_member", ADVICE[Refusal.REMOVED]):
            report.set()

    monkeypatch.setattr(transport.log, "error", error)
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await two.until_seen("connected", "n1")
        gone = one.engine.current.configuration.without(NodeId("n2"))
        became(one, gone, committed=False)  # It may be taken back, and by n2.
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        call = stub.Link(wait_for_ready=True, metadata=shown("n2"))
        await call.initial_metadata()
        call.cancel()
        became(one, gone)
        await two.until_seen("disconnected", "n1")
        await report.wait()
        answer = await ask_status(channel, NodeId("n1"), digest=False, timeout_s=WAIT_S)
        assert (answer.reachable, answer.refusal) == (False, Refusal.REMOVED)
        await channel.close()


async def test_a_member_with_another_journal_is_refused(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        known = one.engine.current.configuration.naming("n2", "another")
        became(one, known)
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        frame = frames.encode(vote(1))
        for metadata, why in (
            (shown("n2"), Refusal.ANOTHER_JOURNAL),
            (shown("n2", cluster_id="other"), "not a member of this cluster"),
            ((), "shows no journal"),
            (((links.HELLO, b"\xff"),), "shows no journal"),
        ):
            call = stub.Link(iter([frame]), wait_for_ready=True, metadata=metadata)
            assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
            assert await call.details() == why
        assert one.terms("n2") == []
        answers = [
            await ask_status(
                channel, NodeId("n1"), digest=False, timeout_s=WAIT_S, metadata=metadata
            )
            for metadata in ((), shown("n2"))
        ]
        # `recover` asks without a journal, and `doctor` as a link would.
        assert [each.reachable for each in answers] == [True, False]
        assert answers[1].refusal == Refusal.ANOTHER_JOURNAL
        await channel.close()


async def test_a_member_that_is_an_older_copy_is_refused_and_told(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    async with ends(authority, addresses, "n1") as (one,):
        one.engine.older_copies.add("n2")
        async with ends(authority, addresses, "n2") as (two,):
            async with asyncio.timeout(WAIT_S):
                await two.engine.told.wait()
            assert two.engine.refused_by == "n1"
            assert two.engine.guard.events == []
        servicer: Any = one.transport._servicer
        assert servicer._inbound == {}


async def test_a_refusal_is_over_when_the_link_is_up(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """An operator has mended what it was refused for, and need not look for more."""
    why: list[Refusal] = [Refusal.ANOTHER_JOURNAL]
    async with ends(authority, addresses, "n1") as (one,):
        one.engine.refusal_of_link = lambda *_: (  # type: ignore[method-assign]
            why[0] if why else None
        )
        async with ends(authority, addresses, "n2") as (two,):
            transport = two.transport
            async with asyncio.timeout(WAIT_S):
                await until(
                    lambda: transport.refusals == {"n1": Refusal.ANOTHER_JOURNAL}
                )
            why.clear()
            await two.until_seen("connected", "n1")
            assert transport.refusals == {}


@pytest.mark.parametrize("why", Refusal)
async def test_the_refusal_of_a_guest_is_not_believed(
    authority: Authority, addresses: dict[NodeId, str], why: Refusal
) -> None:
    """
    A node with a ticket's certificate that is no member yet could stop every member.

    It is dialed where it says, so it can refuse. Only members know of promises and of
    removals.
    """
    begun = {NodeId("n1"): addresses[NodeId("n1")]}
    n3 = NodeId("n3")
    async with ends(authority, begun, "n1") as (one,):
        channel, stub = stub_of(
            member_tls(authority, n3), addresses[NodeId("n1")], "n1"
        )
        async with ends(authority, {n3: addresses[n3]}, n3) as (three,):
            refusals: asyncio.Queue[str] = asyncio.Queue()

            def refuse(peer: str, _: Hello) -> Refusal:
                refusals.put_nowait(peer)
                return why

            three.engine.refusal_of_link = refuse  # type: ignore[assignment]
            call = stub.Link(
                wait_for_ready=True, metadata=shown(n3, address=addresses[n3])
            )
            async with asyncio.timeout(WAIT_S):
                for _ in range(2):  # The second one shows that the first has arrived.
                    assert await refusals.get() == "n1"
            assert one.engine.refused_by == ""
            assert one.transport.refusals == {}
            call.cancel()
        await channel.close()


async def test_what_a_link_shows_is_made_when_it_begins(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """An earlier position would look like that of an older copy."""
    seen: asyncio.Queue[Hello] = asyncio.Queue()
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await one.until_seen("connected", "n2")
        one.engine.shown = replace(one.engine.shown, position=(7, 7, 70))

        def judge(peer: str, hello: Hello) -> None:
            seen.put_nowait(hello)

        two.engine.refusal_of_link = judge  # type: ignore[assignment]
        link = one.transport._links[NodeId("n2")]
        assert link._call is not None
        link._call.cancel()
        async with asyncio.timeout(WAIT_S):
            hello = await seen.get()
        assert hello.position == (7, 7, 70)
        assert hello.journal_id == journal_of("n1")


async def test_a_member_that_is_not_known_here_yet_is_answered(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """It says where it is, and is dialed there for as long as its link is up."""
    begun = {NodeId("n1"): addresses[NodeId("n1")]}
    n3 = NodeId("n3")
    async with ends(authority, begun, "n1") as (one,):
        tls = member_tls(authority, "n3")
        channel, stub = stub_of(tls, addresses[NodeId("n1")], "n1")
        async with ends(authority, {n3: addresses[n3]}, "n3"):
            metadata = shown("n3", address=addresses[n3])
            call = stub.Link(wait_for_ready=True, metadata=metadata)
            await one.until_seen("connected", "n3")
            call.cancel()
            await one.until_seen("disconnected", "n3")
        await channel.close()


async def test_a_sender_is_answered_though_the_receiver_does_not_know_it_yet(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """A node that catches up reads of former members, and must acknowledge that."""
    n3 = NodeId("n3")
    async with ends(authority, addresses, "n1", n3) as (one, three):
        await three.until_seen("connected", "n1")
        three.wire.send("n1", vote(1))
        await one.until_seen("message", n3, 1)  # So its link has begun.
        long_ago = Configuration.of(one.engine.current.configuration.members[:1])
        became(one, long_ago)
        await one.transport._dial_all()
        assert one.transport.channel(n3) is not None


@pytest.mark.asyncio
async def test_strangers_leave_the_node_its_open_files(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silent connections are bounded; the next one is hung up on."""
    monkeypatch.setattr(transport, "MEMBERS", Connections(most=2, share=1))
    host, port = addresses[NodeId("n1")].split(":")
    async with ends(authority, addresses, "n1"), asyncio.timeout(WAIT_S):
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        left = {asyncio.create_task(reader.read()) for reader, _ in pairs}
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        for task in left:
            task.cancel()
        for _, writer in pairs:
            writer.close()


FORWARD = "/sparecode.internal.v1.PeerService/Forward"


async def is_answered(channel: grpc.aio.Channel, member: NodeId) -> bool:
    """Return whether a member tells its status; False: the call is one too many."""
    status = await ask_status(channel, member, digest=False, timeout_s=WAIT_S)
    assert status.reachable is not status.busy
    return status.reachable


async def test_calls_of_members_are_bounded_and_a_link_that_stands_goes_on(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of Sparecode runs before a request is there: gRPC has to count them."""
    monkeypatch.setattr(transport, "CALLS_MAX", 4)
    n2, tls = NodeId("n2"), member_tls(authority, "n3")
    silent, _ = stub_of(tls, addresses[n2], n2)
    channel, _ = stub_of(tls, addresses[n2], n2)
    async with ends(authority, addresses, "n1", n2) as (one, two), silent, channel:
        await one.until_seen("connected", n2)
        await channel.channel_ready()
        method = silent.stream_unary(FORWARD)
        calls = [method(wait_for_ready=True) for _ in range(3)]
        async with asyncio.timeout(WAIT_S):
            while await is_answered(channel, n2):
                # One of the silent may have come beside another call, and be refused.
                calls.append(method())
        one.wire.send(n2, vote(1))
        await two.until_seen("message", "n1", 1)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(WAIT_S):
            while not await is_answered(channel, n2):
                pass
        assert two.terms("n1") == [1]


async def test_one_connection_keeps_no_other_member_away(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streams beyond its bound wait; another member's link and calls do not."""
    monkeypatch.setattr(transport, "STREAMS_MAX", 3)
    monkeypatch.setattr(transport, "CALLS_MAX", 3 + 4)
    n2 = NodeId("n2")
    flooding, stub = stub_of(member_tls(authority, "n3"), addresses[n2], n2)
    async with ends(authority, addresses, n2) as (two,), flooding:
        await flooding.channel_ready()
        method = flooding.stream_unary(FORWARD)
        calls = [method() for _ in range(2)]
        link = stub.Link(metadata=shown("n3"))
        await link.initial_metadata()  # So those before it are there, too.
        calls += [method() for _ in range(20)]
        beyond = stub.GetMemberStatus(peers_pb2.GetMemberStatusRequest(), timeout=0.3)
        assert await code_of(beyond) is grpc.StatusCode.DEADLINE_EXCEEDED
        async with ends(authority, addresses, "n1") as (one,):
            await one.until_seen("connected", n2)
            one.wire.send(n2, vote(1))
            await two.until_seen("message", "n1", 1)
            way = one.transport.channel(n2)
            assert way is not None
            stub = peers_pb2_grpc.PeerServiceStub(way)
            call: Any = stub.Forward(peers_pb2.ForwardRequest(), timeout=WAIT_S)
            assert await code_of(call) is grpc.StatusCode.OK
        for each in (*calls, link):
            each.cancel()


async def test_as_many_calls_as_members_may_have_are_all_taken(
    authority: Authority,
    addresses: dict[NodeId, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of two members are under way at one time, beside their links; and again."""
    n2 = NodeId("n2")
    everybody = asyncio.Barrier(2 * MEMBER_CALLS_MAX)

    async def together(*_: object) -> peers_pb2.GetMemberStatusResponse:
        await everybody.wait()
        return peers_pb2.GetMemberStatusResponse()

    monkeypatch.setattr(Answering, "member_status", together, raising=False)
    request = peers_pb2.GetMemberStatusRequest()
    async with ends(authority, addresses, "n1", n2, "n3") as (one, _, three):
        for end in (one, three):
            await end.until_seen("connected", n2)
        ways = [end.transport.channel(n2) for end in (one, three)]
        stubs: list[Any] = [peers_pb2_grpc.PeerServiceStub(way) for way in ways if way]

        async def twice(stub: Any) -> int:
            for _ in range(2):
                # A busy machine needs half a minute for a thousand calls at once.
                await stub.GetMemberStatus(request, timeout=2 * WAIT_S)
            return 2

        answers = await asyncio.gather(
            *(twice(stub) for stub in stubs for _ in range(MEMBER_CALLS_MAX))
        )
        assert sum(answers) == 4 * MEMBER_CALLS_MAX


async def test_calls_that_wait_for_a_busy_loop_are_not_cancelled(
    authority: Authority, addresses: dict[NodeId, str]
) -> None:
    """
    By default gRPC cancels calls at random when more than 1000 wait for the loop.

    All calls here are sent in one step of the loop, so they wait for its next steps.
    """
    n2, request = NodeId("n2"), peers_pb2.GetMemberStatusRequest()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ends(authority, addresses, n2))
        stubs = []
        for member in ("n1", "n3"):
            channel, stub = stub_of(member_tls(authority, member), addresses[n2], n2)
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            stubs.append(stub)
        calls = [
            stub.GetMemberStatus(request, timeout=2 * WAIT_S)
            for stub in stubs
            for _ in range(STREAMS_MAX)
        ]
        codes = Counter([await code_of(call) for call in calls])
        assert codes == {grpc.StatusCode.OK: 2 * STREAMS_MAX}


async def test_no_member_has_as_many_calls_under_way_as_are_taken() -> None:
    """Check this sum when raising the number of calls that a node accepts."""
    of_administrators = ADMIN_CALLS.calls + CONNECTIONS_MAX
    link, read, snapshot, looks, keys = 1, 1, 1, 4, 2
    own = link + UNDER_WAY_MAX + read + snapshot + looks + keys
    assert of_administrators + own <= MEMBER_CALLS_MAX


async def test_a_connection_ends_and_the_next_handshake_checks_again(
    authority: Authority, addresses: dict[NodeId, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P6a) Also one that was opened while another authority was trusted."""
    ages = (
        ("grpc.max_connection_age_ms", 300),
        ("grpc.max_connection_age_grace_ms", 100),
    )
    assert dict(transport.AGES).keys() == dict(ages).keys()
    monkeypatch.setattr(transport, "AGES", ages)
    newer = new_authority()
    async with ends(authority, addresses, "n1") as (one,):
        channel, stub = stub_of(
            member_tls(authority, "n2"), addresses[NodeId("n1")], "n1"
        )
        async with channel, asyncio.timeout(WAIT_S):
            await stub.Ping(peers_pb2.PingRequest(), wait_for_ready=True)
            await one.transport.renew(
                replace(member_tls(authority, "n1"), ca=newer.pem)
            )
            code = grpc.StatusCode.OK
            while code is grpc.StatusCode.OK:
                code = await code_of(stub.Ping(peers_pb2.PingRequest()))
            assert code is grpc.StatusCode.UNAVAILABLE
    assert dict(limits.AGES)["grpc.max_connection_age_ms"] / 1000 > transport.REFRESH_S


async def test_links_that_are_kept_no_more_stop_the_node(
    authority: Authority, addresses: dict[NodeId, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that ends in silence would leave members unreached, or on old connections."""
    monkeypatch.setattr(transport, "REFRESH_S", 0.05)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    own = PeerAddresses(
        node_id=NodeId("n1"), listen=addresses[NodeId("n1")], members=addresses
    )
    end = End(own, member_tls(authority, "n1"), on_failed=reasons.put_nowait)
    await end.start()
    try:
        # Its dialing fails: `_refresh` opens a new connection to each member.
        monkeypatch.setattr(end.transport, "_dial", _fail)
        async with asyncio.timeout(WAIT_S):
            assert "new connections: OSError" in await reasons.get()
        end.transport._dialed.clear()
        end.transport._peers.changed.set()
        async with asyncio.timeout(WAIT_S):
            while "members: KeyError" not in await reasons.get():
                pass
    finally:
        await end.transport.stop()


def _fail(_: NodeId) -> grpc.aio.Channel:
    raise OSError("no socket")


async def test_a_member_moves_to_a_new_connection_in_time(
    authority: Authority, addresses: dict[NodeId, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its links and calls do not wait until the other side ends the old one."""
    monkeypatch.setattr(transport, "REFRESH_S", 0.2)
    async with ends(authority, addresses, "n1", "n2") as (one, two):
        await one.until_seen("connected", "n2", times=2)
        await two.until_seen("connected", "n1", times=2)
        one.wire.send("n2", vote(7))
        await two.until_seen("message", "n1", 7)
        assert 7 in two.terms("n1")
