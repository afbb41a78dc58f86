# SPDX-License-Identifier: Apache-2.0
"""The same, of a new cluster: what is left of the old one counts in it."""

from types import SimpleNamespace

from tests.simulation.broken_codes import CODE, tried
from tests.simulation.broken_runs import breaks, node
from tests.simulation.invariants import Invariants
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


NEW_CLUSTER_RUNS = True
"""Imported by the test, so that the runs above are registered."""
