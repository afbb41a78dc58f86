# SPDX-License-Identifier: Apache-2.0
"""
A member without the authorities' keys passes requests on, and can make none (P1, P5).

The keys are on one machine, and a joiner may reach another one. The member in between
sees the request and the answer: it must neither read the ring in it, nor use a ticket
that waits for its machine, nor choose the names in a certificate.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import joining_pb2_grpc as pb_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Issued
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.members import Member as KnownMember
from sparecode_node.rpc.authority_calls import AuthorityCalls
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.joining import Admissions, Joiner, JoinGrant
from sparecode_node.services.cluster.renewals import Renewals, hosts_in
from sparecode_node.services.secrets.tickets import JoinTicket, door_of, sign
from sparecode_node.services.secrets.wrapping import unwrap
from tests.rpc.edge import MEMBERS, NOW, failure
from tests.rpc.test_joining import Member, member
from tests.security.test_a_joiner_gets_what_its_ticket_says import (
    KEY,
    N4,
    Files,
    secrets_in,
)
from tests.services.one_node import OneNode, one_node

pytestmark = pytest.mark.asyncio

N3 = MEMBERS.issue_member("n3", hosts=("n3.example",), now=NOW)
"""The member in between."""


class NoKey(Files):
    """The files of a member without the authorities' keys."""

    def can_sign(self, successor: str = "") -> bool:
        return False


class Cluster:
    """Two members: the joiner calls one, and the other has the authority's key."""

    def __init__(self, node: OneNode, called: Member, authority: Member) -> None:
        self.node, self.called, self.authority = node, called, authority
        calls = AuthorityCalls(
            lambda: PeerTls(certificate=N3.certificate, key=N3.key, ca=MEMBERS.pem)
        )

        async def pass_on(
            joiner: Joiner, members: Sequence[KnownMember], timeout_s: float
        ) -> JoinGrant | None:
            assert {each.node_id for each in members} <= {"n0", "n1", "n3"}
            other = KnownMember(
                node_id=NodeId("n1"), address=f"127.0.0.1:{authority.port}"
            )
            return await calls.pass_on(joiner, [other], timeout_s)

        for running, files in ((called, NoKey()), (authority, Files())):
            running.servicer.serve(
                Admissions(
                    replicator=node.replicator,
                    state=node.state,
                    sealing=node.sealing,
                    authority=files,
                    refusals=node.refusals,
                    clock=node.clock,
                    entropy=SystemEntropy(),
                    pass_on=pass_on,
                ),
                Renewals(
                    replicator=node.replicator,
                    state=node.state,
                    authority=files,
                    clock=node.clock,
                    entropy=SystemEntropy(),
                ),
            )

    async def ticket(self) -> JoinTicket:
        ticket = await self.node.membership.create_join_ticket(
            self.node.admin("ClusterService/CreateJoinTicket"),
            node_id="n4",
            address="10.0.0.4:7301",
        )
        door = door_of(ticket.secret, ticket.node_id).certificate
        self.called.doors[:] = self.authority.doors[:] = [door]
        return ticket

    def nodes(self) -> list[tuple[str]]:
        return self.node.primary_db.execute("SELECT node_id FROM nodes").fetchall()


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with one_node(folder) as node, member() as called, member() as authority:
        yield Cluster(node, called, authority)


def request_of(
    ticket: JoinTicket,
    key: ec.EllipticCurvePrivateKey,
    *,
    joins: ec.EllipticCurvePrivateKey = KEY,
    **fields: object,
) -> pb.JoinRequest:
    """Return a request for the key *joins*; *key* signs it as the ticket's would."""
    joiner = Joiner(
        ticket_certificate=b"",
        request_id=str(uuid.uuid4()),
        address="10.0.0.4:7301",
        certificate_request=csr(joins),
    )
    return pb.JoinRequest(
        request_id=joiner.request_id,
        address=joiner.address,
        certificate_request=joiner.certificate_request,
        ticket_signature=sign(joiner.signed_content(), key),
        **fields,
    )


def csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@contextlib.asynccontextmanager
async def stub(
    running: Member, own: Issued
) -> AsyncIterator[pb_grpc.JoiningServiceStub]:
    channel = grpc.aio.secure_channel(
        f"127.0.0.1:{running.port}",
        grpc.ssl_channel_credentials(MEMBERS.pem, own.key, own.certificate),
        options=(
            ("grpc.ssl_target_name_override", "n1.members.sparecode"),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )
    async with channel:
        yield pb_grpc.JoiningServiceStub(channel)


async def test_a_joiner_reaches_the_authority_through_any_member(
    tmp_path: Path,
) -> None:
    """(P5) The answer is for the joiner's key alone."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        door = door_of(ticket.secret, ticket.node_id)
        own = Issued(door.certificate_pem, door.key_pem)
        async with stub(running.called, own) as called:
            answer = await called.Join(request_of(ticket, door.key), timeout=60)
        assert running.nodes() == [("n4",)]
        assert x509.load_pem_x509_certificate(answer.certificate)
        assert secrets_in(answer, ticket).members_ca_key == ""
        with pytest.raises(Exception, match="not wrapped for"):
            unwrap(
                answer.sealed_secrets,
                ec.generate_private_key(ec.SECP256R1()),
                cluster_id=ticket.cluster_id,
                node_id=N4,
            )
        # The refusal of the member that decides reaches the joiner, too.
        again = request_of(
            ticket, door.key, joins=ec.generate_private_key(ec.SECP256R1())
        )
        async with stub(running.called, own) as called:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await called.Join(again, timeout=60)
        assert failure(raised.value).reason == "TICKET_USED"


async def test_a_member_makes_no_request_of_its_own(tmp_path: Path) -> None:
    """(P5) It knows the certificate of every ticket, and not the ticket's key."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        door = door_of(ticket.secret, ticket.node_id)
        forged = request_of(ticket, KEY, ticket_certificate=door.certificate)
        changed = request_of(ticket, door.key, ticket_certificate=door.certificate)
        changed.certificate_request = csr(ec.generate_private_key(ec.SECP256R1()))
        right = request_of(ticket, door.key, ticket_certificate=door.certificate)
        stranger = MEMBERS.issue_member("n9", now=NOW)
        for own, request in ((N3, forged), (N3, changed), (stranger, right)):
            async with stub(running.authority, own) as authority:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await authority.Join(request, timeout=60)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert running.nodes() == []
        async with stub(running.authority, N3) as authority:
            await authority.Join(right, timeout=60)
        assert running.nodes() == [("n4",)]


async def test_a_member_renews_its_certificate_for_the_same_names(
    tmp_path: Path,
) -> None:
    """(P5) The names are those of the certificate that it shows."""
    key = ec.generate_private_key(ec.SECP256R1())
    async with cluster(tmp_path) as running:
        request = pb.RenewCertificateRequest(certificate_request=csr(key))
        async with stub(running.authority, N3) as authority:
            answer = await authority.RenewCertificate(request, timeout=60)
        renewed = x509.load_pem_x509_certificate(answer.certificate)
        assert renewed.public_key() == key.public_key()
        assert set(hosts_in(answer.certificate)) == {"localhost", "n3.example"}
        assert b"sparecode://member/n3" in renewed.public_bytes(
            serialization.Encoding.DER
        )
        door = door_of((await running.ticket()).secret, N4)
        for own, called, reason in (
            (MEMBERS.issue_member("n9", now=NOW), running.authority, ""),
            (N3, running.called, "AUTHORITY_MISSING"),
            (Issued(door.certificate_pem, door.key_pem), running.authority, ""),
        ):
            async with stub(called, own) as any_member:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await any_member.RenewCertificate(request, timeout=60)
            assert failure(raised.value).reason == reason
