# SPDX-License-Identifier: Apache-2.0
"""The same, of machines that have lost something."""

from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.raft import frames
from tests.simulation.broken_promises import NAMED, looked_at, said, three
from tests.simulation.broken_runs import breaks
from tests.simulation.invariants import Invariants


def acknowledged(
    nodes: dict[str, Any], index: int, term: int, seen: Invariants
) -> None:
    """Let n2 acknowledge entries to n1, which leads and counts them."""
    kind, more = frames.NEXT_NODE_IDX, {"next_node_idx": index + 1, "success": True}
    said(nodes, "n2", "n1", kind, seen, term=term, **more)
    nodes["n1"].replica.guard.progress = lambda peer: SimpleNamespace(
        acked=index if peer == "n2" else 0
    )


def wiped(nodes: dict[str, Any], seen: Invariants, journal: str = "") -> None:
    """Let n2 lose its log, and return with this journal."""
    n2 = nodes["n2"]
    seen.promises.forget("n2")
    del n2.journal.entries[1:]
    n2.journal.journal_id = journal or n2.journal.journal_id


def counted_before_its_return() -> tuple[dict[str, Any], Invariants]:
    """Let the leader of term 1 count two entries that n2 then loses."""
    nodes, seen = three(), Invariants()
    for each in ("n1", "n2"):
        nodes[each].journal.append(1, 1)
    acknowledged(nodes, 3, 1, seen)
    looked_at(nodes, "n1", seen)
    wiped(nodes, seen)
    nodes["n1"].replica.engine.raftCommitIndex = 3
    looked_at(nodes, "n1", seen)
    assert not seen.violations
    return nodes, seen


@breaks("counted what a member has")
def a_leader_that_counts_in_another_term_what_a_member_has_lost() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n1"].term = 2
    return looked_at(nodes, "n1", seen)


@breaks("committed by a majority")
def a_commit_of_what_a_returned_member_does_not_have() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n1"].journal.append(1)
    nodes["n1"].replica.engine.raftCommitIndex = 4
    return looked_at(nodes, "n1", seen)


@breaks("counted with the known journal")
def a_leader_that_counts_a_member_with_another_journal() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n2"].journal.journal_id = "a new one"
    for each in ("n1", "n2"):
        nodes[each].journal.entries[1:] = [(b"", index, 1) for index in (2, 3, 4)]
    acknowledged(nodes, 4, 1, seen)
    return looked_at(nodes, "n1", seen)


@breaks("one vote in a term")
def two_votes_in_a_term_after_a_return() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    seen.promises.forget("n3")
    said(nodes, "n3", "n2", frames.RESPONSE_VOTE, seen, term=2)
    assert not seen.violations
    return said(nodes, "n3", "n1", frames.RESPONSE_VOTE, seen, term=2)


@breaks("votes are kept")
def a_voter_that_starts_without_its_vote_after_a_return() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    seen.promises.forget("n3")
    looked_at(nodes, "n3", seen)
    said(nodes, "n3", "n2", frames.RESPONSE_VOTE, seen, term=2)
    assert not seen.violations
    nodes["n3"].life, nodes["n3"].journal.term = 2, 2
    return looked_at(nodes, "n3", seen)


@breaks("votes are kept")
def a_voter_that_starts_without_the_vote_that_was_left_to_it() -> Invariants:
    nodes, seen = three(), Invariants()
    seen.promises.forget("n3")
    journal = nodes["n3"].journal
    journal.term, journal.vote = 2, "n1"
    assert not looked_at(nodes, "n3", seen).violations
    nodes["n3"].life, journal.vote = 2, None
    return looked_at(nodes, "n3", seen)


RETURNED_RUNS = True
"""Importing this module adds its runs."""
