# SPDX-License-Identifier: Apache-2.0
"""Bundles, and the rules for which node may recover, without a running node."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.ids import KeyId, NodeId, TokenSerial
from sparecode_node.membership import recovery
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.replication.offline.refounding import SurvivingLog
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import bundles
from sparecode_node.services.cluster.bundles import Bundle, BundleError
from sparecode_node.services.files import age_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealed_values import Draft
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing

OWN = SurvivingLog(
    cluster_id="c1",
    node_id=NodeId("n1"),
    members=tuple(
        Member(node_id=NodeId(name), address=f"{name}:7301")
        for name in ("n1", "n2", "n3")
    ),
    applied_index=9,
    last_index=10,
    last_term=3,
)


def member(name: str, last_entry: tuple[int, int] | None) -> MemberStatus:
    return MemberStatus(
        node_id=NodeId(name),
        reachable=last_entry is not None,
        last_entry=last_entry or (0, 0),
    )


@pytest.mark.parametrize(
    ("n2", "n3", "message"),
    [
        (None, None, ""),
        ((3, 11), None, "n2 has more of the log (entry 11 of term 3)"),
        (None, (4, 2), "n3 has more of the log (entry 2 of term 4)"),
        ((3, 10), None, "the quorum is not lost: n2 can be reached"),
        ((2, 99), None, "the quorum is not lost"),
    ],
)
def test_a_survivor_with_less_of_the_log_is_refused(
    n2: tuple[int, int] | None, n3: tuple[int, int] | None, message: str
) -> None:
    """The term decides first: a log that ends in a later term is newer, even if shorter."""
    objection = recovery.objection(OWN, [member("n2", n2), member("n3", n3)])
    assert objection.startswith(message)
    assert bool(objection) == bool(message)


@pytest.mark.parametrize(
    ("n2", "busy", "message"),
    [
        (None, True, "n3 is not lost, but too busy"),
        (None, False, ""),
        ((3, 9), True, "the quorum is not lost"),
        ((3, 9), False, "the quorum is not lost"),
    ],
)
def test_a_busy_member_is_not_lost(
    n2: tuple[int, int] | None, busy: bool, message: str
) -> None:
    """It may have more of the log: keeping it busy must not found a second cluster."""
    n3 = replace(member("n3", None), busy=busy)
    objection = recovery.objection(OWN, [member("n2", n2), n3])
    assert objection.startswith(message)
    assert bool(objection) == bool(message)


def test_one_live_member_of_five_does_not_prevent_recovery() -> None:
    """Two of five are no quorum: the member with more of the log recovers."""
    names = ("n3", "n4", "n5")
    others = [member("n2", (3, 9)), *(member(name, None) for name in names)]
    assert recovery.objection(OWN, others) == ""


def test_a_removed_node_does_not_become_the_cluster() -> None:
    own = replace(OWN, node_id=NodeId("n9"))
    assert recovery.objection(own, []).startswith("n9 was removed")


def test_a_single_node_has_not_lost_its_quorum() -> None:
    own = replace(OWN, members=OWN.members[:1])
    assert "this node is the whole cluster" in recovery.objection(own, [])


def test_only_voters_are_polled() -> None:
    """A learner neither makes a quorum nor is needed for one."""
    learner = Member(node_id=NodeId("n4"), address="n4:7301", role=MemberRole.LEARNER)
    own = replace(OWN, members=(*OWN.members, learner))
    assert [each.node_id for each in own.other_voters] == ["n2", "n3"]


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing.draw(SystemEntropy())


def test_a_new_clusters_ring_opens_stored_secrets_but_no_drafts(
    ring: KeyRing,
) -> None:
    """(E1, I3) Seeds and verifiers stay; an earlier draft does not open any more."""
    before, after = Sealing(ring), Sealing(ring.for_cluster("c2"))
    assert after.cluster_id == "c2"
    serial, key = TokenSerial("1"), KeyId(1)
    sealed = before.seal_seed(serial, b"seed", key)
    assert after.unseal_seed(serial, sealed, key) == b"seed"
    assert after.checkpoint_public_key(key) == before.checkpoint_public_key(key)
    draft = Draft(
        draft_id="d",
        administrator="root",  # type: ignore[arg-type]
        serial=serial,
        user_id="u",  # type: ignore[arg-type]
        auth_version=1,
        policy_version=1,
        key_id=key,
        set_id="s",  # type: ignore[arg-type]
        code_length=8,
        ends_at_ms=1,
        verifiers=(b"v",),
    )
    with pytest.raises(BrokenSealError):
        after.unseal_draft(before.seal_draft(draft))
    again = ring.for_cluster("c2").for_cluster("c3")
    assert Sealing(again).unseal_seed(serial, sealed, key) == b"seed"


def test_a_ring_keeps_its_origin_in_its_file(ring: KeyRing, tmp_path: Path) -> None:
    ring.for_cluster("c2").save(tmp_path / "ring")
    read = KeyRing.load(tmp_path / "ring")
    assert (read.cluster_id, read.origin) == ("c2", ring.cluster_id)
    assert read.subkey(KeyId(1), "x") == ring.subkey(KeyId(1), "x")


def test_a_bundle_opens_only_with_its_key_or_passphrase(ring: KeyRing) -> None:
    """(P5) Nothing in it can be read without them."""
    _, public = age_files.new_identity()
    text = bundles.to_bytes(Bundle(ring=ring, files={"ca.key": b"the authority's"}))
    for sealed in (
        age_files.encrypt_bytes(text, [public]),
        age_files.encrypt_with_passphrase(text, "correct horse battery"),
    ):
        assert ring.cluster_id.encode() not in sealed
        assert b"the authority" not in sealed
    opened = bundles.from_bytes(
        age_files.decrypt_bytes(sealed, passphrase="correct horse battery")
    )
    assert opened.ring.to_bytes() == ring.to_bytes()
    assert opened.files == {"ca.key": b"the authority's"}
    with pytest.raises(AgeError):
        age_files.decrypt_bytes(sealed, passphrase="another one of them")
    with pytest.raises(AgeError):
        age_files.decrypt_bytes(
            age_files.encrypt_bytes(text, [public]),
            identities=[age_files.new_identity()[0]],
        )


@pytest.mark.parametrize("name", ["../ca.key", "/etc/passwd", ".hidden", "", "a\0b"])
def test_file_names_in_a_bundle_cannot_leave_the_folder(
    ring: KeyRing, name: str
) -> None:
    text = bundles.to_bytes(Bundle(ring=ring, files={name: b"x"}))
    with pytest.raises(BundleError):
        bundles.from_bytes(text)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "ring": 1}']
)
def test_damaged_bundle_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError):
        bundles.from_bytes(text)


def test_repr_of_a_bundle_hides_its_secrets(ring: KeyRing) -> None:
    (key,) = json.loads(ring.to_bytes())["keys"].values()
    assert key not in repr(Bundle(ring=ring, files={"a": b"secret"}))
    assert "secret" not in repr(Bundle(ring=ring, files={"a": b"secret"}))
