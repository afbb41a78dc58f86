# SPDX-License-Identifier: Apache-2.0
"""The base of all faults: a site, random choices, and a proof of the effect."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from local_cluster.cluster import LocalNode

from tests.faults.receivers import Receivers
from tests.faults.site import Site

FirstSuccess: TypeAlias = Callable[[int, str], float | None]
"""Seconds from a moment to the first answer to a later call by any other node."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a fault had an effect, and how that shows."""

    bit: bool
    words: str
    success_s: float | None = None
    """After a kill of the primary: seconds until the survivors answered a new call."""
    failure: str = ""
    """A problem that the fault must not cause."""


class Striker:
    """The base class of faults of every kind."""

    def __init__(
        self,
        site: Site,
        chance: random.Random,
        *,
        primary: Callable[[], LocalNode],
        offset_of: Callable[[str], float],
        newest_applied: Callable[[], int],
        first_success: FirstSuccess,
        receivers: Receivers,
    ) -> None:
        self._site = site
        self._chance = chance
        self._primary = primary
        self._offset_of = offset_of
        self._newest_applied = newest_applied
        self._first_success = first_success
        self._receivers = receivers
        self.down: set[str] = set()
        """The nodes that the latest fault took down; all others must still run."""

    def _replicas(self) -> list[LocalNode]:
        primary = self._primary()
        results = [node for node in self._site.nodes if node is not primary]
        self._chance.shuffle(results)
        return results

    def _replica(self) -> LocalNode:
        return self._replicas()[0]

    def _until_success(self, after_ns: int, but: str, within_s: float) -> float | None:
        """
        Return the seconds until a later call was answered by a node other than *but*.

        None: there was no answer in time.
        """
        while (success_s := self._first_success(after_ns, but)) is None:
            if time.monotonic_ns() > after_ns + within_s * 1e9:
                return None
            time.sleep(0.05)
        return success_s

    def _last(self, at_least_s: float, at_most_s: float) -> float:
        seconds = self._chance.uniform(at_least_s, at_most_s)
        time.sleep(seconds)
        return seconds


def names(nodes: Sequence[LocalNode]) -> str:
    return ", ".join(sorted(node.node_id for node in nodes))
