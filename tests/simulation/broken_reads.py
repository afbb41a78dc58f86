# SPDX-License-Identifier: Apache-2.0
"""The same, of reads that too few members have confirmed, and of the members in snapshots."""

from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.journal import CONFIGURATION
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.read_index import ReadPoint, Word
from sparecode_node.replication.raft.rollback import Hello
from tests.simulation.broken_promises import NAMED, said, three
from tests.simulation.broken_runs import breaks
from tests.simulation.invariants import Invariants
from tests.simulation.read_promises import Asked


class ReadRun:
    """n1 leads, and is asked for reads; the others confirm it, or give their word."""

    def __init__(self, members: Configuration = NAMED, term: int = 1) -> None:
        self.nodes = three(members)
        for each in self.nodes.values():
            each.term = term
            each.journal.append(term)
            each.replica.engine.raftCommitIndex = each.journal.last_index
        self.leader = self.nodes["n1"]
        self.seen = Invariants()
        self.reads = self.seen.promises.reads
        self.term = term
        for each in self.nodes:
            self.reads.on_term(each, term)

    def asked(self, word: Word | None = None) -> Asked:
        return self.reads.on_ask(self.leader, word)

    def question(self, number: int, to: str = "n2") -> None:
        kind = frames.ASK_TO_CONFIRM
        said(self.nodes, "n1", to, kind, self.seen, term=self.term, round=number)

    def confirmation(self, number: int, of: str = "n2") -> None:
        """Let a member confirm the leader, which hears it at once."""
        more: dict[str, Any] = {"term": self.term, "round": number}
        said(self.nodes, of, "n1", frames.CONFIRM, self.seen, **more)
        message = {"type": frames.CONFIRM, **more}
        self.reads.on_receive(self.leader, of, message)

    def word(self, of: str, journal_id: str = "") -> Word:
        """Let a member say in which term it is."""
        hello = Hello(journal_id or self.nodes[of].journal.journal_id)
        return Word(member=of, hello=hello, term=self.nodes[of].term)

    def answer(self, asked: Asked, index: int = 2) -> Invariants:
        self.reads.on_answer(self.leader, asked, ReadPoint(index=index, state_ms=0))
        return self.seen


@breaks("read confirmed by a majority")
def a_read_that_no_other_member_has_confirmed() -> Invariants:
    run = ReadRun()
    asked = run.asked()
    run.question(1)
    return run.answer(asked)


@breaks("read confirmed by a majority")
def a_read_confirmed_before_it_was_asked() -> Invariants:
    """Let the answer to an earlier question arrive after it."""
    run = ReadRun()
    first = run.asked()
    run.question(1)
    second = run.asked()
    run.confirmation(1)
    assert not run.answer(first).violations
    run.question(2)
    return run.answer(second)


@breaks("read confirmed by a majority")
def a_read_confirmed_by_a_removed_member() -> Invariants:
    run = ReadRun(NAMED.without(NodeId("n3")))
    asked = run.asked()
    run.question(1, "n3")
    run.confirmation(1, "n3")
    return run.answer(asked)


@breaks("read confirmed by a majority")
def a_read_confirmed_with_another_journal() -> Invariants:
    run = ReadRun()
    run.nodes["n2"].journal.journal_id = "a new one"
    asked = run.asked()
    run.question(1)
    run.confirmation(1)
    return run.answer(asked)


@breaks("read confirmed by a majority")
def a_read_by_the_word_of_a_member_in_another_term() -> Invariants:
    run = ReadRun()
    assert not run.answer(run.asked(run.word("n2"))).violations
    run.nodes["n2"].term = 2
    return run.answer(run.asked(run.word("n2")))


@breaks("read confirmed by a majority")
def a_read_by_the_word_of_a_term_that_the_member_was_never_in() -> Invariants:
    run = ReadRun()
    run.leader.term = run.nodes["n2"].term = 2
    run.leader.journal.append(2)
    return run.answer(run.asked(run.word("n2")), index=3)


@breaks("read confirmed by a majority")
def a_read_by_a_word_with_another_journal() -> Invariants:
    run = ReadRun()
    return run.answer(run.asked(run.word("n2", "a new one")))


@breaks("read confirmed since its caller asked")
def a_read_by_a_word_that_was_true_before_its_caller_asked() -> Invariants:
    run = ReadRun()
    before = run.reads.now()
    word = run.word("n2")
    run.reads.on_term("n2", 2)
    after = run.reads.now()
    assert not run.answer(run.asked(word)).violations
    run.reads.on_passed(before)
    assert not run.seen.violations
    run.reads.on_passed(after)
    return run.seen


@breaks("read confirmed since its caller asked")
def a_read_by_the_word_of_a_member_that_has_lost_a_newer_term() -> Invariants:
    """Put a member that was in a newer term back to the term of the primary."""
    run = ReadRun()
    run.reads.on_term("n2", 2)
    run.reads.on_term("n2", 1)
    asked = run.reads.now()
    assert not run.answer(run.asked(run.word("n2"))).violations
    run.reads.on_passed(asked)
    return run.seen


@breaks("read of what is committed")
def a_read_before_an_entry_of_the_own_term() -> Invariants:
    run = ReadRun(term=2)
    run.leader.journal.entries[1] = (b"", 2, 1)
    return run.answer(run.asked(run.word("n2")))


@breaks("read of what is committed")
def a_read_of_less_than_was_committed() -> Invariants:
    run = ReadRun()
    run.leader.journal.append(1)
    run.leader.replica.engine.raftCommitIndex = 3
    return run.answer(run.asked(run.word("n2")))


# --- Snapshots


def snapshot(
    index: int, members: Configuration, term: int = 1, changed_to: Configuration = NAMED
) -> Invariants:
    """Return what is seen of a snapshot of a log whose entry 2 changes the members."""
    seen, journal = Invariants(), three()["n1"].journal
    journal.change(1, changed_to)
    journal.append(1)
    assert journal.entry(2)[0] == CONFIGURATION
    journal.entries[1] = (CONFIGURATION + changed_to.to_bytes(), 2, 1)
    for each in (2, 3):
        seen.promises.members.on_apply(journal, each)
    manifest: Any = SimpleNamespace(index=index, term=term, configuration=members)
    seen.promises.members.check_snapshot("n1", manifest)
    return seen


@breaks("snapshot with the members of its log")
def a_snapshot_with_members_of_a_later_entry() -> Invariants:
    assert not snapshot(3, NAMED).violations
    return snapshot(3, NAMED.without(NodeId("n3")))


@breaks("snapshot with the members of its log")
def a_snapshot_that_names_another_journal() -> Invariants:
    unnamed = NAMED.naming("n3", "")
    assert not snapshot(3, NAMED, changed_to=unnamed).violations
    return snapshot(3, NAMED.naming("n3", "a new one"))


@breaks("snapshot with the members of its log")
def a_snapshot_of_an_entry_of_another_term() -> Invariants:
    return snapshot(3, NAMED, term=2)


@breaks("snapshot with the members of its log")
def a_log_that_begins_with_other_members() -> Invariants:
    log = three()["n1"].journal
    log.append(1)
    log.entries[:] = [(b"", 3, 1)]
    seen = snapshot(3, NAMED)
    seen.promises.members.check_log("n1", log)
    assert not seen.violations
    log.configurations[:] = [(0, NAMED.without(NodeId("n3")))]
    seen.promises.members.check_log("n1", log)
    return seen


READ_RUNS = True
"""Importing this module adds its runs."""
