# SPDX-License-Identifier: Apache-2.0
"""
A member's new certificate is in the audit log, and names what its ticket named (P5, U1).

The renewal needs no administrator. So it must give no more than the admission did, and
no member may get certificates that leave no trace.
"""

from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Issued
from sparecode_node.replication.members import Member
from sparecode_node.services.cluster.renewals import hosts_in
from sparecode_node.services.secrets.tickets import door_of
from tests.rpc.edge import MEMBERS, NOW, failure
from tests.security.test_a_joiner_gets_what_its_ticket_says import KEY
from tests.security.test_a_member_passes_a_joiner_on import (
    N3,
    Cluster,
    cluster,
    csr,
    request_of,
    stub,
)

pytestmark = pytest.mark.asyncio


async def renew(
    running: Cluster, own: Issued, key: ec.EllipticCurvePrivateKey | None = None
) -> pb.RenewCertificateResponse:
    key = key or ec.generate_private_key(ec.SECP256R1())
    async with stub(running.authority, own) as authority:
        return await authority.RenewCertificate(
            pb.RenewCertificateRequest(certificate_request=csr(key)), timeout=60
        )


async def test_each_renewal_is_an_event_and_has_a_rate(tmp_path: Path) -> None:
    """(P5, U1) The event is committed before anything is signed."""
    async with cluster(tmp_path) as running:
        await renew(running, N3)
        events = running.node.primary_db.execute(
            "SELECT actor, target, outcome FROM audit_events "
            "WHERE action = 'RenewCertificate'"
        )
        assert events.fetchall() == [("node:n3", "n3", "applied")]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await renew(running, N3)
        assert failure(raised.value).reason == "RATE"
        running.node.clock.now += 10_000
        await renew(running, N3)


async def test_the_names_are_those_of_the_ticket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P5) Whatever the certificate names that the member shows."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        door = door_of(ticket.secret, ticket.node_id)
        async with stub(
            running.authority, Issued(door.certificate_pem, door.key_pem)
        ) as authority:
            await authority.Join(request_of(ticket, door.key), timeout=60)
        n4 = Member(node_id=NodeId("n4"), address="10.0.0.4:7301")
        monkeypatch.setattr(running.node.replicator, "members", lambda: (n4,))
        other = MEMBERS.issue_member("n4", hosts=["n1.example"], now=NOW)
        answer = await renew(running, other, KEY)
        assert set(hosts_in(answer.certificate)) == {"localhost", "10.0.0.4"}


async def test_a_removed_member_gets_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P5) Even if the engine of the signing member does not know of it yet."""
    async with cluster(tmp_path) as running:
        node = running.node
        await node.membership.remove_member(
            node.admin("ClusterService/RemoveMember"), node_id="n3"
        )
        n3 = Member(node_id=NodeId("n3"), address="10.0.0.3:7301")
        monkeypatch.setattr(node.replicator, "members", lambda: (n3,))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await renew(running, N3)
        assert failure(raised.value).reason == "MEMBER_REMOVED"
