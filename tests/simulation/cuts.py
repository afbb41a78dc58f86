# SPDX-License-Identifier: Apache-2.0
"""Partitions, each counted when it keeps the first message from arriving."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.fault_effects import Effect

Direction = tuple[str, str]


@dataclass
class Cuts:
    """The partitions that have kept no message from arriving yet."""

    count: Callable[[Effect], object]
    _waiting: list[tuple[set[Direction], Effect]] = field(default_factory=list)

    def begin(self, pairs: set[Direction], effect: Effect) -> None:
        """Count *effect* when one of these directions keeps a message back."""
        self._waiting.append((pairs, effect))

    def end(self, pairs: set[Direction]) -> None:
        """Forget the partitions of these directions."""
        self._waiting = [each for each in self._waiting if not each[0] <= pairs]

    def keep_back(self, direction: Direction) -> None:
        """Record that a message does not arrive."""
        bitten = [effect for pairs, effect in self._waiting if direction in pairs]
        if bitten:
            self._waiting = [e for e in self._waiting if direction not in e[0]]
        for effect in bitten:
            self.count(effect)
