# SPDX-License-Identifier: Apache-2.0
"""Admitting a node: one commit spends the ticket and records the node."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.domain.outcomes import Reason
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.joining import Admissions, Joiner
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.tickets import JoinTicket, der, door_of
from sparecode_node.services.secrets.wrapping import (
    CannotUnwrapError,
    MemberSecrets,
    unwrap,
)
from tests.services.one_node import OneNode
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio

NOW = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC)
MEMBERS = Authority.create("members", now=NOW)
STRANGERS = Authority.create("strangers", now=NOW)
RING = MemberSecrets(key_ring="the ring")
SECRETS = MemberSecrets(key_ring="the ring", members_ca_key="its key")
N4 = NodeId("n4")


@dataclass
class Files:
    """The files of a member."""

    signs: bool = True

    def members_ca(self) -> bytes:
        return MEMBERS.pem

    def agents_ca(self) -> bytes:
        return b"agents"

    def can_sign(self, successor: str = "") -> bool:
        return self.signs

    def sign(
        self,
        node_id: NodeId,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: dt.datetime,
        successor: str = "",
    ) -> bytes:
        return MEMBERS.certify_member(node_id, key, hosts=hosts, now=now)

    def accepted(self, kind: AuthorityKind) -> tuple[Successor, ...]:
        return ()

    def keys(self) -> tuple[AuthorityKey, ...]:
        return ()

    def secrets(self, *, with_authority: bool) -> MemberSecrets:
        return SECRETS if with_authority else RING


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request_of(
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> bytes:
    """Return a certificate request that asks for names the ticket does not allow."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n1")])
    calls = x509.CertificateSigningRequestBuilder().subject_name(name)
    calls = calls.add_extension(
        x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier("sparecode://member/n1")]
        ),
        critical=False,
    )
    return calls.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def joining(node: OneNode, files: Files | None = None) -> Admissions:
    return Admissions(
        replicator=node.replicator,
        state=node.state,
        sealing=node.sealing,
        authority=files or Files(),
        refusals=node.refusals,
        clock=node.clock,
        entropy=SystemEntropy(),
    )


async def ticket(
    node: OneNode, address: str = "n4:7301", *, with_authority: bool = False
) -> JoinTicket:
    return await node.membership.create_join_ticket(
        node.admin("ClusterService/CreateJoinTicket"),
        node_id="n4",
        address=address,
        hosts=("n4.example",),
        with_authority=with_authority,
    )


def joiner(made: JoinTicket, private: ec.EllipticCurvePrivateKey) -> Joiner:
    """Return the request of a joiner that does everything right."""
    return Joiner(
        ticket_certificate=door_of(made.secret, made.node_id).certificate,
        request_id=str(uuid.uuid4()),
        address="n4:7301",
        certificate_request=request_of(private),
        hosts=("n4.example",),
    )


async def refused(node: OneNode, asks: Joiner, files: Files | None = None) -> Reason:
    """Return why a joiner is refused; check that no node is recorded."""
    before = node.primary_db.execute("SELECT * FROM nodes").fetchall()
    with pytest.raises(Refused) as raised:
        await joining(node, files).admit(asks, timeout_s=60)
    assert node.primary_db.execute("SELECT * FROM nodes").fetchall() == before
    return raised.value.rejected.reason


def events(node: OneNode) -> list[tuple[str, ...]]:
    return node.primary_db.execute(
        "SELECT actor, action, target, outcome, reason FROM audit_events "
        "ORDER BY sequence"
    ).fetchall()


async def test_a_joiner_gets_a_certificate_and_the_ring(node: OneNode) -> None:
    """(P5) The certificate names the ticket's node, whatever the request named."""
    made, private = await ticket(node), key()
    admission = await joining(node).admit(joiner(made, private), timeout_s=60)

    certificate = x509.load_pem_x509_certificate(admission.certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(MEMBERS.pem))
    assert certificate.public_key() == private.public_key()
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "sparecode://member/n4"
    ]
    assert "n4.example" in names.get_values_for_type(x509.DNSName)
    opened = unwrap(admission.wrapped, private, cluster_id=made.cluster_id, node_id=N4)
    assert opened == RING
    assert admission.members_ca == MEMBERS.pem
    assert dict(admission.members) == {
        "n0": "n0:7301",
        "n1": "n1:7301",
        "n3": "n3:7301",
    }
    assert node.primary_db.execute(
        "SELECT node_id, address, removed FROM nodes"
    ).fetchall() == [("n4", "n4:7301", 0)]
    assert events(node)[-1] == ("joiner:n4", "AdmitNode", "n4", "applied", "")


async def test_the_ring_is_for_one_key_of_one_cluster(node: OneNode) -> None:
    """(P5) The ticket and even the answer do not reveal the ring."""
    made, private = await ticket(node), key()
    admission = await joining(node).admit(joiner(made, private), timeout_s=60)
    assert b"the ring" not in admission.wrapped
    for who, cluster_id, node_id in (
        (key(), made.cluster_id, "n4"),
        (private, "another", "n4"),
        (private, made.cluster_id, "n5"),
    ):
        with pytest.raises(CannotUnwrapError):
            unwrap(
                admission.wrapped, who, cluster_id=cluster_id, node_id=NodeId(node_id)
            )


async def test_a_ticket_is_good_once(node: OneNode) -> None:
    """(P5) For one key: only that key may fetch a lost answer again."""
    made, private = await ticket(node), key()
    first = joiner(made, private)
    await joining(node).admit(first, timeout_s=60)
    await joining(node).admit(first, timeout_s=60)
    await joining(node).admit(joiner(made, private), timeout_s=60)
    assert await refused(node, joiner(made, key())) is Reason.TICKET_USED
    assert events(node)[-1][-1] == "ticket_used"


async def test_a_ticket_used_twice_at_once_admits_one_node(node: OneNode) -> None:
    """(P5) The thief's commit comes first, and the owner learns of it."""
    made = await ticket(node)
    await joining(node).admit(joiner(made, key()), timeout_s=60)
    node.replicator.lags = True  # This node has not applied it yet.
    assert await refused(node, joiner(made, key())) is Reason.TICKET_USED


async def test_a_ticket_ends(node: OneNode) -> None:
    """(P5) After 15 minutes by the log's time. The reason is known for an hour."""
    made = await ticket(node)
    node.clock.pass_s(15 * 60)
    assert await refused(node, joiner(made, key())) is Reason.TICKET_ENDED
    node.clock.pass_s(60 * 60)
    assert await refused(node, joiner(made, key())) is Reason.TICKET_UNKNOWN


async def test_a_newer_ticket_replaces_an_older(node: OneNode) -> None:
    made = await ticket(node)
    newer = await ticket(node)
    assert await refused(node, joiner(made, key())) is Reason.TICKET_UNKNOWN
    await joining(node).admit(joiner(newer, key()), timeout_s=60)


async def test_without_the_authoritys_key_the_joiner_brings_a_certificate(
    node: OneNode,
) -> None:
    """A certificate that the cluster's authority signed elsewhere is as good."""
    made, private = await ticket(node), key()
    asks, files = joiner(made, private), Files(signs=False)
    assert await refused(node, asks, files) is Reason.AUTHORITY_MISSING
    own = MEMBERS.certify_member("n4", private.public_key(), now=NOW)
    brings = replace(asks, certificate_request=b"", certificate=der(own)[0])
    admission = await joining(node, files).admit(brings, timeout_s=60)
    assert admission.certificate == b""
    unwrap(admission.wrapped, private, cluster_id=made.cluster_id, node_id=N4)


async def test_a_certificate_must_be_fit_for_the_member(node: OneNode) -> None:
    """Each unfit one is refused before anything is written, and audited (U1)."""
    made, private = await ticket(node), key()
    public = private.public_key()
    asks = replace(joiner(made, private), certificate_request=b"")
    months = dt.timedelta(days=400)
    for certificate in (
        der(STRANGERS.certify_member("n4", public, now=NOW))[0],
        der(MEMBERS.certify_member("n5", public, now=NOW))[0],
        der(MEMBERS.certify_member("n4", public, now=NOW - months))[0],
        der(MEMBERS.issue_agent("vpn", now=NOW).certificate)[0],
        b"nothing",
    ):
        reason = await refused(node, replace(asks, certificate=certificate))
        assert reason is Reason.JOINER_CERTIFICATE
    wide = rsa.generate_private_key(65537, 2048)
    for request in (b"", b"nothing", request_of(wide)):
        reason = await refused(node, replace(asks, certificate_request=request))
        assert reason is Reason.JOINER_CERTIFICATE
    await node.refusals.flush(node.replicator)
    noted = ("joiner:n4", "NoteRefusedCalls", "JoiningService/Join", "refused")
    assert events(node)[-1] == (*noted, "joiner_certificate")


async def test_no_node_joins_under_the_id_of_a_founder(node: OneNode) -> None:
    """Not even with a ticket made after its removal: ids are not used again."""
    made = await ticket(node)
    asks = joiner(made, key())
    await node.membership.add_member(
        node.admin("ClusterService/AddMember"), node_id="n4", address="n4:7301"
    )
    assert await refused(node, asks) is Reason.MEMBER_EXISTS
    await node.membership.remove_member(
        node.admin("ClusterService/RemoveMember"), node_id="n4"
    )
    again = joiner(made, key())
    assert await refused(node, again) is Reason.MEMBER_REMOVED


async def test_bad_fields_are_named(node: OneNode) -> None:
    made = await ticket(node)
    asks = joiner(made, key())
    for field, spoiled in (
        ("address", replace(asks, address="0.0.0.0:7301")),
        ("request_id", replace(asks, request_id="1")),
        ("hosts", replace(asks, hosts=("h",) * 17)),
        ("hosts", replace(asks, hosts=("no host",))),
        ("hosts", replace(asks, hosts=("n4", "N1.members.sparecode"))),
    ):
        with pytest.raises(InvalidFieldError, match=field):
            await joining(node).admit(spoiled, timeout_s=60)
    assert await refused(node, asks, Files(signs=False)) is Reason.AUTHORITY_MISSING


async def test_spelling_of_an_address_does_not_matter(node: OneNode) -> None:
    """A retry in capital letters is the same node."""
    made, private = await ticket(node, "n4.Example:7301"), key()
    asks = joiner(made, private)
    first = await joining(node).admit(
        replace(asks, address="N4.example:07301"), timeout_s=5
    )
    again = await joining(node).admit(
        replace(asks, address="n4.example:7301"), timeout_s=5
    )
    assert again.members == first.members
    row = node.primary_db.execute(
        "SELECT address FROM nodes WHERE node_id = 'n4'"
    ).fetchone()
    assert row == ("n4.example:7301",)


async def test_without_a_quorum_no_node_is_admitted(node: OneNode) -> None:
    """(A7) The ticket stays valid."""
    made, private = await ticket(node), key()
    node.replicator.down = NoQuorumError("alone")
    with pytest.raises(NoQuorumError):
        await joining(node).admit(joiner(made, private), timeout_s=60)
    node.replicator.down = None
    await joining(node).admit(joiner(made, private), timeout_s=60)
