# SPDX-License-Identifier: Apache-2.0
"""
A node that joins gets the names and keys that its ticket allows, and no others (P1, P5).

The attack: the holder of a ticket asked for a certificate with another node's host
name, and got the authorities' keys besides. With either, a machine could stand in for
a member, and read administrators' passwords.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.membership.certificates import Issued
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.joining import Admissions
from sparecode_node.services.secrets.tickets import JoinTicket, door_of
from sparecode_node.services.secrets.wrapping import MemberSecrets, unwrap
from tests.rpc.edge import MEMBERS, NOW, Failure, failure
from tests.rpc.test_joining import Member, member
from tests.services.one_node import OneNode, one_node

pytestmark = pytest.mark.asyncio

N4 = NodeId("n4")
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITIES = tuple(
    AuthorityKey(authority=kind, fingerprint=mark * 32)
    for kind, mark in ((AuthorityKind.MEMBERS, "aa"), (AuthorityKind.AGENTS, "bb"))
)


class Files:
    """The files of a member that has the authorities' keys."""

    def members_ca(self) -> bytes:
        return MEMBERS.pem

    def agents_ca(self) -> bytes:
        return b"agents"

    def can_sign(self, successor: str = "") -> bool:
        return True

    def sign(
        self,
        node_id: NodeId,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: object,
        successor: str = "",
    ) -> bytes:
        return MEMBERS.certify_member(node_id, key, hosts=hosts, now=NOW)

    def accepted(self, kind: AuthorityKind) -> tuple[Successor, ...]:
        return ()

    def keys(self) -> tuple[AuthorityKey, ...]:
        return AUTHORITIES

    def secrets(self, *, with_authority: bool) -> MemberSecrets:
        if with_authority:
            return MemberSecrets(
                key_ring="ring", members_ca_key="members", agents_ca_key="agents"
            )
        return MemberSecrets(key_ring="ring")


@dataclass
class Cluster:
    """A member that admits nodes over TLS."""

    node: OneNode
    member: Member

    async def ticket(
        self, *, hosts: Sequence[str] = ("n4.example",), with_authority: bool = False
    ) -> JoinTicket:
        """Return a ticket for n4."""
        return await self.node.membership.create_join_ticket(
            self.node.admin("ClusterService/CreateJoinTicket"),
            node_id="n4",
            address="10.0.0.4:7301",
            hosts=hosts,
            with_authority=with_authority,
        )

    async def join(
        self,
        ticket: JoinTicket,
        address: str = "10.0.0.4:7301",
        hosts: Sequence[str] = (),
    ) -> pb.JoinResponse:
        """Join with a ticket."""
        door = door_of(ticket.secret, ticket.node_id)
        self.member.doors[:] = [door.certificate]
        names = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        request = names.sign(KEY, hashes.SHA256())
        return await self.member.join(
            Issued(door.certificate_pem, door.key_pem),
            request_id=str(uuid.uuid4()),
            address=address,
            hosts=hosts,
            certificate_request=request.public_bytes(serialization.Encoding.DER),
        )

    async def refused(
        self, ticket: JoinTicket, address: str, hosts: Sequence[str]
    ) -> Failure:
        """Join, which must be refused and change nothing; return the refusal."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.join(ticket, address, hosts)
        assert not self.node.primary_db.execute("SELECT 1 FROM nodes").fetchall()
        return failure(raised.value)


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with one_node(folder) as node, member() as running:
        running.servicer.serve(
            Admissions(
                replicator=node.replicator,
                state=node.state,
                sealing=node.sealing,
                authority=Files(),
                refusals=node.refusals,
                clock=node.clock,
                entropy=SystemEntropy(),
            )
        )
        yield Cluster(node, running)


def secrets_in(answer: pb.JoinResponse, ticket: JoinTicket) -> MemberSecrets:
    return unwrap(answer.sealed_secrets, KEY, cluster_id=ticket.cluster_id, node_id=N4)


async def test_a_joiner_stands_in_for_no_other_node(tmp_path: Path) -> None:
    """(P1, P5) Neither by a host name nor by an address, and the ticket stays unused."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        other_host = await running.refused(
            ticket, "10.0.0.4:7301", ["n4.example", "n1.example"]
        )
        assert (other_host.reason, other_host.field) == ("FIELD", "hosts")
        assert "n1.example" in other_host.description
        for address in ("n1.example:7301", "10.0.0.4:7302", "n1:7301"):
            refusal = await running.refused(ticket, address, [])
            assert refusal.reason in ("TICKET_ADDRESS", "MEMBER_EXISTS")
        answer = await running.join(ticket, hosts=["n4.example"])
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert set(names.get_values_for_type(x509.DNSName)) == {
        "n4.members.sparecode",
        "localhost",
        "n4.example",
    }
    (address,) = {
        str(each)
        for each in names.get_values_for_type(x509.IPAddress)
        if not each.is_loopback
    }
    assert address == "10.0.0.4"


async def test_a_ticket_hands_over_no_authority(tmp_path: Path) -> None:
    """(P1, P5) The authorities' keys stay where they are, unless the ticket says so."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        secrets = secrets_in(await running.join(ticket), ticket)
    assert secrets == MemberSecrets(key_ring="ring")


async def test_handing_over_an_authority_is_announced(tmp_path: Path) -> None:
    """(P1, P3) In the events of the ticket and of the admission."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket(with_authority=True)
        secrets = secrets_in(await running.join(ticket), ticket)
        events = running.node.primary_db.execute(
            "SELECT action, detail FROM audit_events ORDER BY sequence DESC LIMIT 2"
        ).fetchall()
    assert secrets.members_ca_key == "members"
    assert secrets.agents_ca_key == "agents"
    assert {action for action, _ in events} == {"AdmitNode", "CreateJoinTicket"}
    assert all("gets the keys of the authorities" in detail for _, detail in events)
