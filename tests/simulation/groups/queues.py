# SPDX-License-Identifier: Apache-2.0
"""
A proxy between programs and clusters that sends copies of attempts minutes later.

It keeps copies of attempts that were made before the move of their slot had ended. A
slot returns ten minutes after that end, or later: then these copies are harmless. A copy
of a later attempt, by a program with an old table, may arrive after the slot is back.
docs/clusters.md says what operators do about that, so the proxy keeps no such copy, nor
does the network (`Estate.ask`).
"""

import random
from collections.abc import Callable

from sparecode_client import slot_of
from sparecode_node.domain.moves import ELSEWHERE
from tests.simulation.groups.estate import Estate
from tests.simulation.groups.group import Group
from tests.simulation.groups.moves import REMEMBERED_S

HELD = 0.5
"""How often a copy of a try is held back."""
MARGIN_S = 1.0
"""A copy arrives so long before a cluster may forget the request, or earlier."""


class Queue:
    """Holds copies of attempts back, for as long as the clusters remember requests."""

    def __init__(self, estate: Estate, rng: random.Random) -> None:
        self._estate = estate
        self._rng = rng
        self._began: dict[str, float] = {}
        """Request id -> the time of its first try: it was not decided before."""

    def pass_on(
        self, group: Group, user: str, request_id: str, action: Callable[[], object]
    ) -> None:
        """Let a try through; sometimes a copy of it arrives later."""
        estate, now = self._estate, self._estate.timeline.now
        last = self._began.setdefault(request_id, now) + REMEMBERED_S - MARGIN_S
        if not estate.is_faulty or self._rng.random() >= HELD:
            return
        move = group.moves.newest_of(slot_of(user))
        if move is None or move.state not in ELSEWHERE:
            estate.rules.counts["held back"] += 1
            late_s = (last - now) * self._rng.uniform(0.6, 1.0)
            estate.arrive_late(group, action, late_s)
