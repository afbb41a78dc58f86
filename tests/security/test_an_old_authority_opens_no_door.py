# SPDX-License-Identifier: Apache-2.0
"""
The key of a removed member opens nothing once its authority is replaced (P6a).

The attacker has the removed machine, with the keys of both authorities. The attacks, in
the middle and after the end: certificates in other names, a chain that pretends to be
the successor's, and further successors.
"""

import contextlib
import dataclasses
import ssl

import pytest
import pytest_asyncio
from cryptography import x509

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import AuthorityKind, Successor
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.certificates import Authority, Issued
from sparecode_node.membership.successors import announcement
from sparecode_node.radius.radsec import tls_context
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands import UnstampedCall
from tests.rpc.loopback_node import new_id
from tests.security.test_a_successor_needs_its_authority import (
    NEWER,
    NOW,
    Maker,
    announce,
    announcing,
    chosen,
    finish_on,
    private,
    removal,
    replacement,
)
from tests.security.test_an_authority_outlives_its_machine import (
    Machine,
    cheap_hashing,
    n1,
    n2,
)
from tests.services.one_node import PROOF, OneNode
from tests.services.two_replicas import NODE

__all__ = ["cheap_hashing", "n1", "n2", "removal"]

AGENTS = AuthorityKind.AGENTS


def old_authority(machine: Machine, kind: AuthorityKind) -> Authority:
    """Return an authority of the removed machine, with its key."""
    file = machine.folder / f"tls/{kind}-ca.pem"
    return Authority.from_pem(file.read_bytes(), file.with_suffix(".key").read_bytes())


def exchanged(machine: Machine, client: Issued, chain: bytes = b"") -> bool:
    """Return whether a node with a machine's files accepts a caller's certificate."""
    folder = machine.folder
    files = FileAuthority(machine.config)
    server = tls_context(
        folder / "tls/node.pem", folder / "tls/node.key", files.agents_ca()
    )
    (folder / "caller.pem").write_bytes(client.certificate + chain)
    (folder / "caller.key").write_bytes(client.key)
    caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
    caller.load_cert_chain(folder / "caller.pem", folder / "caller.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        server.wrap_bio(to_server, to_client, server_side=True),
        caller.wrap_bio(to_client, to_server),
    )
    try:
        for _ in range(4):
            for side in sides:
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError:
        return False
    return sides[0].getpeercert() is not None


@pytest.fixture
def replaced(n1: Machine, n2: Machine) -> Authority:
    """Let n2 apply the announcement of a new authority for agents; return it."""
    newer = Authority.create("newer", now=NOW)
    announce(n2, successor_of(n1, newer))
    return newer


def successor_of(machine: Machine, newer: Authority, maker: str = "n1") -> Successor:
    """Return the announcement of an authority for agents, with its proof."""
    return announcement(
        AGENTS,
        NodeId(maker),
        private(old_authority(machine, AGENTS).key_pem),
        x509.load_pem_x509_certificate(newer.pem),
    )


def test_a_certificate_of_the_old_key_opens_nothing_after_the_end(
    n1: Machine, n2: Machine, replaced: Authority
) -> None:
    """(P6a) Until then it does: both are trusted, and only a denial stops it."""
    old = old_authority(n1, AGENTS)
    stolen = old.issue_agent("vpn", now=NOW)
    own = replaced.issue_agent("vpn", now=NOW)
    assert exchanged(n2, stolen)
    assert exchanged(n2, own)
    announce(n2, dataclasses.replace(successor_of(n1, replaced), sole=True))
    assert not exchanged(n2, stolen)
    assert not exchanged(n2, old.issue_agent("mail", now=NOW), chain=old.pem)
    assert exchanged(n2, own)


def test_no_chain_leads_from_the_old_key_to_the_successor(
    n1: Machine, n2: Machine, replaced: Authority
) -> None:
    """(P6a) An authority of the successor's name, with the attacker's own key."""
    announce(n2, dataclasses.replace(successor_of(n1, replaced), sole=True))
    false = Authority.create("newer", now=NOW)
    stolen = false.issue_agent("vpn", now=NOW)
    assert not exchanged(n2, stolen)
    assert not exchanged(n2, stolen, chain=false.pem)
    assert not exchanged(n2, stolen, chain=replaced.pem)
    # A certificate of the successor signs no other.
    own = replaced.issue_agent("mail", now=NOW)
    forged = Authority.from_pem(own.certificate, own.key).issue_agent("vpn", now=NOW)
    assert not exchanged(n2, forged, chain=own.certificate + replaced.pem)


@pytest_asyncio.fixture
async def middle(removal: OneNode) -> OneNode:
    """Return the node n1 after the removal of n3, with both successors announced."""
    removal.replicator.leads = True
    await replacement(removal, Maker()).step()
    return removal


@pytest.mark.asyncio
async def test_the_removed_member_announces_no_successor(middle: OneNode) -> None:
    """(P6a) With its own name, and in the name of a member whose call it is not."""
    before = chosen(middle)
    for maker, caller in (("n3", "n3"), ("n0", "n3"), ("n3", "n0")):
        assert isinstance(committed(middle, maker, caller), Rejected)
    assert chosen(middle) == before


@pytest.mark.asyncio
async def test_nothing_follows_an_authority_that_has_ended(middle: OneNode) -> None:
    """(P6a) A member and the removed machine together: the one calls, the other signs."""
    new = NEWER[0].fingerprint
    await finish_on(middle, {NODE: (new,), "n0": (new,)})
    for maker in (NODE, "n0"):
        assert isinstance(committed(middle, maker, maker), Rejected)
    assert chosen(middle) == [(new, 1)]


def committed(node: OneNode, maker: str, caller: str) -> object:
    """Commit an announcement of a maker by another caller; return what became of it."""
    command = announcing(maker, "dd", PROOF)
    call = UnstampedCall.of_node(NodeId(caller), command, RequestId(new_id()))
    (result,) = node.replicator.commit([Proposal(call=call)])
    return result
