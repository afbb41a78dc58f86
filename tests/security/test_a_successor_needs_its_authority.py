# SPDX-License-Identifier: Apache-2.0
"""
A successor of an authority is trusted for two reasons, and never for one (P6a).

The attacks: a member without the authority's key announces a successor; the removed
member, which has the key, signs one; an old announcement comes again; one administrator
alone ends the trust in what everyone uses.
"""

import contextlib
import dataclasses
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    AuthorityKey,
    AuthorityKind,
    Successor,
    fingerprints,
)
from sparecode_node.membership.authority import FileAuthority, signers, trusted
from sparecode_node.membership.bundle_record import BundleState, bundle_state
from sparecode_node.membership.certificates import Authority
from sparecode_node.membership.own_tls import member_tls
from sparecode_node.membership.preparation import STATE
from sparecode_node.membership.successors import FOLDER, announcement, signed_content
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.authority_replacement import (
    WAIT_S,
    AuthorityReplacement,
)
from sparecode_node.services.cluster.authority_use import trusted_successor
from sparecode_node.services.cluster.joining import fingerprint_of
from sparecode_node.services.errors import ApprovalNeededError, Refused
from sparecode_node.statemachine.commands.membership import (
    AnnounceAuthority,
    NoteAuthorityKeys,
)
from sparecode_node.statemachine.tables import formats
from sparecode_node.statemachine.tables.authorities import save_successor, successors
from tests.rpc.loopback_node import new_id, running_node
from tests.security.administrators import SUPER_ADMIN, administrator, root
from tests.security.test_a_joiner_gets_what_its_ticket_says import AUTHORITIES
from tests.security.test_a_removed_member_has_no_authority import (
    commit,
    due,
    due_of,
    note,
    remove,
)
from tests.security.test_an_authority_outlives_its_machine import (
    Machine,
    cheap_hashing,
    n1,
    n2,
)
from tests.services.one_node import PROOF, OneNode, one_node
from tests.services.test_administrators import settled
from tests.services.test_approvals import Pair
from tests.services.two_replicas import NODE

__all__ = ["cheap_hashing", "n1", "n2"]

NOW = dt.datetime.now(dt.UTC)
MEMBERS = AuthorityKind.MEMBERS


def private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def signed(machine: Machine, authority: Authority, maker: str = "n1") -> Successor:
    """Return a successor of the members' authority, with the proof by its key."""
    return announcement(
        MEMBERS,
        NodeId(maker),
        private((machine.folder / "tls/members-ca.key").read_bytes()),
        x509.load_pem_x509_certificate(authority.pem),
    )


def announce(machine: Machine, *successors: Successor) -> None:
    """Put successors into a node's state, as if a quorum had agreed."""
    with contextlib.closing(
        sqlite3.connect(machine.config.node.data_dir / STATE, isolation_level=None)
    ) as db:
        formats.prepare(db)
        db.execute("DELETE FROM authority_successors")
        for each in successors:
            save_successor(db, each)


def trusts(machine: Machine) -> set[str]:
    """Return the fingerprints of the members' authorities that a node trusts."""
    files = FileAuthority(machine.config)
    keys = trusted(files.members_ca(), files.agents_ca())
    return set(fingerprints(keys, MEMBERS))


def held(files: FileAuthority) -> tuple[AuthorityKey, ...]:
    """Return the authorities whose keys a node has; the members' one comes first."""
    return files.keys()


def test_a_proved_successor_is_trusted_beside_the_old_one(
    n1: Machine, n2: Machine
) -> None:
    """(P6a) By every member, whether it has the key or not. What is finished, alone."""
    before = trusts(n2)
    made = signed(n1, Authority.create("newer", now=NOW))
    for machine in (n1, n2):
        announce(machine, made)
        assert trusts(machine) == before | {made.fingerprint}
        announce(machine, dataclasses.replace(made, sole=True))
        assert trusts(machine) == {made.fingerprint}


def test_a_member_without_the_key_announces_nothing_that_is_trusted(
    n1: Machine, n2: Machine
) -> None:
    """(P6a) Whatever it signs with, and whatever it changes in a right announcement."""
    before = trusts(n2)
    right = signed(n1, Authority.create("newer", now=NOW))
    mine = Authority.create("mine", now=NOW)
    own = announcement(
        MEMBERS,
        NodeId("n2"),
        private(mine.key_pem),
        x509.load_pem_x509_certificate(mine.pem),
    )
    forged = [
        own,
        dataclasses.replace(own, replaces=right.replaces),
        dataclasses.replace(own, replaces=right.replaces, proof=right.proof),
        dataclasses.replace(right, proof=b""),
        dataclasses.replace(right, node_id=NodeId("n2")),
        dataclasses.replace(right, certificate=own.certificate),
        dataclasses.replace(
            right, certificate=own.certificate, fingerprint=own.fingerprint
        ),
        # The proof of an agents' authority makes no members' authority.
        dataclasses.replace(
            announcement(
                AuthorityKind.AGENTS,
                NodeId("n1"),
                private((n1.folder / "tls/members-ca.key").read_bytes()),
                x509.load_pem_x509_certificate(mine.pem),
            ),
            authority=MEMBERS,
        ),
    ]
    for each in forged:
        announce(n2, each)
        assert trusts(n2) == before, each
        announce(n2, dataclasses.replace(each, sole=True))
        assert trusts(n2) == before, each
    announce(n2, right)
    assert trusts(n2) != before


def test_the_key_alone_announces_nothing_either(n1: Machine, n2: Machine) -> None:
    """(P6a) The removed member has it; but no quorum has agreed to its successor."""
    before = trusts(n2)
    files = FileAuthority(n1.config)
    key = held(files)[0]
    made = files.made.make(key, NodeId("n1"), NOW)
    assert made is not None
    announce(n2)
    assert trusts(n2) == before
    announce(n2, made)
    assert made.fingerprint in trusts(n2)


def test_a_successor_is_an_authority_of_leaves(n1: Machine, n2: Machine) -> None:
    """(P6a) The certificate of a node signs no others."""
    before = trusts(n2)
    newer = Authority.create("newer", now=NOW)
    leaf = newer.issue_member("n9", now=NOW)
    announce(
        n2,
        announcement(
            MEMBERS,
            NodeId("n1"),
            private((n1.folder / "tls/members-ca.key").read_bytes()),
            x509.load_pem_x509_certificate(leaf.certificate),
        ),
    )
    assert trusts(n2) == before


def test_a_successor_has_a_successor(n1: Machine, n2: Machine) -> None:
    """(P6a) A node whose file has only the first authority follows both steps."""
    files = FileAuthority(n1.config)
    key = held(files)[0]
    first = files.made.make(key, NodeId("n1"), NOW)
    assert first is not None
    announce(n1, dataclasses.replace(first, sole=True))
    # The maker tells that it has the key, and it signs from now on.
    assert first.key in held(files)
    signed_now = files.sign(
        NodeId("n5"), ec.generate_private_key(ec.SECP256R1()).public_key(), (), NOW
    )
    assert signers(frozenset([signed_now]), files.members_ca()) == (first.fingerprint,)
    second = files.made.make(first.key, NodeId("n1"), NOW)
    assert second is not None
    assert second.replaces == first.fingerprint
    chain = [dataclasses.replace(each, sole=True) for each in (first, second)]
    announce(n2, *chain)
    assert trusts(n2) == {second.fingerprint}


def test_what_is_there_after_a_crash_is_announced(n1: Machine, n2: Machine) -> None:
    """(P6a) Between the files, and between the files and the announcement."""
    files = FileAuthority(n1.config)
    key = held(files)[0]
    folder = n1.config.node.data_dir / FOLDER
    first = files.made.make(key, NodeId("n1"), NOW)
    assert first is not None
    (key_file,) = folder.glob("*.key")
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    again = FileAuthority(n1.config).made.make(key, NodeId("n1"), NOW)
    assert again is not None
    assert again.certificate == first.certificate
    # A key without a certificate was never announced: both are made again.
    (folder / key_file.name).with_suffix(".pem").unlink()
    other = FileAuthority(n1.config).made.make(key, NodeId("n1"), NOW)
    assert other is not None
    announce(n1, other)
    assert FileAuthority(n1.config).made.authority(other) is not None
    assert FileAuthority(n2.config).made.make(key, NodeId("n2"), NOW) is None


def test_its_key_is_in_the_next_bundle(n1: Machine, n2: Machine) -> None:
    """(P5, P6a) It would be lost with the machine that made it."""
    n1.export(n1.folder / "a.bundle")
    files = FileAuthority(n1.config)
    key = held(files)[0]
    made = files.made.make(key, NodeId("n1"), NOW)
    assert made is not None
    assert bundle_state(n1.config) is BundleState.OUTDATED
    for machine in (n1, n2):
        announce(machine, dataclasses.replace(made, sole=True))
    n1.export(n1.folder / "b.bundle")
    assert bundle_state(n1.config) is BundleState.CURRENT
    assert not FileAuthority(n2.config).can_sign()
    restored = n2.restore(n1.folder / "b.bundle")
    assert restored.exit_code == 0, restored.output
    assert FileAuthority(n2.config).can_sign()
    assert made.key in held(FileAuthority(n2.config))


def test_an_operator_takes_the_successors_to_agents(n1: Machine, n2: Machine) -> None:
    """(P6a) The certificates from every node, the keys from their maker alone."""
    files = FileAuthority(n1.config)
    for machine in (n1, n2):
        empty = machine.run("authority", "export", machine.folder / "none")
        assert empty.exit_code == 1
    made = [files.made.make(key, NodeId("n1"), NOW) for key in held(files)]
    for machine in (n1, n2):
        announce(machine, *(each for each in made if each is not None))
        done = machine.run("authority", "export", machine.folder / "new")
        assert done.exit_code == 0, done.output
    names = {each.name for each in (n1.folder / "new").iterdir()}
    assert names == {
        f"{kind}-ca.{end}" for kind in AuthorityKind for end in ("pem", "key")
    }
    assert {each.name for each in (n2.folder / "new").iterdir()} == {
        "members-ca.pem",
        "agents-ca.pem",
    }
    again = n1.run("authority", "export", n1.folder / "new")
    assert again.exit_code == 1
    agent = n1.run("certificates", n1.folder / "new", "--agent", "vpn")
    assert agent.exit_code == 0, agent.output


class Maker:
    """The files of a node that can make successors, and what it has made."""

    def __init__(self, *, has_key: bool = True) -> None:
        self.has_key = has_key
        self.accepted: tuple[Successor, ...] = ()
        self.made: list[AuthorityKey] = []

    def make(self, key: AuthorityKey) -> Successor | None:
        if not self.has_key:
            return None
        self.made.append(key)
        return Successor(
            authority=key.authority,
            replaces=key.fingerprint,
            node_id=NODE,
            fingerprint="cc" * 32,
            certificate=b"certificate",
            proof=PROOF,
        )


def replacement(node: OneNode, maker: Maker) -> AuthorityReplacement:
    return AuthorityReplacement(
        replicator=node.replicator,
        state=node.state,
        clock=node.clock,
        entropy=SystemEntropy(),
        accepted=lambda: maker.accepted,
        make=maker.make,
    )


async def start_by_hand(node: OneNode) -> None:
    """Change the policy: a removal starts no replacement."""
    policy = await node.policies.get(node.admin("PolicyService/GetPolicy"))
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.value.version,
        values={"replace_authorities_after_removal": False},
    )


@pytest_asyncio.fixture
async def removal(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node, n1, after the removal of n3; n1 and n0 have had the keys."""
    async with one_node(tmp_path) as node:
        for each in (NODE, "n0", "n3"):
            commit(node, NoteAuthorityKeys(node_id=NodeId(each), keys=AUTHORITIES))
        await remove(node, "n3")
        yield node


def announced(node: OneNode) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = node.primary_db.execute(
        "SELECT authority, replaces FROM authority_successors ORDER BY authority DESC"
    ).fetchall()
    return rows


@pytest.mark.asyncio
async def test_the_primary_makes_it_once(removal: OneNode) -> None:
    """(P6a) The removal starts it, by policy."""
    removal.replicator.leads = True
    maker = Maker()
    here = replacement(removal, maker)
    await here.step()
    assert announced(removal) == [
        (key.authority.value, key.fingerprint) for key in AUTHORITIES
    ]
    made = [maker.make(key) for key in AUTHORITIES]
    maker.accepted = tuple(each for each in made if each is not None)
    maker.made.clear()
    await here.step()
    assert maker.made == []
    # A successor that this node does not accept, or of a removed member, is none.
    maker.accepted = tuple(
        dataclasses.replace(each, node_id=NodeId("n3")) for each in maker.accepted
    )
    await here.step()
    assert maker.made == sorted(AUTHORITIES, key=str)


@pytest.mark.asyncio
async def test_another_member_makes_it_if_the_first_does_not(removal: OneNode) -> None:
    """(P6a) n0 comes first; it has the time that it needs, and no more."""
    maker = Maker()
    here = replacement(removal, maker)
    await here.step()
    assert maker.made == []
    removal.clock.pass_s(WAIT_S - 1)
    await here.step()
    assert announced(removal) == []
    removal.clock.pass_s(1)
    await here.step()
    assert len(announced(removal)) == len(AUTHORITIES)


@pytest.mark.asyncio
async def test_a_member_without_the_key_makes_none(removal: OneNode) -> None:
    """(P6a) It waits for one that has it; if there is none, the operators act."""
    removal.replicator.leads = True
    await replacement(removal, Maker(has_key=False)).step()
    assert announced(removal) == []


@pytest.mark.asyncio
async def test_nothing_is_made_while_nothing_is_due(tmp_path: Path) -> None:
    """(P6a) Nor announced, and an old announcement is not accepted again."""
    async with one_node(tmp_path) as node:
        node.replicator.leads = True
        for each in (NODE, "n3"):
            commit(node, NoteAuthorityKeys(node_id=NodeId(each), keys=AUTHORITIES))
        maker = Maker()
        await replacement(node, maker).step()
        assert maker.made == []
        made = maker.make(AUTHORITIES[0])
        assert made is not None
        old = AnnounceAuthority(
            node_id=made.node_id,
            authority=made.authority,
            replaces=made.replaces,
            fingerprint=made.fingerprint,
            certificate=made.certificate,
            proof=made.proof,
        )
        commit(node, old)
        assert announced(node) == []
        await start_by_hand(node)
        await remove(node, "n3")
        assert not any(each.started for each in await due(node))
        commit(node, old)
        assert announced(node) == []
        await node.membership.replace_authorities(
            node.admin("ClusterService/ReplaceAuthorities"), node_id="n3"
        )
        commit(node, old)
        assert len(announced(node)) == 1


@pytest_asyncio.fixture
async def announced_removal(removal: OneNode) -> OneNode:
    """Return the node after both successors were announced."""
    removal.replicator.leads = True
    await replacement(removal, Maker()).step()
    return removal


NEWER = tuple(dataclasses.replace(each, fingerprint="cc" * 32) for each in AUTHORITIES)


@pytest.mark.asyncio
async def test_trust_in_the_old_ends_when_all_use_the_new(
    announced_removal: OneNode,
) -> None:
    """(P6a) A member that was forgotten would be cut off."""
    node = announced_removal
    trust, shown = node.replicator.authorities, node.replicator.shown

    async def finish() -> None:
        await node.membership.replace_authorities(
            node.admin("ClusterService/ReplaceAuthorities"), node_id="n3", finish=True
        )

    async def sign() -> str:
        accepted = successors(node.primary_db)
        return await trusted_successor(node.replicator, accepted, timeout_s=60)

    old, new = AUTHORITIES[0].fingerprint, NEWER[0].fingerprint
    both = (*AUTHORITIES, *NEWER)
    for n0_trusts, n0_shows, words in (
        ((), (new,), "n0 does not answer"),
        (AUTHORITIES, (new,), "every member"),
        (both, (), "n0 shows a certificate"),
        (both, (old,), "n0 shows a certificate"),
        (both, (new, old), "n0 shows a certificate"),
    ):
        trust.update({NODE: both, "n0": n0_trusts})
        shown.update({NODE: (new,), "n0": n0_shows})
        with pytest.raises(Refused, match=words):
            await finish()
        if n0_trusts != both:
            # Nor does anyone get a certificate that n0 would refuse.
            with pytest.raises(Refused):
                await sign()
    assert await sign() == new
    shown["n0"] = (new,)
    await node.membership.add_member(
        node.admin("ClusterService/AddMember"), node_id="n7", address="n7:7301"
    )
    with pytest.raises(Refused, match="n7 is about to join"):
        await finish()
    await remove(node, "n7")
    await finish()
    assert node.primary_db.execute(
        "SELECT min(sole) FROM authority_successors"
    ).fetchone() == (1,)


def announcing(maker: str, fingerprint: str, proof: bytes) -> AnnounceAuthority:
    """Return the announcement of a successor of the members' authority."""
    return AnnounceAuthority(
        node_id=NodeId(maker),
        authority=MEMBERS,
        replaces=AUTHORITIES[0].fingerprint,
        fingerprint=fingerprint * 32,
        certificate=b"certificate",
        proof=proof,
    )


def chosen(node: OneNode) -> list[tuple[str, int]]:
    """Return the successors of the members' authority, and whether they are alone."""
    rows: list[tuple[str, int]] = node.primary_db.execute(
        "SELECT fingerprint, sole FROM authority_successors "
        "WHERE authority = 'members' ORDER BY since_ms, node_id"
    ).fetchall()
    return rows


async def finish_on(node: OneNode, shown: dict[str, tuple[str, ...]]) -> None:
    """End the trust in the old, while both members trust everything that was announced."""
    every = (*AUTHORITIES, *(each.key for each in successors(node.primary_db)))
    node.replicator.authorities.update({NODE: every, "n0": every})
    node.replicator.shown.update(shown)
    await node.membership.replace_authorities(
        node.admin("ClusterService/ReplaceAuthorities"), node_id="n3", finish=True
    )


@pytest.mark.asyncio
async def test_what_is_not_proved_is_never_chosen(removal: OneNode) -> None:
    """(P6a) Although it was announced first, by a member that claims to have the key."""
    commit(removal, announcing("n0", "cc", b"forged"))
    removal.replicator.leads = True
    await replacement(removal, Maker()).step()
    new = NEWER[0].fingerprint
    await finish_on(removal, {NODE: (new,), "n0": (new,)})
    (left,) = [
        each for each in successors(removal.primary_db) if each.authority is MEMBERS
    ]
    assert (left.fingerprint, left.node_id, left.proof, left.sole) == (
        new,
        NODE,
        PROOF,
        True,
    )


@pytest.mark.asyncio
async def test_an_announcement_stays_as_it_is(announced_removal: OneNode) -> None:
    """(P6a) Members may use certificates of it already, and nothing else has its name."""
    node = announced_removal
    before = chosen(node)
    commit(node, announcing(NODE, "ee", PROOF))
    commit(node, announcing("n0", "aa", PROOF))
    assert {each.replaces for each in successors(node.primary_db)} == {
        each.fingerprint for each in AUTHORITIES
    }
    assert AUTHORITIES[0].fingerprint not in dict(chosen(node))
    assert chosen(node) == before


@pytest.mark.asyncio
async def test_no_member_is_cut_off_by_a_second_successor(
    announced_removal: OneNode,
) -> None:
    """(P6a) Of two successors one ends: no member may show a certificate of it."""
    node = announced_removal
    commit(node, announcing("n0", "dd", PROOF))
    first, second = "dd" * 32, NEWER[0].fingerprint
    assert [each for each, _ in chosen(node)] == [first, second]
    with pytest.raises(
        Refused, match="n0 shows a certificate of an authority that ends"
    ):
        await finish_on(node, {NODE: (first,), "n0": (second,)})
    await finish_on(node, {NODE: (first,), "n0": (first,)})
    assert chosen(node) == [(first, 1)]


def test_a_state_that_cannot_be_read_renews_no_trust(n1: Machine, n2: Machine) -> None:
    """(P6a) A node without its successors would trust an authority that has ended."""
    for made in (signed(n1, Authority.create("newer", now=NOW)),):
        announce(n2, dataclasses.replace(made, sole=True))
        assert trusts(n2) == {made.fingerprint}
    state = n2.config.node.data_dir / STATE
    state.write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match="not a database"):
        trusts(n2)


def test_a_file_with_the_successor_ends_the_old_one_too(
    n1: Machine, n2: Machine
) -> None:
    """(P6a) A node that joined during the replacement has both in its file."""
    newer = Authority.create("newer", now=NOW)
    made = signed(n1, newer)
    with n2.config.peers.ca.open("ab") as file:
        file.write(newer.pem)
    announce(n2, made)
    assert len(trusts(n2)) == 2
    announce(n2, dataclasses.replace(made, sole=True))
    assert trusts(n2) == {made.fingerprint}


def test_an_odd_certificate_stops_no_node(n1: Machine, n2: Machine) -> None:
    """(P6a) Its version is one that the library refuses, and its proof is right."""
    before = trusts(n2)
    made = signed(n1, Authority.create("newer", now=NOW))
    odd = made.certificate.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)
    assert odd != made.certificate
    unsigned = dataclasses.replace(made, certificate=odd)
    key = private((n1.folder / "tls/members-ca.key").read_bytes())
    proof = key.sign(signed_content(unsigned), ec.ECDSA(hashes.SHA256()))
    announce(n2, dataclasses.replace(unsigned, proof=proof))
    assert trusts(n2) == before


def test_the_tools_of_a_stopped_node_trust_its_successors(
    n1: Machine, n2: Machine
) -> None:
    """(P6a) `recover` asks the other members: it must not take them for gone."""
    made = signed(n1, Authority.create("newer", now=NOW))
    announce(n2, made)
    known = x509.load_pem_x509_certificates(member_tls(n2.config, NOW).ca)
    assert made.fingerprint in {fingerprint_of(each.public_key()) for each in known}


@pytest.mark.asyncio
async def test_a_super_administrator_alone_replaces_none(tmp_path: Path) -> None:
    """(P3, P6a) Twenty clicks ask once."""
    async with running_node(tmp_path) as running:
        add = pb.AddMemberRequest(request_id=new_id(), node_id="n4", address="n4:7301")
        await root(running).call(ClusterServiceStub, "AddMember", add)
        eve = await administrator(running, "eve", SUPER_ADMIN)
        note(running, "n4")
        await root(running).call(
            ClusterServiceStub,
            "RemoveMember",
            pb.RemoveMemberRequest(request_id=new_id(), node_id="n4"),
        )
        numbers = {
            await root(running).needs_approval(
                ClusterServiceStub,
                "ReplaceAuthorities",
                pb.ReplaceAuthoritiesRequest(request_id=new_id(), node_id="n4"),
            )
            for _ in range(3)
        }
        assert len(numbers) == 1
        await eve.approve(numbers.pop())
        assert await due_of(running) == ["members", "agents"]


@pytest.mark.asyncio
async def test_a_super_administrator_alone_ends_no_trust(
    announced_removal: OneNode,
) -> None:
    """(P3, P6a) Agents with an old certificate would be cut off, and so would members."""
    node = announced_removal
    dora = await settled(node, Role.SUPER_ADMIN)
    shown = dict.fromkeys(("n0", NODE), (NEWER[0].fingerprint,))
    with pytest.raises(ApprovalNeededError) as needed:
        await finish_on(node, shown)
    alone = "SELECT max(sole) FROM authority_successors"
    assert node.primary_db.execute(alone).fetchone() == (0,)
    node.bearer = dora
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"),
        approval_id=needed.value.approval_id,
    )
    assert node.primary_db.execute(alone).fetchone() == (1,)


async def keep(node: OneNode) -> None:
    await node.membership.keep_authorities(
        node.admin("ClusterService/KeepAuthorities"),
        node_id="n3",
        reason="its disk was shredded",
    )


@pytest.mark.asyncio
async def test_what_stays_has_no_successor(announced_removal: OneNode) -> None:
    """(P6a) Else a successor that no one watches would be trusted forever."""
    node = announced_removal
    old = (AUTHORITIES[0].fingerprint,)
    node.replicator.authorities = dict.fromkeys(("n0", NODE), AUTHORITIES)
    node.replicator.shown = {"n0": old, NODE: old}
    await keep(node)
    assert announced(node) == []
    assert await due(node) == ()


@pytest.mark.asyncio
async def test_a_successor_in_use_does_not_end(announced_removal: OneNode) -> None:
    """(P6a) The others would refuse the member that shows its certificate."""
    node = announced_removal
    new = next(
        each.fingerprint
        for each in successors(node.primary_db)
        if each.authority is MEMBERS
    )
    node.replicator.authorities = dict.fromkeys(("n0", NODE), AUTHORITIES)
    node.replicator.shown = {"n0": (new,), NODE: (AUTHORITIES[0].fingerprint,)}
    with pytest.raises(Refused, match="n0 shows a certificate of the successor"):
        await keep(node)
    del node.replicator.authorities["n0"]
    with pytest.raises(Refused, match="n0 does not answer"):
        await keep(node)
    assert announced(node) != []


@pytest.mark.asyncio
@pytest.mark.parametrize("finish", [False, True])
async def test_an_approval_looks_at_the_members_again(
    announced_removal: OneNode, *, finish: bool
) -> None:
    """
    (P3, P6a) A request waits for up to a day, and members take certificates meanwhile.

    The change would cut off the member that shows one of an authority that ends.
    """
    node = announced_removal
    old, new = AUTHORITIES[0].fingerprint, NEWER[0].fingerprint
    stays, ends = (new, old) if finish else (old, new)
    pair = Pair(node, node.bearer, await settled(node, Role.SUPER_ADMIN))
    node.replicator.authorities = dict.fromkeys(
        ("n0", NODE), (*AUTHORITIES, *NEWER) if finish else AUTHORITIES
    )
    node.replicator.shown = {"n0": (stays,), NODE: (stays,)}
    with pytest.raises(ApprovalNeededError) as needed:
        await (finish_on(node, node.replicator.shown) if finish else keep(node))
    number = needed.value.approval_id
    node.replicator.shown["n0"] = (ends,)
    before = await due(node)
    with pytest.raises(Refused, match="n0 shows a certificate"):
        await pair.approve(number)
    assert await due(node) == before
    node.replicator.shown["n0"] = (stays,)
    await pair.approve(number)


@pytest.mark.asyncio
async def test_a_maker_sees_what_it_has_not_made(
    removal: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    """(P6a) Who speaks in its name has the key of its own machine."""
    maker = Maker()
    made = maker.make(AUTHORITIES[0])
    assert made is not None
    maker.accepted = (made,)
    task = AuthorityReplacement(
        replicator=removal.replicator,
        state=removal.state,
        clock=removal.clock,
        entropy=SystemEntropy(),
        accepted=lambda: maker.accepted,
        make=maker.make,
        made_here=lambda each: each.fingerprint != made.fingerprint,
    )
    for _ in range(2):
        await task.step()
    alarms = [e for e in caplog.records if e.message == "successor_not_made_here"]
    assert len(alarms) == 1
