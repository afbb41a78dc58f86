# SPDX-License-Identifier: Apache-2.0
"""How long the callers of a core that is left alone were without an answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Read, Submission

BOUND_S = 3.0
"""
A caller that knows all nodes of the core is not without an answer for longer.

Silence that a node of the core forgives (`raft.stalls`), because its disk was late, is in
this time: callers wait meanwhile.
"""

BOUND_EACH_S = 5.0
"""And a caller of one node of it is not for longer, once the node has the log."""


@dataclass
class Bounds:
    """The times without an answer, of all nodes of the core and of each of them."""

    longest_s: float = 0.0
    longest_each_s: float = 0.0
    healed_s: float = 0.0
    _answered_at: dict[str, float] = field(default_factory=dict)
    _probes: list[tuple[str, Submission, Read]] = field(default_factory=list)

    def begin(self, now: float, core: list[str]) -> None:
        """Count from now on."""
        self._answered_at = dict.fromkeys(core, now)

    def asked(self, node_id: str, submission: Submission, read: Read) -> None:
        """Wait for the answers to a call and to a read."""
        self._probes.append((node_id, submission, read))

    def excuse(self, node_id: str, now: float) -> None:
        """
        Begin again to count for a node while one of the core fetches a snapshot.

        On a slow disk, or over a slow link, that takes long.
        """
        self._answered_at[node_id] = now

    def take_answers(self, now: float) -> int:
        """Take the answers that are new; return how many there are."""
        waiting, answered = [], 0
        for node_id, submission, read in self._probes:
            outcomes = (*submission.outcomes, *read.outcomes)
            if not (submission.outcomes and read.outcomes):
                waiting.append((node_id, submission, read))
            elif not any(isinstance(outcome, Exception) for outcome in outcomes):
                self._answered_at[node_id] = now
                answered += 1
        self._probes = waiting
        since = [now - at for at in self._answered_at.values()]
        self.longest_s = max(self.longest_s, min(since))
        self.longest_each_s = max(self.longest_each_s, *since)
        return answered

    def check(
        self, invariants: Invariants, now: float, describe: Callable[[], str]
    ) -> None:
        """See that no answer has taken too long."""
        since = {node_id: now - at for node_id, at in self._answered_at.items()}
        invariants.comparisons[Comparison.CORE_TIME] += 1
        if min(since.values()) > BOUND_S:
            invariants.violated("core answers", f"{since}; {describe()}")
        if max(since.values()) > BOUND_EACH_S:
            invariants.violated("each of the core answers", f"{since}; {describe()}")
