# SPDX-License-Identifier: Apache-2.0
"""The log is kept for members that need it: when that begins, and how it ends."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.log.boots import NOWHERE, Boot
from sparecode_node.replication.log.journal import Journal, open_journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.retention import BEHIND_MAX, REPEAT_S, Retention
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.compaction import Compaction
from sparecode_node.replication.settings import KEPT_LOG_FACTOR, RaftSettings
from tests.replication.bench import Bench, compact
from tests.replication.test_compaction import ME, MEMBERS, follow, reopen, snapshot
from tests.simulation.disk import Disk

SHORT = RaftSettings(log_entries_max=16, log_entries_kept=4)
FIRST = 50
"""The log begins here."""


def add(journal: Journal, count: int, size: int = 2) -> None:
    """Append entries of *size* bytes, and commit them."""
    for _ in range(count):
        journal.add(b"\x00".ljust(size, b"x"), journal.last_index + 1, 3)
    journal.committed = journal.last_index


class Kept:
    """The log of n1, and what it knows of needs."""

    def __init__(self, members: Configuration = MEMBERS) -> None:
        self.now = 100.0
        self.sent: list[tuple[str, Message]] = []
        self.acknowledged: dict[str, int] = {}
        disk = Disk("n1", random.Random(1))
        self.journal = open_journal(disk, ME, members, must_exist=False, salt=b"s" * 16)
        self.journal.rebase(FIRST, 3, members)
        add(self.journal, 10)
        self.retention = Retention(
            journal=self.journal,
            settings=SHORT,
            send=lambda peer, message: self.sent.append((peer, message)),
            now=lambda: self.now,
            acknowledged=lambda member: self.acknowledged.get(member, 0),
        )

    def step(self, seconds: float = 0.0, *, behind: int | None = None) -> None:
        self.now += seconds
        self.retention.step(("n2", "n3"), applied=60, count_behind=lambda: behind)

    def need(self, member: str, index: int, progress: int = 0) -> bool:
        """Take the need of a member; return whether the log is kept after it."""
        self.retention.take(member, index=index, progress=progress)
        self.step()
        return self.retention.keeps()

    def told(self) -> list[tuple[str, int, int]]:
        """Return what was told since the last time, and to which members."""
        told, self.sent = self.sent, []
        assert all(message["type"] == frames.KEEP_LOG for _, message in told)
        return [(peer, m["index"], m["progress"]) for peer, m in told]


@pytest.fixture
def kept() -> Kept:
    """Return a log for which no member needs to be waited any more."""
    kept = Kept()
    kept.step(2)
    assert not kept.retention.keeps()
    return kept


# --- The needs of other members


def test_a_node_that_starts_waits_for_needs() -> None:
    """The member that fetches its snapshot links again only now."""
    kept = Kept()
    assert kept.retention.keeps()
    alone = Kept(Configuration.of(m for m in MEMBERS.members if m.node_id == "n1"))
    assert not alone.retention.keeps()


def test_the_log_is_kept_until_every_member_has_caught_up(kept: Kept) -> None:
    assert kept.need("n2", FIRST)
    assert kept.need("n3", FIRST + 5)
    assert kept.retention.members == ["n2", "n3"]
    assert kept.need("n2", 0)
    assert not kept.need("n3", 0)
    assert not kept.need("n3", 0)  # Repeated.
    assert kept.retention.given_up == 0


def test_a_primary_sees_that_a_member_of_release_0_1_0_has_caught_up(
    kept: Kept,
) -> None:
    assert kept.need("n2", 60)
    for index, is_kept in ((57, True), (59, True), (60, False)):
        kept.acknowledged["n2"] = index
        kept.step()
        assert kept.retention.keeps() is is_kept
    assert kept.retention.given_up == 0
    assert kept.need("n3", FIRST)
    kept.acknowledged["n3"] = kept.journal.last_index - 2
    kept.step()
    assert not kept.retention.keeps()


def test_a_log_that_begins_later_is_kept_too(kept: Kept) -> None:
    """If this node leads, the member begins again here, once: it needs this snapshot."""
    assert kept.need("n2", FIRST - 1)


def test_the_log_is_kept_up_to_a_bound(kept: Kept) -> None:
    assert kept.need("n2", FIRST)
    assert kept.need("n3", FIRST + 1)
    most = KEPT_LOG_FACTOR * SHORT.log_entries_max
    add(kept.journal, most // 2 - len(kept.journal))
    kept.step()
    assert kept.retention.used == 0.5
    add(kept.journal, most // 2 - 1)
    kept.step()
    assert kept.retention.keeps()
    add(kept.journal, 1)
    kept.step()
    assert not kept.retention.keeps()
    assert (kept.retention.given_up, kept.retention.used) == (2, 0)
    assert not kept.need("n2", FIRST)  # It goes on saying so for a while.
    compact(kept.journal, kept.journal.last_index - 4)
    assert kept.need("n2", kept.journal.last_index)  # Another snapshot.


def test_a_member_with_ever_new_needs_does_not_pass_the_bound(kept: Kept) -> None:
    """Neither one with a bug, nor one whose key was stolen."""
    assert kept.need("n2", FIRST)
    add(kept.journal, KEPT_LOG_FACTOR * SHORT.log_entries_max)
    kept.step()
    for index in range(1, 9):
        kept.retention.take("n2", index=FIRST + index, progress=index)
        assert not kept.retention.keeps()
        assert not kept.retention.members
        kept.step()
    compact(kept.journal, kept.journal.last_index - 4)
    assert kept.need("n2", kept.journal.last_index)
    assert kept.retention.given_up == 1


def test_a_log_of_long_entries_has_a_bound_too(kept: Kept) -> None:
    assert kept.need("n2", FIRST)
    kept.journal.bytes = KEPT_LOG_FACTOR * SHORT.log_bytes_max
    kept.step()
    assert not kept.retention.keeps()


def test_a_member_without_progress_is_not_waited_for(kept: Kept) -> None:
    assert kept.need("n2", FIRST, progress=1)
    kept.step(SHORT.member_stalled_s)
    assert kept.need("n2", FIRST, progress=1)
    kept.step(1)
    assert not kept.retention.keeps()
    assert kept.retention.given_up == 1
    for progress in (1, 2, 3):  # It goes on: the log may still be there.
        assert kept.need("n2", FIRST, progress=progress)
        kept.step(SHORT.member_stalled_s)
    assert kept.retention.keeps()


def test_a_removed_member_is_not_waited_for(kept: Kept) -> None:
    assert kept.need("n2", FIRST)
    others = (m for m in kept.journal.configuration.members if m.node_id != "n2")
    kept.journal._configurations.append((60, Configuration.of(others)))
    kept.step()
    assert not kept.retention.keeps()
    assert kept.retention.given_up == 0


# --- The need of this node


def test_a_need_is_told_until_this_node_has_caught_up(kept: Kept) -> None:
    retention = kept.retention
    kept.step(9, behind=BEHIND_MAX)
    kept.step(9, behind=0)  # It may have needed something before it was started.
    assert kept.told() == [("n2", 0, 0), ("n3", 0, 0)]
    kept.step(9, behind=0)
    assert kept.told() == []
    retention.fetching(FIRST, "n2")
    kept.step()
    assert kept.told() == [("n2", FIRST, 0), ("n3", FIRST, 0)]
    retention.fetching(FIRST, "n2")  # With each portion.
    retention.received(7)
    kept.step(REPEAT_S / 2)
    assert kept.told() == []
    retention.tell_again()  # A voter has linked.
    kept.step()
    assert kept.told() == [("n2", FIRST, 7), ("n3", FIRST, 7)]
    kept.step(REPEAT_S, behind=BEHIND_MAX)  # It is installed: 60 is applied.
    assert kept.told() == [("n2", FIRST, 60), ("n3", FIRST, 60)]
    kept.step(behind=SHORT.log_entries_kept // 2)
    assert kept.told() == [("n2", 0, 0), ("n3", 0, 0)]
    kept.step(9, behind=0)
    assert kept.told() == []
    assert retention.outdated == 0


def test_a_snapshot_after_which_entries_are_missing_is_outdated(kept: Kept) -> None:
    retention = kept.retention
    retention.offered(FIRST + 1, "n2")  # None was fetched.
    retention.fetching(FIRST, "n2")
    retention.offered(FIRST, "n2")
    assert retention.outdated == 0
    retention.offered(FIRST + 1, "n2")
    retention.offered(FIRST + 2, "n2")
    assert retention.outdated == 1
    kept.step(9)
    assert kept.told() == []


def test_what_is_given_up_does_not_become_outdated(kept: Kept) -> None:
    """Else a node that waits after one would wait twice as long, without a fetch."""
    retention = kept.retention
    retention.fetching(FIRST, "n2")
    retention.offered(FIRST + 1, "n2")
    retention.fetching(FIRST + 1, "n2")
    retention.fetch_given_up()
    retention.offered(FIRST + 2, "n2")
    assert retention.outdated == 1
    kept.step(9)
    assert kept.told() == []


def test_another_primary_may_have_a_shorter_log(kept: Kept) -> None:
    """This node fetches again at once: that happens once for each voter at most."""
    retention = kept.retention
    retention.fetching(FIRST, "n2")
    retention.offered(FIRST + 5, "n3")
    assert retention.outdated == 0
    kept.step(9)
    assert kept.told() == []
    retention.fetching(FIRST + 9, "n3")
    kept.step()
    assert ("n2", FIRST + 9, 0) in kept.told()


# --- The snapshots of a node that keeps its log


class Applied:
    """A state that has all entries of a log, on disk."""

    skipped = ()

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.behind = 0
        """By how many entries the last checkpoint is."""

    @property
    def applied_index(self) -> int:
        return self._journal.last_index

    def checkpoint(self) -> int:
        return self.applied_index - self.behind


def test_a_kept_log_has_no_further_snapshot() -> None:
    """And all members do not take one at once when it need not be kept any more."""
    disk = Disk("n1", random.Random(1))
    journal = reopen(disk)
    journal.setCurrentTerm(3, "n2")
    add(journal, 11)
    store: Any = SimpleNamespace(current=SimpleNamespace(index=4))
    state: Any = Applied(journal)
    needs = SimpleNamespace(members=["n3"], keeps=lambda: bool(needs.members))
    log = Compaction("c", store, journal, state, SHORT, lambda: "n2", needs)
    for _ in range(100):
        add(journal, 1)
        log.run()
        assert not log.is_due()
    assert journal.first_index == 1
    with pytest.raises(SnapshotRefusedError, match="needs the newest"):
        log.describe(index=journal.last_index, digest="d", length=1, sha256=b"s")
    needs.members = []
    log.run()
    assert not log.is_due()
    size = len(journal)
    while not log.is_due():
        add(journal, 1)
        log.run()
    assert size - 3 < len(journal) <= size + SHORT.log_entries_max
    store.current = SimpleNamespace(index=journal.last_index)
    log.run()
    assert len(journal) == SHORT.log_entries_kept + 1
    add(journal, 3)
    log.run()
    assert not log.is_due()


def test_the_voters_of_this_release_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Release 0.1.0 does not know the message."""
    bench = Bench(monkeypatch)
    follow(bench, 3)
    shown = Hello("", boots=(Boot(1, "nonce", NOWHERE),))
    message = {"type": frames.KEEP_LOG, "index": 2, "progress": 0}
    bench.guard.receive("n3", message, shown)
    assert bench.replica.status().log_kept_for == (NodeId("n3"),)
    bench.replica.engine.retention.fetching(70, "n2")
    bench.take()
    bench.tick()
    told = [peer for peer, sent in bench.take() if sent["type"] == frames.KEEP_LOG]
    assert told == ["n3"]


def test_a_snapshot_before_the_primarys_log_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another member may have one that is older: the entries after it are gone."""
    bench = Bench(monkeypatch)
    follow(bench, 3)
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=60)
    status = bench.replica.status()
    assert (status.snapshot_source, status.snapshot_from) == ("n2", 60)
    with pytest.raises(SnapshotRefusedError, match="begins after it"):
        bench.replica.check_snapshot(snapshot(59)[1])
    bench.replica.check_snapshot(snapshot(60)[1])
    bench.replica.received(7)
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=61)
    assert bench.replica.status().snapshots_outdated == 1


def test_a_late_checkpoint_costs_no_turn() -> None:
    """
    It leaves some entries before the newest snapshot in the log.

    Members that waited until the log was long, to drop these, took snapshots at once.
    """
    journal = reopen(Disk("n1", random.Random(1)))
    journal.setCurrentTerm(3, "n2")
    add(journal, 11)
    store: Any = SimpleNamespace(current=None)
    state = Applied(journal)
    log = Compaction("c", store, journal, state, SHORT, lambda: "n2")  # type: ignore[arg-type]
    state.behind = SHORT.log_entries_kept + 2
    for _ in range(3):
        while not log.is_due():
            add(journal, 1)
            assert len(journal) < SHORT.log_entries_max
            log.run()
        store.current = SimpleNamespace(index=journal.last_index)
        add(journal, SHORT.log_entries_kept)
        log.run()
        assert store.current.index - journal.first_index == 2


SHORTER = RaftSettings(
    log_entries_max=512,
    log_entries_kept=64,
    log_bytes_max=512 * 4096,
    log_bytes_kept=64 * 4096,
)
"""Full by entries or by bytes at 4,096 bytes an entry, as with the defaults."""


@pytest.mark.parametrize("leader", ["n1", "n2"])
@pytest.mark.parametrize("size", [256, 4096, 8192, 12288, 16384, 24576, 32768])
def test_each_snapshot_makes_the_log_shorter(size: int, leader: str) -> None:
    """
    Whether it is full by its entries or by their bytes, at a primary or a follower.

    A log that is full of large entries has few of them. A member that waited until as
    many can go as from a log of small ones took one snapshot after another.
    """
    journal = reopen(Disk("n1", random.Random(1)))
    journal.setCurrentTerm(3, leader)
    add(journal, 11)
    store: Any = SimpleNamespace(current=None)
    state: Any = Applied(journal)
    log = Compaction("c", store, journal, state, SHORTER, lambda: leader)
    snapshots, cuts, first, taken_until = 0, 0, journal.first_index, 0
    for _ in range(800):
        add(journal, 1, size)
        log.run()
        cuts, first = cuts + (journal.first_index > first), journal.first_index
        if taken_until and journal.last_index >= taken_until:
            store.current, taken_until = SimpleNamespace(index=taken_until - 2), 0
        elif not taken_until and log.is_due():
            snapshots, taken_until = snapshots + 1, journal.last_index + 2
    assert 1 <= snapshots <= cuts + 1
    assert journal.bytes <= SHORTER.log_bytes_max
    assert len(journal) <= SHORTER.log_entries_max
