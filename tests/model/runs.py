# SPDX-License-Identifier: Apache-2.0
"""The runs of the model checker: what must hold, and what must be noticed."""

from tests.model.checker import Setup

SOUND = {
    "elections, entries and old messages": Setup(terms=3, entries=3),
    "crashes and power cuts": Setup(crashes=1),
    "reads": Setup(reads=1),
    "a member without its disk": Setup(wipes=1),
    "the first election": Setup(named=False, entries=3, wipes=1),
    "a member that joins, and one that leaves": Setup(
        founders=2, newcomers=1, entries=3, changes=2
    ),
    "members that leave one after another": Setup(entries=4, changes=2),
}
"""Every state within these bounds keeps all invariants."""

BROKEN = {
    "sync before voting": Setup(crashes=1),
    "sync before acknowledging": Setup(crashes=1),
    "a leader counts itself after its sync": Setup(crashes=1),
    "one vote in a term": Setup(),
    "votes for complete logs only": Setup(),
    "only conflicting entries are cut off": Setup(),
    "acknowledge what the message confirms": Setup(terms=3, entries=3),
    "acknowledgements count in their term": Setup(terms=3, entries=3),
    "a quorum confirms reads": Setup(reads=1),
    "a member confirms its own term only": Setup(reads=1),
    "reads wait for an entry of the own term": Setup(reads=1),
    "lost journals are refused": Setup(wipes=1),
    "the first election needs every voter": Setup(named=False, wipes=1),
    "a node without its journal does not campaign": Setup(
        named=False, entries=3, wipes=1
    ),
    "only voters are counted": Setup(newcomers=1),
    "one change at a time": Setup(entries=4, changes=2),
    # Two leaders, each with members of its own that no other node has heard of. It takes
    # four founders: one change to three leaves no disjoint quorums, and of two founders,
    # the second leader would need the vote of the first, which has the longer log.
    "members change after an entry of the own term": Setup(
        founders=4, terms=3, entries=3, changes=2, silent=True
    ),
    "commit entries of the own term": Setup(terms=4),
}
"""Protections: without one of them, an invariant must be violated within these bounds."""
