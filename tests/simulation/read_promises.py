# SPDX-License-Identifier: Apache-2.0
"""
What a primary that answers a read relies on, judged when it answers (thesis, 6.4).

A majority, the primary included, must have said after the read was asked that it is in
the primary's term. Then no other primary had committed anything before the read. What a
member says is one of two things: the answer to a question that the primary has sent after
the read was asked, or its word that it is in the primary's term once a caller of its own
has asked. The answer to an earlier question does not count, even if it arrives later: it
says nothing about the time since. And the primary must know what is committed, so an
entry of its own term is.

A word is judged by whether it is true, however the member has found its term: until the
journal of the member goes to a newer term, it is. An engine that is asked for a read does
not know when the callers of another member asked, for whom the word is. So it is judged
there that the member has been in that term, and where the callers get their answers that
a majority was in it after they asked.

Everything that is looked at gets a number, its moment: what has a greater one came later.
"""

from dataclasses import dataclass, field

from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.read_index import ReadPoint, Word
from tests.simulation.comparisons import Comparison
from tests.simulation.observed import Judge, Observed
from tests.simulation.roles import voters_of

NEVER = 0


@dataclass(frozen=True)
class Asked:
    """A read that an engine was asked for."""

    moment: int
    commit: int
    """What was committed by then, as this engine knew."""
    word: Word | None = None


@dataclass(frozen=True)
class Said:
    """What a primary has heard of a member, in a term of the primary."""

    moment: int
    """When the question was sent that the member has answered."""
    journal_id: str
    """The member's journal at its answer."""


@dataclass
class ReadPromises:
    """Judges the reads in one cluster."""

    judge: Judge
    _moment: int = NEVER
    _covered: int = NEVER
    """All that was asked before this moment is covered by a read that was answered."""
    _questions: dict[tuple[str, int, int], int] = field(default_factory=dict)
    """Primary, term and round -> when the question was sent."""
    _answers: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    """Member, primary, term and round -> the journal of the member that has answered."""
    _heard: dict[tuple[str, int], dict[str, Said]] = field(default_factory=dict)
    """Primary and term -> member -> the newest answer that has arrived."""
    _terms: dict[str, int] = field(default_factory=dict)
    """Member -> the term that its journal is in."""
    _was_in: dict[tuple[str, int], int] = field(default_factory=dict)
    """Member and term -> when its journal was last in it."""
    _left: dict[tuple[str, int], int] = field(default_factory=dict)
    """Member and term -> when its journal first went from it to a newer one."""

    def now(self) -> int:
        """Return a moment, which is later than all before it."""
        self._moment += 1
        return self._moment

    # --- What the engines do

    def on_send(self, node: Observed, peer: str, message: Message) -> None:
        """Note a question of a primary; judge and note the answer of a member."""
        me, term, number = node.node_id, message["term"], message["round"]
        if message["type"] == frames.ASK_TO_CONFIRM:
            self._questions.setdefault((me, term, number), self.now())
            return
        self._answers[me, peer, term, number] = node.journal.journal_id
        self.judge.comparisons[Comparison.CONFIRMED] += 1
        if term != node.term:
            seen = f"of {peer}: {message}"
            self._violated("leader of its own term confirmed", node, seen)

    def on_receive(self, node: Observed, peer: str, message: Message) -> None:
        """Note that an answer reaches a primary, before it counts it."""
        if message["type"] != frames.CONFIRM:
            return
        me, term, number = node.node_id, message["term"], message["round"]
        asked = self._questions.get((me, term, number), NEVER)
        journal_id = self._answers.get((peer, me, term, number))
        heard = self._heard.setdefault((me, term), {})
        known = heard.get(peer)
        if journal_id is not None and (known is None or known.moment < asked):
            heard[peer] = Said(asked, journal_id)

    def on_term(self, member: str, term: int) -> None:
        """Note which term the journal of a member is in; it may have lost newer ones."""
        before = self._terms.get(member)
        self._terms[member] = term
        if before is None or before == term:
            return
        self._was_in[member, before] = self.now()
        if term > before:
            self._left.setdefault((member, before), self.now())

    def on_ask(self, node: Observed, word: Word | None) -> Asked:
        """Note that an engine is asked for a read; return what to judge the answer by."""
        return Asked(self.now(), node.replica.engine.raftCommitIndex, word)

    # --- Judging

    def on_answer(self, node: Observed, asked: Asked, point: ReadPoint) -> None:
        """See that a majority is behind an answer, and that the primary may give it."""
        self.judge.comparisons[Comparison.READ_CONFIRMED] += 1
        journal = node.journal
        # A primary that removes itself counts itself, too: the voters that it has not
        # heard are no majority all the same, and elect no one.
        counted = {*voters_of(journal.configuration), node.node_id}
        quorum = len(counted) // 2 + 1
        answered, given = self._answered(node), self._given(node, asked.word)
        sure = {each for each in answered if answered[each] > asked.moment}
        # A word comes with the read: it was given before this engine was asked.
        sure |= given.keys() | {node.node_id}
        if len(sure & counted) < quorum:
            seen = f"{sorted(sure)} of {sorted(counted)}; {asked}"
            self._violated("read confirmed by a majority", node, seen)
        own = {node.node_id: self.now()}
        since = [
            max(said.get(each, NEVER) for said in (answered, given, own))
            for each in counted
        ]
        self._covered = max(self._covered, sorted(since, reverse=True)[quorum - 1])
        term = journal.term_at(point.index)
        if point.index < asked.commit or term not in (None, node.term):
            self._violated("read of what is committed", node, f"{point}; {asked}")

    def _answered(self, node: Observed) -> dict[str, int]:
        """Return which question each member has answered last, by when it was sent."""
        members = node.journal.configuration
        heard = self._heard.get((node.node_id, node.term), {})
        return {
            member: said.moment
            for member, said in heard.items()
            if not members.names_another_journal(member, said.journal_id)
        }

    def _given(self, node: Observed, word: Word | None) -> dict[str, int]:
        """Return until when the word of a member is true, if that counts at all."""
        if word is None or word.term != node.term:
            return {}
        members, journal_id = node.journal.configuration, word.hello.journal_id
        if members.names_another_journal(word.member, journal_id):
            return {}
        at = self._left.get((word.member, word.term))
        if at is None and self._terms.get(word.member) == word.term:
            at = self.now()
        if at is None:
            at = self._was_in.get((word.member, word.term))
        return {} if at is None else {word.member: at}

    def on_passed(self, moment: int) -> None:
        """See that a majority is behind the answer to a caller, who asked then."""
        self.judge.comparisons[Comparison.READ_COVERED] += 1
        if self._covered < moment:
            seen = (
                f"asked at {moment}, and covered is what was asked at {self._covered}"
            )
            self.judge.violated("read confirmed since its caller asked", seen)

    def _violated(self, kind: str, node: Observed, seen: str) -> None:
        self.judge.violated(kind, f"{node.node_id} in term {node.term}: {seen}")
