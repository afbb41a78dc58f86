# SPDX-License-Identifier: Apache-2.0
"""Joining over TLS: which certificates pass the handshake, and how calls are answered."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import joining_pb2_grpc as pb_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.membership.certificates import Issued
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.replication.links.joiner_certificates import ListenerCertificates
from sparecode_node.replication.links.tls import (
    PeerTls,
    caller,
    renewable_credentials,
)
from sparecode_node.rpc.join_client import JoinClient
from sparecode_node.rpc.joining import JoiningServicer
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster.joining import JOIN, Joiner, JoinGrant
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.tickets import JoinTicket, door_of, pem
from tests.rpc.edge import MEMBER, MEMBERS, NOW, STRANGERS, failure

pytestmark = pytest.mark.asyncio

N4 = NodeId("n4")
SECRET = b"0123456789abcdef"
DOOR = door_of(SECRET, N4)
ADMITTED = JoinGrant(
    cluster_id="c",
    certificate=b"certificate",
    members_ca=b"members",
    agents_ca=b"agents",
    wrapped=b"wrapped",
    members=((NodeId("n1"), "h:1"),),
)


@dataclass
class ScriptedJoining:
    """A use case that returns a scripted answer."""

    answer: JoinGrant | Exception = ADMITTED
    joiner: Joiner | None = None

    async def admit(self, joiner: Joiner, *, timeout_s: float) -> JoinGrant:
        assert 0 < timeout_s <= 15
        self.joiner = joiner
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Member:
    """A peers listener with only the joining service."""

    def __init__(self) -> None:
        self.doors: list[bytes] = [DOOR.certificate]
        self.refusals = Refusals(clock=SystemClock(), entropy=SystemEntropy())
        self.use_case = ScriptedJoining()
        self.servicer = JoiningServicer(self.read_doors, self.refusals)
        self.server = grpc.aio.server()
        self.servicer.add_to(self.server)
        own = PeerTls(certificate=MEMBER.certificate, key=MEMBER.key, ca=MEMBERS.pem)
        self.port = self.server.add_secure_port(
            "127.0.0.1:0",
            renewable_credentials(
                ListenerCertificates(lambda: own, self.servicer.certificates_pem)
            ),
        )

    def read_doors(self) -> tuple[bytes, ...]:
        return tuple(self.doors)

    async def join(self, own: Issued, **fields: object) -> pb.JoinResponse:
        """Send a join request with some certificate."""
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{self.port}",
            grpc.ssl_channel_credentials(MEMBERS.pem, own.key, own.certificate),
            options=(
                ("grpc.ssl_target_name_override", "n1.members.sparecode"),
                ("grpc.use_local_subchannel_pool", 1),
            ),
        )
        async with channel:
            stub = pb_grpc.JoiningServiceStub(channel)
            return await stub.Join(pb.JoinRequest(**fields), timeout=60)


@contextlib.asynccontextmanager
async def member() -> AsyncIterator[Member]:
    running = Member()
    running.servicer.serve(running.use_case)  # type: ignore[arg-type]
    await running.server.start()
    try:
        yield running
    finally:
        await running.server.stop(0)


def issued(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


TICKET_HOLDER = Issued(DOOR.certificate_pem, DOOR.key_pem)


async def test_ticket_holder_reaches_the_use_case() -> None:
    """(P5) The handshake proves the ticket, and the request is passed on."""
    async with member() as running:
        answer = await running.join(
            TICKET_HOLDER,
            request_id="r",
            address="n4:1",
            certificate_request=b"request",
            hosts=["h"],
        )
    assert answer == pb.JoinResponse(
        certificate=b"certificate",
        members_ca=b"members",
        agents_ca=b"agents",
        sealed_secrets=b"wrapped",
        members=[pb.JoinMember(node_id="n1", address="h:1")],
        cluster_id="c",
    )
    assert running.use_case.joiner == Joiner(
        ticket_certificate=DOOR.certificate,
        request_id="r",
        address="n4:1",
        certificate_request=b"request",
        hosts=("h",),
    )


def forged(names: str, *, signed_by: ec.EllipticCurvePrivateKey) -> Issued:
    """Make a certificate with the names of a member, signed by a ticket's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    door = x509.load_der_x509_certificate(DOOR.certificate)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(door.subject)
        .public_key(key.public_key())
        .serial_number(2)
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(names)]),
            critical=False,
        )
        .sign(signed_by, hashes.SHA256())
    )
    alone = issued(key, certificate)
    return Issued(alone.certificate + DOOR.certificate_pem, alone.key)


async def test_ticket_certificate_cannot_sign_other_certificates() -> None:
    """(P5) Otherwise a ticket could be used for any member, any number of times."""
    other = door_of(b"another ticket's", N4)
    another_node = door_of(SECRET, NodeId("n5"))
    async with member() as running:
        for own in (
            forged("sparecode://member/n2", signed_by=DOOR.key),
            forged("sparecode://joiner/n4", signed_by=DOOR.key),
            Issued(other.certificate_pem, other.key_pem),
            Issued(another_node.certificate_pem, another_node.key_pem),
            STRANGERS.issue_member("n4", now=NOW),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await running.join(own)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.use_case.joiner is None
    # And what is let through names no member.
    assert caller({"x509_subject_alternative_name": [b"sparecode://joiner/n4"]}) is None


async def test_ticket_opens_only_while_it_is_in_the_state() -> None:
    async with member() as running:
        for doors, opens in (([], False), ([DOOR.certificate], True), ([], False)):
            running.doors = doors
            if opens:
                await running.join(TICKET_HOLDER)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await running.join(TICKET_HOLDER)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_member_certificate_cannot_join() -> None:
    """It opens the port, but joining needs a ticket. The refusal is recorded (U1)."""
    async with member() as running:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.join(MEMBERS.issue_member("n2", now=NOW))
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert running.use_case.joiner is None
        assert running.refusals._counts


async def test_a_refusal_says_why() -> None:
    async with member() as running:
        running.use_case.answer = Refused(Rejected(Reason.TICKET_USED, "it was used"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.join(TICKET_HOLDER)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failure(raised.value).reason == "TICKET_USED"
        assert "create a new one" in str(raised.value.details())
        running.use_case.answer = RuntimeError("the ring's bytes")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.join(TICKET_HOLDER)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert "ring" not in str(raised.value.details())


async def test_malformed_join_request_is_recorded() -> None:
    """(U1) Such a caller has a ticket and sends requests made by hand."""
    async with member() as running:
        running.use_case.answer = InvalidFieldError(
            "hosts", "n1.members.sparecode is no host"
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.join(TICKET_HOLDER)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        [(refusal, count)] = running.refusals._counts.items()
        assert (refusal.method, refusal.reason, count) == (JOIN, "field", 1)


async def test_unreadable_state_does_not_block_members() -> None:
    """A handshake of a member does not depend on the tickets."""
    async with member() as running:
        await running.join(TICKET_HOLDER)

        def fail() -> tuple[bytes, ...]:
            raise OSError("gone")

        running.servicer._read_certificates = fail
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.join(MEMBERS.issue_member("n2", now=NOW))
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_no_ticket_is_known_before_the_state_is_open() -> None:
    running = Member()
    await running.server.start()
    try:
        assert running.servicer.certificates_pem() == b""
        with pytest.raises(grpc.aio.AioRpcError):
            await running.join(TICKET_HOLDER)
    finally:
        await running.server.stop(0)


async def test_ticket_certificate_is_deterministic() -> None:
    """The joiner derives it again from the ticket, and the member compares the bytes."""
    assert door_of(SECRET, N4).certificate == DOOR.certificate
    assert pem((DOOR.certificate,)) == DOOR.certificate_pem


async def test_joiner_retries_after_overload() -> None:
    """Overload passes, and must not make a new ticket necessary."""
    async with member() as running:
        running.use_case.answer = OverloadedError("too many calls")
        admit = running.use_case.admit

        async def once_full(joiner: Joiner, *, timeout_s: float) -> JoinGrant:
            try:
                return await admit(joiner, timeout_s=timeout_s)
            finally:
                running.use_case.answer = ADMITTED

        running.use_case.admit = once_full  # type: ignore[method-assign]
        authority = x509.load_pem_x509_certificate(MEMBERS.pem)
        ticket = JoinTicket(
            secret=SECRET,
            node_id=N4,
            cluster_id="c",
            authorities=(authority.public_bytes(serialization.Encoding.DER),),
            members=((NodeId("n1"), f"127.0.0.1:{running.port}"),),
            ends_at_ms=0,
        )
        joiner = Joiner(
            ticket_certificate=DOOR.certificate,
            request_id="r",
            address="n4:1",
            certificate_request=b"request",
            certificate=b"",
            hosts=(),
        )
        client = JoinClient(ticket, SystemClock())
        assert await asyncio.to_thread(client.join, joiner) == ("n1", ADMITTED)
