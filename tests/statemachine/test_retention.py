# SPDX-License-Identifier: Apache-2.0
"""What archives confirm, and when apply removes segments of the audit log (U2, U4)."""

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.retention import SHORTENING_DELAY_MS
from sparecode_node.domain.segments import holding_of
from sparecode_node.statemachine import audit
from sparecode_node.statemachine.handlers import retention
from sparecode_node.statemachine.tables import archives, segments
from tests.statemachine.world import World

EVENTS = 5
RETENTION_DAYS = 90
SHORT_OF_A_DAY = "23h"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a state with three sealed segments and a retention of ninety days."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    world = World()
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    world.handle("update-policy", {"second_approver": "no"})
    world.handle("update-policy", {"audit_retention_ms": f"{RETENTION_DAYS}d"})
    for number in range(3 * EVENTS):
        world.handle("create-user", {"name": f"user-{number}"})
    return world


def archive(
    world: World, node: str, through: int, missing: str = "", **more: str
) -> str:
    return world.handle(
        "note-archive",
        {
            "node": node,
            "via": node,
            "through": str(through),
            "missing": missing,
            **more,
        },
    )


def wait(world: World, days: int) -> None:
    """Let days pass. Nodes say again what they have, as each does once a day."""
    for _ in range(days):
        world.handle("wait", {"1d": ""})
    for node in ("n1", "n2", "n3"):
        if numbers := archived(world, node):
            holding = holding_of(numbers)
            missing = " ".join(f"{a}+{b}" for a, b in holding.missing)
            told = archives.folder_of(world.db, archives.archiver_of(NodeId(node)))
            archive(world, node, holding.through, missing, folder=told)


def tell_again(world: World) -> None:
    """Let members say again what they have, as they do seconds after a change of an id."""
    wait(world, 0)


def remove(world: World, through: int, **more: str) -> str:
    return world.handle("remove-segments", {"through": str(through), **more})


def archived(world: World, node: str) -> set[int]:
    return set(archives.numbers_of(world.db, archives.archiver_of(NodeId(node))))


def removed(world: World) -> int:
    return archives.removed(world.db).through


def events(world: World) -> list[int]:
    return [
        sequence
        for (sequence,) in world.db.execute("SELECT sequence FROM audit_events")
    ]


def test_segments_in_enough_archives_are_removed_after_the_retention(
    world: World,
) -> None:
    """(U4) The removal is an event, and the hashes of what is gone stay."""
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    output = remove(world, 2)
    assert "RemoveSegments audit segments up to 2 applied" in output
    assert "events 1 to 10" in output
    assert "node:n1 (/srv/archive); node:n2 (/srv/archive)" in output
    assert removed(world) == 2
    assert not archived(world, "n1")
    kept = segments.find(world.db, 2)
    assert kept is not None
    assert archives.removed(world.db).hash_after == kept.hash_after
    assert world.replayed().machine.digest() == world.machine.digest()


def test_the_events_leave_the_state_and_the_newest_stays(world: World) -> None:
    """Whether or not this node's file had them: they are removed everywhere."""
    archive(world, "n1", 3)
    archive(world, "n2", 3)
    wait(world, RETENTION_DAYS + 1)
    remove(world, 3)
    world.handle("barrier", {})
    last = segments.find(world.db, 3)
    assert last is not None
    assert min(events(world)) == last.last_sequence + 1


def test_one_archive_is_not_enough(world: World) -> None:
    """(U4) A member may be broken, or lie: alone it causes no removal."""
    archive(world, "n1", 2)
    wait(world, RETENTION_DAYS + 1)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n2", 2, "1+1")
    assert "segment 1 is not in enough archives" in remove(world, 2)
    assert removed(world) == 0
    assert 1 in events(world)


def test_two_members_with_one_folder_have_one_copy(world: World) -> None:
    """(U4) Their disk may be lost whole. One that gets a folder of its own says so."""
    shared, own = "0" * 32, "1" * 32
    for node in ("n1", "n2"):
        archive(world, node, 2, folder=shared)
    wait(world, RETENTION_DAYS + 1)
    for node in ("n1", "n2"):
        archive(world, node, 2, folder=shared)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    since_ms = 0
    assert archives.copies(world.db, 1, 2, since_ms=since_ms) == {1: 1, 2: 1}
    short = archives.short(world.db, 2, since_ms=since_ms)
    assert [number for number, _ in short][:2] == [1, 2]
    assert "the cluster knows this" in archive(world, "n2", 2, folder=shared)
    archive(world, "n2", 2, folder=own)
    assert archives.copies(world.db, 1, 2, since_ms=since_ms) == {1: 1, 2: 1}
    assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n1", 2, folder=shared)
    assert archives.copies(world.db, 1, 2, since_ms=since_ms) == {1: 2, 2: 2}
    remove(world, 2)
    assert removed(world) == 2


def test_after_a_change_of_an_id_all_other_members_speak_again(world: World) -> None:
    """(U4) The id of a folder may have been lost that another member shares."""
    shared, new = "0" * 32, "3" * 32
    for node in ("n1", "n2"):
        archive(world, node, 2, folder=shared)
    wait(world, RETENTION_DAYS + 1)
    assert "still has" in archive(world, "n1", 2, folder=new)
    assert "the cluster knows this" in archive(world, "n1", 2, folder=new)
    short = archives.short(world.db, 2, since_ms=world.now_ms)
    assert [number for number, _ in short][:2] == [1, 2]
    for hours in range(0, 8 * 24, 23):
        assert "segment 1 is not in enough archives" in remove(world, 2), hours
        world.handle("wait", {"23h": ""})
        archive(world, "n1", 2, folder=new)
    # What was on its way when the change was told says nothing of the id since.
    late = archive(world, "n2", 2, folder=shared, changes="2")
    assert "the id of a folder has changed since this one was read" in late
    # A third member that tells the same id adds nothing, and neither does the second.
    for node in ("n3", "n2"):
        archive(world, node, 2, folder=new)
        assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n2", 2)
    tell_again(world)
    assert "applied" in remove(world, 2)
    assert world.replayed().machine.digest() == world.machine.digest()


def test_members_with_folders_of_their_own_speak_again_once(world: World) -> None:
    """(U4) What they say again is news to none of them."""
    for node in ("n1", "n2", "n3"):
        archive(world, node, 2)
    tell_again(world)
    for node in ("n1", "n2", "n3"):
        assert "the cluster knows this" in archive(world, node, 2)


def test_an_id_that_another_member_has_is_a_change_too(world: World) -> None:
    """(U4) One folder is copied over another, with its id: two members share the latter."""
    shared, own = "0" * 32, "1" * 32
    for node, folder in (("n1", shared), ("n2", shared), ("n3", own)):
        archive(world, node, 2 if folder == shared else 1, folder=folder)
    wait(world, RETENTION_DAYS + 1)
    assert "still has" in archive(world, "n1", 2, folder=own)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n2", 2, folder=own)
    archive(world, "n3", 1, folder=own)
    assert "segment 1 is not in enough archives" in remove(world, 2)


def test_what_is_withdrawn_has_no_folder(world: World) -> None:
    """(U4) An id of a folder that a member had once is new again."""
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    archive(world, "n1", 0)
    assert archives.folder_of(world.db, archives.archiver_of(NodeId("n1"))) == ""
    wait(world, RETENTION_DAYS + 1)
    archive(world, "n1", 2)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    tell_again(world)
    assert "applied" in remove(world, 2)


def test_an_id_of_a_folder_has_one_form(world: World) -> None:
    """(U4) It is a member's text, and must not look like an archiver."""
    assert "no id of a folder" in archive(world, "n1", 2, folder="node:n2")


def test_an_archive_without_an_id_confirms_nothing(world: World) -> None:
    """(U4) It would count as a copy of its own, though another member may share it."""
    assert "the archive has no id" in archive(world, "n1", 2, folder="")
    assert not archived(world, "n1")
    now_ms = world.now_ms
    for node, folder in (("n1", ""), ("n2", "0" * 32)):
        archiver = archives.archiver_of(NodeId(node))
        archives.save(world.db, archiver, "/srv", now_ms, new=(1,), folder=folder)
    assert archives.copies(world.db, 1, 2, since_ms=now_ms) == {1: 1}
    (copy,) = archives.places(world.db, 1, 2, since_ms=now_ms)
    assert copy.archiver == "node:n2"
    assert "no longer confirms 1" in archive(world, "n1", 0, folder="")


def test_the_policy_may_say_that_one_is_enough(world: World) -> None:
    world.handle("update-policy", {"audit_archive_copies": "1"})
    archive(world, "n1", 2)
    wait(world, RETENTION_DAYS + 1)
    assert "applied" in remove(world, 2)


def test_younger_segments_stay(world: World) -> None:
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS - 1)
    assert "the policy keeps these segments" in remove(world, 2)


def test_a_policy_without_retention_removes_nothing(world: World) -> None:
    world.handle("update-policy", {"audit_retention_ms": "0ms"})
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, 10 * RETENTION_DAYS)
    assert "the policy keeps these segments" in remove(world, 2)


@pytest.mark.parametrize(
    "change",
    [{"audit_retention_ms": "100d"}, {"audit_archive_copies": "1"}],
    ids=["shorter", "fewer copies"],
)
def test_a_policy_that_keeps_less_waits_for_days(
    world: World, change: dict[str, str]
) -> None:
    """(U4) Until then any administrator who did not expect it can take it back."""
    world.handle("update-policy", {"audit_retention_ms": "200d"})
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, 500)
    world.handle("sign-in", {"session": "s2"})
    output = world.handle("update-policy", {**change, "session": "s2"})
    assert "applied" in output
    wait(world, SHORTENING_DELAY_MS // DAY_MS - 1)
    world.handle("wait", {SHORT_OF_A_DAY: ""})
    assert "the policy keeps these segments" in remove(world, 2)
    wait(world, 1)
    assert "applied" in remove(world, 2)


def test_a_node_must_speak_after_a_policy_that_keeps_less(world: World) -> None:
    """(U4) It reads what may be removed before it speaks, and judges by the policy."""
    world.handle("update-policy", {"audit_retention_ms": "200d"})
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, 150)
    world.handle("sign-in", {"session": "s2"})
    world.handle("update-policy", {"audit_retention_ms": "100d", "session": "s2"})
    for _ in range(4):
        world.handle("wait", {"1d": ""})
    archive(world, "n1", 2)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n2", 2)
    assert "applied" in remove(world, 2)


def test_the_record_of_a_removal_names_archives_that_counted(world: World) -> None:
    """(U4) Readers are sent there."""
    for node in ("n1", "n2", "n3"):
        archive(world, node, 2)
    for _ in range(RETENTION_DAYS + 1):
        world.handle("wait", {"1d": ""})
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    assert "applied" in remove(world, 2)
    copies = archives.copies_in(archives.removed(world.db).archives)
    assert [each.archiver for each in copies] == ["node:n1", "node:n2"]


def test_a_longer_retention_needs_no_wait(world: World) -> None:
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, 500)
    world.handle("sign-in", {"session": "s2"})
    world.handle("update-policy", {"audit_retention_ms": "200d", "session": "s2"})
    assert "applied" in remove(world, 2)


@pytest.mark.parametrize("value", ["89d", "36601d"])
def test_a_retention_out_of_bounds_is_refused(world: World, value: str) -> None:
    assert "policy_value" in world.handle(
        "update-policy", {"audit_retention_ms": value}
    )


def test_a_member_speaks_for_its_own_archive_alone(world: World) -> None:
    """(U2) Otherwise one member could confirm in the names of all."""
    assert "stale_parameters" in archive(world, "n2", 2, via="n3")
    assert not archived(world, "n2")


def test_an_archive_of_another_history_is_refused(world: World) -> None:
    """(U2) A restored cluster goes on with other events under the same numbers."""
    assert "stale_parameters" in archive(world, "n1", 2, hash="other")
    assert "stale_parameters" in archive(world, "n1", 9)
    assert not archived(world, "n1")


def test_removal_of_another_history_is_refused(world: World) -> None:
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    assert "no segments to remove" in remove(world, 2, hash="other")
    assert "applied" in remove(world, 2)
    assert "no segments to remove" in remove(world, 2)


def test_a_member_withdraws_what_it_can_no_longer_read(world: World) -> None:
    """(U2) A rotten or missing file does not count any longer."""
    archive(world, "n1", 3)
    assert archived(world, "n1") == {1, 2, 3}
    output = archive(world, "n1", 3, "2+2")
    assert "no longer confirms 2: /srv/archive" in output
    assert archived(world, "n1") == {1, 3}
    archive(world, "n1", 0)
    assert not archived(world, "n1")


def test_a_removed_member_counts_no_longer(world: World) -> None:
    """(U4) Nothing reads its archive again, and it may have been removed as a liar."""
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    world.handle("remove-member", {"node": "n2", "member": "yes"})
    assert not archived(world, "n2")
    assert "member_removed" in archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    assert "not in enough archives" in remove(world, 2)


def test_an_administrator_confirms_a_copy_outside(world: World) -> None:
    """(U4) It is one of the copies, and named."""
    world.handle("create-admin", {"name": "other", "role": "help_desk"})
    archive(world, "n1", 2)
    output = world.handle("confirm-archive", {"first": "1", "last": "2"})
    assert "2 segments, events 1 to 10" in output
    wait(world, RETENTION_DAYS + 1)
    output = remove(world, 2)
    assert "administrator:root (tape 7); node:n1" in output


def test_a_copy_of_another_history_is_not_confirmed(world: World) -> None:
    for arguments in (
        {"first": "1", "hash": "other"},
        {"first": "3", "last": "2"},
        {"first": "0"},
        {"first": "1", "last": "99"},
    ):
        assert "segment_unknown" in world.handle("confirm-archive", arguments)


def test_a_withdrawn_copy_counts_no_longer(world: World) -> None:
    """(U4) A tape that cannot be read must not let the last copy be removed."""
    world.handle("confirm-archive", {"first": "1", "last": "2"})
    archive(world, "n1", 2)
    output = world.handle("withdraw-archive", {"first": "2", "last": "3"})
    assert "segments 2 have one copy less: tape 7 cannot be read" in output
    wait(world, RETENTION_DAYS + 1)
    assert "segment 2 is not in enough archives" in remove(world, 2)
    assert "applied" in remove(world, 1)
    archive(world, "n2", 2, "1+1")
    tell_again(world)
    assert "applied" in remove(world, 2)
    assert world.replayed().machine.digest() == world.machine.digest()


def test_any_super_administrator_withdraws_without_an_approval(world: World) -> None:
    """(U4) It must not wait: the one who confirmed it may be gone, as the tape is."""
    world.handle("confirm-archive", {"first": "1", "last": "2"})
    for directive, arguments in (
        ("create-admin", {"name": "eve"}),
        ("sign-in", {"as": "eve", "password": "temporary", "session": "e0"}),
        (
            "change-password",
            {"name": "eve", "old": "temporary", "new": "hers", "session": "e0"},
        ),
        ("sign-in", {"as": "eve", "password": "hers", "session": "e1"}),
        ("update-policy", {"second_approver": "yes"}),
    ):
        world.handle(directive, arguments)
    by_eve = {"as": "eve", "session": "e1"}
    assert "pending" in world.handle("confirm-archive", {"first": "1", **by_eve})
    output = world.handle("withdraw-archive", {"name": "root", **by_eve})
    assert "audit archive of administrator root applied" in output
    assert "segments 1 to 2 have one copy less" in output


def test_a_withdrawn_copy_can_be_confirmed_again(world: World) -> None:
    """(U4) The tape was in the wrong box. All of it is withdrawn without numbers."""
    confirmed = {"first": "1", "last": "2"}
    world.handle("confirm-archive", confirmed)
    archive(world, "n1", 2)
    assert "segments 1 to 2 have one copy less" in world.handle("withdraw-archive", {})
    assert "segment_unknown" in world.handle("withdraw-archive", {})
    assert not world.db.execute(
        "SELECT 1 FROM archive_places WHERE archiver LIKE 'administrator:%'"
    ).fetchone()
    wait(world, RETENTION_DAYS + 1)
    assert "not in enough archives" in remove(world, 2)
    world.handle("sign-in", {"session": "s2"})
    world.handle("confirm-archive", {**confirmed, "session": "s2"})
    assert "applied" in remove(world, 2)


def test_what_is_removed_stays_removed_and_says_that_a_copy_is_gone(
    world: World,
) -> None:
    """(U4) A reader who looks for the events is not sent to a tape that is lost."""
    world.handle("confirm-archive", {"first": "1", "last": "2"})
    archive(world, "n1", 2)
    wait(world, RETENTION_DAYS + 1)
    remove(world, 2)
    world.handle("sign-in", {"session": "s2"})
    nobody = {"name": "nobody", "session": "s2"}
    assert "segment_unknown" in world.handle("withdraw-archive", nobody)
    output = world.handle("withdraw-archive", {"session": "s2"})
    assert "segments 1 to 2 were removed from the nodes, and do not come back" in output
    said = (
        "administrator:root (tape 7); node:n1 (/srv/archive); "
        "withdrawn since, at least in part: administrator:root"
    )
    assert archives.removed(world.db).words == said
    world.handle("withdraw-archive", {"session": "s2"})  # Saying it again adds nothing.
    assert archives.removed(world.db).words == said
    assert removed(world) == 2


def test_a_name_in_the_words_of_a_place_is_no_archiver(world: World) -> None:
    """(U4) Else one archiver's label says that another's good copy is gone."""
    place = "administrator:bob (tape 8)"
    world.handle("confirm-archive", {"first": "1", "last": "2", "place": place})
    archive(world, "n1", 2)
    wait(world, RETENTION_DAYS + 1)
    remove(world, 2)
    words = archives.removed(world.db).words
    assert place in words
    world.handle("sign-in", {"session": "s2"})
    bob = {"name": "bob", "session": "s2"}
    assert "segment_unknown" in world.handle("withdraw-archive", bob)
    assert archives.removed(world.db).words == words
    assert world.replayed().machine.digest() == world.machine.digest()


def test_each_of_two_alike_names_is_withdrawn(world: World) -> None:
    """(U4) The longer name begins with the shorter one, and is withdrawn first."""
    for name in ("root", "rooter"):
        archives.save(
            world.db, archives.archiver_named(name), "tape", world.now_ms, new=(1, 2)
        )
    wait(world, RETENTION_DAYS + 1)
    remove(world, 2)
    world.handle("sign-in", {"session": "s2"})
    for name in ("rooter", "root"):
        world.handle("withdraw-archive", {"name": name, "session": "s2"})
    assert archives.removed(world.db).words.endswith(
        "withdrawn since, at least in part: administrator:root, administrator:rooter"
    )


def test_a_copy_of_a_node_is_not_withdrawn_by_people(world: World) -> None:
    """(U2) A node reads its archive again and again, and says what it lacks."""
    archive(world, "n1", 2)
    assert "segment_unknown" in world.handle("withdraw-archive", {"name": "n1"})
    assert archived(world, "n1") == {1, 2}


def test_a_lost_segment_needs_no_archive(world: World) -> None:
    """There is nothing left of it to archive."""
    world.handle("declare-lost", {"first": "1"})
    archive(world, "n1", 2, "1+1")
    archive(world, "n2", 2, "1+1")
    wait(world, RETENTION_DAYS + 1)
    assert "applied" in remove(world, 2)


def test_a_lost_segment_that_was_found_again_needs_archives(world: World) -> None:
    """(U4) A member that came back has it: its removal would lose it for good."""
    world.handle("declare-lost", {"first": "1"})
    world.handle("note-segments", {"node": "n3", "through": "1", "via": "n3"})
    archive(world, "n1", 2, "1+1")
    archive(world, "n2", 2, "1+1")
    wait(world, RETENTION_DAYS + 1)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    assert "applied" in remove(world, 2)


def test_an_archive_that_nobody_reads_counts_no_longer(world: World) -> None:
    """(U4) Its node may be down for good, and the folder gone."""
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    for _ in range(8):
        world.handle("wait", {"1d": ""})
    archive(world, "n1", 2)
    assert "segment 1 is not in enough archives" in remove(world, 2)
    output = archive(world, "n2", 2)
    assert "still has segments 1 to 2: /srv/archive" in output
    assert "applied" in remove(world, 2)


def test_an_administrator_need_not_confirm_again(world: World) -> None:
    """(U4) The copy is a tape in a safe."""
    world.handle("confirm-archive", {"first": "1", "last": "2"})
    archive(world, "n1", 2)
    wait(world, RETENTION_DAYS + 1)
    assert "applied" in remove(world, 2)


def test_an_archive_is_confirmed_again_once_a_day(world: World) -> None:
    archive(world, "n1", 2)
    tell_again(world)
    world.handle("wait", {SHORT_OF_A_DAY: ""})
    assert "the cluster knows this" in archive(world, "n1", 2)
    world.handle("wait", {"1h": ""})
    assert "still has segments 1 to 2" in archive(world, "n1", 2)
    assert "the cluster knows this" in archive(world, "n1", 2)


def test_more_can_be_withdrawn_than_confirmed_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) Gaps beyond a bound withdraw all after them; that must not get stuck."""
    archive(world, "n1", 3)
    monkeypatch.setattr(retention, "NOTED_MAX", 1)
    archive(world, "n1", 0)
    assert not archived(world, "n1")
    assert "too many segments" in archive(world, "n1", 2)


def test_a_removed_segment_is_not_declared_lost(world: World) -> None:
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    remove(world, 2)
    world.handle("sign-in", {"session": "s2"})
    output = world.handle("declare-lost", {"first": "2", "session": "s2"})
    assert "were archived, and removed by retention" in output


def test_the_last_holder_of_removed_segments_may_leave(world: World) -> None:
    """Its file deletes them as that of any other member."""
    world.handle("note-segments", {"node": "n2", "through": "2", "via": "n2"})
    archive(world, "n1", 2)
    archive(world, "n3", 2)
    wait(world, RETENTION_DAYS + 1)
    remove(world, 2)
    world.handle("sign-in", {"session": "s2"})
    output = world.handle(
        "remove-member", {"node": "n2", "member": "yes", "session": "s2"}
    )
    assert "last_segment_holder" not in output


def test_a_new_epoch_reads_the_archives_again(world: World) -> None:
    """After a restore, nothing is removed before its own nodes have read a copy."""
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, RETENTION_DAYS + 1)
    world.handle("begin-epoch", {"cluster": "c2", "cause": "restore"})
    assert not archived(world, "n1")
    assert "the policy keeps" in remove(world, 2)
    archive(world, "n1", 2)
    archive(world, "n2", 2)
    wait(world, SHORTENING_DELAY_MS // DAY_MS + 1)
    assert "applied" in remove(world, 2)
