# SPDX-License-Identifier: Apache-2.0
"""
The agreement of simulated nodes about sealed segments, by the product's steps (U1).

A node tells by the log what its file has stored and proved, and lets apply discard what
all voters have told, as its own state and its own members say. Two things must hold
whatever fails: what counts as stored was proved, and nothing leaves a state before every
voter has once stored it.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from sparecode_node.domain.audit import chain_hash
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.segments import Holding
from sparecode_node.services.cluster.segment_holders import note_of
from sparecode_node.services.cluster.segment_plan import (
    Files,
    Plan,
    discardable,
    plan_of,
)
from sparecode_node.statemachine import sealed_events
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.segments import Segment
from tests.simulation.comparisons import Comparison
from tests.simulation.machines import Node
from tests.simulation.rules import CodeRules
from tests.simulation.sealed import SealedFile, rows_of_segment
from tests.simulation.sqlite_store import SqliteStore

Propose = Callable[[str, str, Callable[[], UnstampedCall]], object]

FORGED = 0.5
"""How often a fetched segment first comes from a machine that forges it."""


class Agreement:
    """What the members tell of their segments, and what they discard."""

    def __init__(
        self,
        forger: random.Random,
        rules: CodeRules,
        leader: Callable[[], str | None],
        propose: Propose,
    ) -> None:
        """*propose* forwards to the node that *leader* names, as a replica does."""
        self._forger = forger
        self._rules = rules
        self._leader = leader
        self._propose = propose
        self._had: dict[tuple[str, int], bytes] = {}
        """The node and number of each segment that was stored and proved, ever."""
        self._counts: set[tuple[str, int]] = set()
        """Those that count as stored now."""
        self._requests = 0

    def look(self, node: Node, store: SqliteStore, *, faulty: bool) -> bool:
        """Tell and discard, as a node does; return whether it may discard anything."""
        own = NodeId(node.node_id)
        self.see_stored(own, store)
        members = node.journal.configuration
        told = segments.holdings(store.db)
        sealed = store.db.all_sealed()
        last = sealed[-1].number if sealed else 0
        removed = store.db.removed().through
        agreed = discardable(
            members.members, told, last, segments.lost(store.db), removed=removed
        )
        plan = _plan(store, agreed, removed)
        self._see_discarded(own, members.voters, plan, sealed)
        store.machine.stored = plan.stored
        known = members.member(own) is not None
        # Later, all machines are to come to the same entry.
        if faulty and known and plan.holding != told.get(own, Holding()):
            self._tell(own, plan.holding)
        return plan.stored is not None

    def _tell(self, own: NodeId, holding: Holding) -> None:
        if (leader := self._leader()) is None:
            return
        self._requests += 1
        request = f"NoteSegments{self._requests}"
        made = UnstampedCall.of_node(own, note_of(own, holding), RequestId(request))
        self._propose(leader, request, lambda: made)

    def forge(
        self, segment: Segment, store: SqliteStore, others: Sequence[SqliteStore]
    ) -> bool:
        """Let another machine send forged events; return whether they count: they must not."""
        senders = [each for each in others if each is not store]
        if not senders or self._forger.random() >= FORGED:
            return False
        self._rules.comparisons[Comparison.FORGED] += 1
        sender = self._forger.choice(senders)
        return store.sealed.fetch(segment, sender.sealed, self._forger)

    def see_stored(self, node_id: str, store: SqliteStore) -> None:
        """See that each segment that counts as stored was whole when it began to."""
        for segment in store.db.all_sealed():
            key = (node_id, segment.number)
            value = store.sealed.stored().get(segment.number)
            if value != segment.hash_after:
                self._counts.discard(key)
            if value != segment.hash_after or key in self._counts:
                continue
            self._counts.add(key)
            self._rules.comparisons[Comparison.STORED] += 1
            if _head(store.sealed, segment) != value:
                seen = f"{node_id}: segment {segment.number}"
                self._rules.violated("proved before it counts as stored", seen)
            self._had[key] = value

    def _see_discarded(
        self, own: str, voters: frozenset[str], plan: Plan, sealed: Sequence[Segment]
    ) -> None:
        """See that every voter has once stored what apply may discard now."""
        if plan.stored is None:
            return
        for segment in sealed:
            if not (
                plan.stored.first <= segment.last_sequence
                and plan.removed < segment.number <= plan.stored.segment.number
            ):
                continue
            self._rules.comparisons[Comparison.DISCARDED] += 1
            lacking = sorted(
                each
                for each in voters
                if self._had.get((each, segment.number)) != segment.hash_after
            )
            if lacking:
                seen = f"{own}: segment {segment.number}, and {lacking} never had it"
                self._rules.violated(
                    "stored by all voters before it is discarded", seen
                )


def _plan(
    store: SqliteStore, agreed: tuple[tuple[int, int], ...], removed: int
) -> Plan:
    (first,) = store.db.execute(
        "SELECT coalesce(min(sequence), 0) FROM main.audit_events"
    ).fetchone()

    def is_in_state(segment: Segment) -> bool:
        return segment.first_sequence >= first

    stored: Mapping[int, bytes] = store.sealed.stored()
    files = Files(
        sealed=store.db.all_sealed(),
        stored=stored,
        first=first,
        removed=removed,
        lost=frozenset(segments.lost(store.db)),
        is_in_state=is_in_state,
    )
    return plan_of(files, agreed=agreed)


def _head(file: SealedFile, segment: Segment) -> bytes:
    """Return the hash of the chain after the rows that a file has of a segment."""
    head = segment.hash_before
    for row in rows_of_segment(file, segment):
        head = chain_hash(head, sealed_events._event(row))
    return head
