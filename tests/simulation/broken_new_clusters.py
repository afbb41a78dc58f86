# SPDX-License-Identifier: Apache-2.0
"""The same, of a new cluster: what is left of the old one counts in it."""

from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.replication.raft.read_index import ReadPoint
from tests.simulation.broken_codes import CODE, tried
from tests.simulation.broken_runs import breaks, log_of, node
from tests.simulation.invariants import Invariants, Read
from tests.simulation.nodes.mistakes import (
    check_fenced,
    check_kept,
    check_none_leads,
    check_unanswered,
)
from tests.simulation.nodes.new_clusters import check_links, check_old_member
from tests.simulation.rules import CodeRules


@breaks("no link between clusters")
def a_link_of_a_node_of_the_old_cluster() -> Invariants:
    made, clusters = Invariants(), {"n1": "new", "n2": "old", "n3": "new"}
    machine = SimpleNamespace(node_id="n1", cluster_id="new")
    check_links(made, machine, clusters, {"n2", "n3"})
    return made


@breaks("no old member counts")
def a_node_of_the_old_cluster_that_leads() -> Invariants:
    made = Invariants()
    check_old_member(made, node("n2", leads=True), 5, 5)
    return made


@breaks("no old member counts")
def a_node_of_the_old_cluster_that_hears_of_commits() -> Invariants:
    made = Invariants()
    check_old_member(made, node("n2", leads=False), 5, 6)
    return made


@breaks("spent once")
def a_code_that_was_spent_in_the_old_cluster() -> Invariants:
    call, outcome = tried(CODE)
    rules = CodeRules(spent_before=frozenset({outcome.authentication_id}))
    rules.on_outcome(call, outcome)
    return rules


@breaks("no agent before the opening")
def a_code_that_was_accepted_before_the_review() -> Invariants:
    rules = CodeRules(serves_agents=False)
    call, outcome = tried(CODE)
    rules.on_outcome(call, outcome)
    return rules


# --- Mistakes before that


@breaks("no answer without memory")
def a_read_that_a_lost_majority_answers() -> Invariants:
    seen = Invariants()
    refused = Read("n1.1.r1", 1.0, 3, outcomes=[NoQuorumError("alone")])
    check_unanswered(seen, [refused])
    assert not seen.violations
    answered = Read("n1.1.r2", 1.0, 3, outcomes=[ReadPoint(index=3, state_ms=0)])
    check_unanswered(seen, [refused, answered])
    return seen


@breaks("no leader without memory")
def a_lost_majority_with_a_leader() -> Invariants:
    seen = Invariants(leaders={1: "n1"})
    check_none_leads(seen, {1})
    assert not seen.violations
    seen.check_leader(node("n2", 2, leads=True, journal=log_of()))
    check_none_leads(seen, {1})
    return seen


@breaks("survivors keep their logs")
def a_survivor_whose_log_was_cut() -> Invariants:
    seen = Invariants()
    check_kept(seen, "n1", (2, 7), (2, 7))
    assert not seen.violations
    check_kept(seen, "n1", (2, 7), (3, 6))
    return seen


def _put_back(refused_by: str) -> Any:
    status = SimpleNamespace(refused_by=refused_by)
    return node("n2", running=SimpleNamespace(status=lambda: status))


@breaks("older copies say so")
def an_older_copy_that_does_not_know_it() -> Invariants:
    seen = Invariants()
    check_fenced(seen, _put_back("n1"), up=True)
    assert not seen.violations
    check_fenced(seen, _put_back(""), up=True)
    return seen


@breaks("older copies say so")
def an_older_copy_that_does_not_run() -> Invariants:
    seen = Invariants()
    check_fenced(seen, _put_back("n1"), up=False)
    return seen


NEW_CLUSTER_RUNS = True
"""Imported by the test, so that the runs above are registered."""
