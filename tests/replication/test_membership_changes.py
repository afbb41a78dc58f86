# SPDX-License-Identifier: Apache-2.0
"""Changes of members on a leader: which, when, and one at a time (item 6)."""

from dataclasses import dataclass, field

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import CONFIGURATION, Journal, open_journal
from sparecode_node.replication.members import (
    Configuration,
    ConfigurationError,
    Member,
    MemberRole,
    founders,
)
from sparecode_node.replication.raft.membership_changes import (
    CHANGES_WAITING_MAX,
    AddLearner,
    Change,
    ChangeOutcome,
    Membership,
    PendingChange,
    Promote,
    Remove,
)
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.settings import MEMBERS_MAX
from tests.simulation.disk import Disk

N1, N2, N3, N4, N5 = (NodeId(f"n{i}") for i in range(1, 6))
ROUND_S = 0.4


def member(node_id: NodeId) -> Member:
    return Member(node_id=node_id, address=f"{node_id}:7301")


@dataclass
class Leader:
    """An engine that leads and obeys."""

    journal: Journal
    committed: int = 1
    leads: bool = True
    own_term: bool = True
    handing_over: bool = False
    contacts: set[str] = field(default_factory=lambda: {"n2", "n3"})
    match: dict[str, int] = field(default_factory=dict)
    hellos: dict[str, Hello] = field(default_factory=dict)

    @property
    def raftCommitIndex(self) -> int:
        return self.committed

    def is_leader(self) -> bool:
        return self.leads

    def knows_commit_index(self) -> bool:
        return self.own_term

    def is_handing_over(self) -> bool:
        return self.handing_over

    def in_contact(self, member: str) -> bool:
        return member in self.contacts

    def match_index(self, member: str) -> int:
        return self.match.get(member, 0)

    def hello(self, member: str) -> Hello | None:
        return self.hellos.get(member)

    def append_configuration(self, configuration: Configuration) -> int:
        index = self.journal.last_index + 1
        self.journal.add(CONFIGURATION + configuration.to_bytes(), index, 1)
        return index


class Desk:
    """The place where membership changes are requested."""

    def __init__(self, disk: Disk) -> None:
        configured = Configuration.of(member(i) for i in (N1, N2, N3))
        for node_id in (N1, N2, N3):
            configured = configured.naming(node_id, f"journal of {node_id}")
        self.journal = open_journal(
            disk, Identity("test", "n1"), configured, must_exist=False, salt=b"s" * 16
        )
        self.leader = Leader(self.journal)
        self.membership = Membership(self.leader, self.leader, self.journal, ROUND_S)
        self.now = 0.0
        self.step()
        self.now = 2 * ROUND_S  # It has led for a while.

    def ask(self, change: Change, *, timeout_s: float = 5.0) -> list[ChangeOutcome]:
        outcomes: list[ChangeOutcome] = []
        self.membership.submit(
            PendingChange(
                change=change,
                deadline=self.now + timeout_s,
                callback=outcomes.append,
            )
        )
        return outcomes

    def step(self, seconds: float = 0.02) -> None:
        self.now += seconds
        self.membership.step(self.now)

    def commit(self) -> None:
        self.leader.committed = self.journal.last_index
        self.step()

    def add_learner(self, node_id: NodeId = N4) -> None:
        calls = self.ask(AddLearner(member(node_id)))
        self.step()
        self.commit()
        assert calls == [self.journal.configured_at]
        self.leader.hellos[node_id] = Hello(f"journal of {node_id}")
        self.step()
        self.commit()

    def catch_up(self, node_id: NodeId, seconds: float = 0.1) -> None:
        """Be the learner, which takes so long for a round."""
        self.step(seconds)
        self.leader.match[node_id] = self.journal.last_index
        self.leader.contacts.add(node_id)
        self.step()

    @property
    def members(self) -> Configuration:
        return self.journal.configuration


@pytest.fixture
def desk() -> Desk:
    import random  # noqa: PLC0415

    return Desk(Disk("n1", random.Random(1)))


def refusal(outcomes: list[ChangeOutcome]) -> tuple[Reason, str]:
    [outcome] = outcomes
    assert isinstance(outcome, ChangeRefusedError)
    return outcome.rejected.reason, outcome.rejected.detail


def test_a_change_is_answered_when_it_is_committed_and_not_before(desk: Desk) -> None:
    calls = desk.ask(AddLearner(member(N4)))
    desk.step()
    assert desk.members.member("n4") == Member(
        node_id=N4, address="n4:7301", role=MemberRole.LEARNER
    )
    assert (desk.members.voters, calls) == ({N1, N2, N3}, [])
    desk.commit()
    assert calls == [desk.journal.last_index]


def test_the_next_change_waits_for_the_one_before(desk: Desk) -> None:
    one, other = desk.ask(Remove(N2)), desk.ask(Remove(N3))
    for _ in range(3):
        desk.step()
        assert desk.members.voters == {N1, N3}
    desk.leader.contacts = {"n3"}
    desk.commit()
    assert (one, desk.members.voters) == ([2], {N1})
    desk.commit()
    assert other == [3]


@pytest.mark.parametrize("why", ["no entry of its own term", "it hands over"])
def test_a_leader_changes_nothing_that_it_must_not_yet(desk: Desk, why: str) -> None:
    """Thesis, 4.1, as amended: what is before its own term may be taken back."""
    desk.leader.own_term = why != "no entry of its own term"
    desk.leader.handing_over = why == "it hands over"
    calls = desk.ask(Remove(N2), timeout_s=1)
    desk.step()
    assert desk.members.voters == {N1, N2, N3}
    desk.step(1)
    assert refusal(calls)[0] is Reason.MEMBER_NOT_READY


def test_what_is_so_already_is_answered_at_once(desk: Desk) -> None:
    """So a retry after an unknown outcome does no harm."""
    desk.add_learner()
    last = desk.journal.last_index
    for change in (AddLearner(member(N4)), Promote(N2)):
        calls = desk.ask(change)
        desk.step()
        assert calls == [desk.journal.configured_at]
    assert desk.journal.last_index == last
    desk.ask(Remove(N4))
    desk.step()
    again = desk.ask(Remove(N4))
    desk.step()
    assert again == []  # Not before the first one is committed.
    desk.commit()
    assert again == [desk.journal.last_index]


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (Promote(N5), Reason.MEMBER_UNKNOWN, "n5 is not a member; members are n1"),
        (Remove(N5), Reason.MEMBER_UNKNOWN, "n5 is not a member"),
        (Remove(N1), Reason.MEMBER_NOT_READY, "n1 leads; it must hand over"),
        (
            AddLearner(Member(node_id=N2, address="else:7301")),
            Reason.MEMBER_EXISTS,
            "n2 is already a member, at n2:7301",
        ),
    ],
    ids=["promote nobody", "remove nobody", "remove itself", "another address"],
)
def test_what_cannot_be_is_refused_in_words(
    desk: Desk, change: Change, reason: Reason, words: str
) -> None:
    calls = desk.ask(change)
    desk.step()
    result, detail = refusal(calls)
    assert result is reason
    assert words in detail
    assert desk.members.ids == (N1, N2, N3)


@pytest.mark.parametrize(
    ("address", "again"),
    [("N4.Example:07301", "n4.example:7301"), ("[2001:DB8::0:4]:1", "[2001:db8::4]:1")],
)
def test_a_member_is_added_once_however_its_address_is_spelled(
    desk: Desk, address: str, again: str
) -> None:
    for spelled in (address, again):
        calls = desk.ask(AddLearner(Member(node_id=N4, address=spelled)))
        desk.step()
        desk.commit()
        assert calls == [desk.journal.configured_at]
    calls = desk.ask(AddLearner(Member(node_id=N4, address="else:7301")))
    desk.step()
    reason, detail = refusal(calls)
    assert reason is Reason.MEMBER_EXISTS
    assert detail == f"n4 is already a member, at {address}, and not at else:7301"


def test_an_id_that_was_removed_is_never_used_again(desk: Desk) -> None:
    desk.ask(Remove(N3))
    desk.step()
    desk.commit()
    calls = desk.ask(AddLearner(member(N3)))
    desk.step()
    reason, detail = refusal(calls)
    assert reason is Reason.MEMBER_REMOVED
    assert "start the node under a new id" in detail


def test_a_member_that_the_quorum_needs_is_not_removed(desk: Desk) -> None:
    desk.leader.contacts = {"n2"}
    calls = desk.ask(Remove(N2))
    desk.step()
    reason, detail = refusal(calls)
    assert reason is Reason.MEMBER_NOT_READY
    assert "2 of 2 voters would be needed, and only these are in contact: n1" in detail
    calls = desk.ask(Remove(N3))  # Who is away may go.
    desk.step()
    desk.commit()
    assert calls == [desk.journal.last_index]


def test_a_new_leader_waits_for_members_it_has_not_heard_from(
    desk: Desk,
) -> None:
    """The old primary hands over to leave, and its removal is requested at once."""
    desk.membership.leadership_lost()
    desk.leader.contacts = {"n2"}
    calls, unheard = desk.ask(Remove(N2)), desk.ask(Remove(N2))
    desk.step()
    assert (calls, desk.members.voters) == ([], {N1, N2, N3})
    desk.leader.contacts = {"n2", "n3"}
    desk.step()
    assert desk.members.voters == {N1, N3}
    desk.commit()
    assert (calls, unheard) == (
        [desk.journal.last_index],
        [desk.journal.last_index],
    )


def test_there_may_be_so_many_members(desk: Desk) -> None:
    for i in range(4, MEMBERS_MAX + 1):
        desk.add_learner(NodeId(f"n{i}"))
    calls = desk.ask(AddLearner(member(NodeId("n99"))))
    desk.step()
    assert f"{MEMBERS_MAX} members" in refusal(calls)[1]


def test_a_learner_votes_when_a_round_took_no_longer_than_an_election(
    desk: Desk,
) -> None:
    """Thesis, 4.2.1: a learner that keeps up may vote; one that gets closer may not."""
    desk.add_learner()
    calls = desk.ask(Promote(N4), timeout_s=60)
    desk.step()
    for _ in range(3):
        reached = desk.journal.last_index
        desk.step(3 * ROUND_S)  # Too slow: there is more by then.
        desk.journal.add(b"\x01", reached + 1, 1)
        desk.leader.match["n4"] = reached
        desk.step()
        assert desk.members.voters == {N1, N2, N3}
    desk.catch_up(N4)
    assert desk.members.voters == {N1, N2, N3, N4}
    desk.commit()
    assert calls == [desk.journal.last_index]


def test_a_learner_that_does_not_catch_up_is_told_how_much_it_lacks(
    desk: Desk,
) -> None:
    desk.add_learner()
    desk.leader.contacts.add("n4")
    desk.leader.match["n4"] = desk.journal.last_index - 1
    calls = desk.ask(Promote(N4), timeout_s=2)
    desk.step()
    desk.step(2)
    assert refusal(calls) == (
        Reason.MEMBER_NOT_READY,
        "n4 has not caught up: it lacks 1 entries",
    )


def test_a_member_without_a_known_journal_does_not_vote(desk: Desk) -> None:
    """Otherwise it could lose its journal unnoticed."""
    calls = desk.ask(AddLearner(member(N4)))
    desk.step()
    desk.commit()
    assert calls
    desk.ask(Promote(N4))
    desk.step()
    desk.catch_up(N4)
    assert desk.members.voters == {N1, N2, N3}
    desk.leader.hellos["n4"] = Hello("journal of n4")
    desk.step()
    desk.commit()
    desk.catch_up(N4)
    assert desk.members.voters == {N1, N2, N3, N4}


def test_the_leader_writes_down_what_members_say_of_themselves(desk: Desk) -> None:
    """The name of a journal once, an address whenever it is another."""
    desk.leader.hellos["n2"] = Hello("another journal", "moved:7301")
    desk.step()
    desk.commit()
    result = desk.members.member("n2")
    assert result == Member(
        node_id=N2, address="moved:7301", journal_id="journal of n2"
    )
    last = desk.journal.last_index
    desk.step()
    assert desk.journal.last_index == last


def test_nothing_is_written_that_an_older_release_could_not_read(desk: Desk) -> None:
    """It has no name for its journal: so nothing changes until all have one."""
    unnamed = desk.members.with_member(member(N3))
    desk.leader.append_configuration(unnamed)
    desk.commit()
    desk.leader.hellos["n3"] = Hello("")
    calls = desk.ask(Remove(N2), timeout_s=1)
    desk.step()
    assert desk.members == unnamed
    desk.step(1)
    assert "not every voter has shown its journal" in refusal(calls)[1]
    desk.leader.hellos["n3"] = Hello("journal of n3")
    desk.step()
    assert desk.members.is_named


def test_everybody_is_answered_when_the_leadership_is_lost(desk: Desk) -> None:
    desk.leader.contacts = {"n3"}
    appended, waiting = desk.ask(Remove(N2)), desk.ask(Remove(N3))
    desk.step()
    desk.membership.leadership_lost()
    assert isinstance(appended[0], OutcomeUnknownError)
    assert isinstance(waiting[0], NoPrimaryError)
    desk.leader.leads = False
    assert isinstance(desk.ask(Remove(N3))[0], NoPrimaryError)
    assert (len(appended), len(waiting)) == (1, 1)


def test_an_appended_change_that_takes_too_long_is_unknown(desk: Desk) -> None:
    calls = desk.ask(Remove(N2), timeout_s=1)
    desk.step()
    desk.step(1)
    assert isinstance(calls[0], OutcomeUnknownError)


def test_too_many_changes_are_shed(desk: Desk) -> None:
    desk.leader.own_term = False
    for _ in range(CHANGES_WAITING_MAX):
        assert desk.ask(Remove(N2)) == []
    assert isinstance(desk.ask(Remove(N2))[0], OverloadedError)


def test_a_configuration_is_its_bytes() -> None:
    result = Configuration.of([member(N2), member(N1)], removed=[N5, N4])
    result = result.with_member(
        Member(node_id=N3, address="c:1", role=MemberRole.LEARNER, journal_id="j")
    )
    assert Configuration.from_bytes(result.to_bytes()) == result
    assert result.to_bytes().hex() == (
        "0a0f0a026e3112076e313a373330311801"
        "0a0f0a026e3212076e323a373330311801"
        "0a0e0a026e331203633a31180222016a"
        "12026e3412026e35"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"",
        Configuration((member(N1), member(N1))).to_bytes(),
        Configuration((member(N1),), (N1,)).to_bytes(),
        Configuration((member(N1),)).to_bytes() + b"\x18\x01",
        b"\x0a\x06\x0a\x02n1\x18\x09",
    ],
    ids=["nonsense", "nobody", "twice", "removed too", "a newer field", "a newer role"],
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Configuration.from_bytes(data)


def test_a_joining_node_starts_as_a_learner() -> None:
    members = [member(i) for i in (N1, N2)]
    assert founders(N2, members, joins=False).voters == {N1, N2}
    assert founders(N2, members, joins=True).voters == {N1}
