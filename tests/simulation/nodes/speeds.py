# SPDX-License-Identifier: Apache-2.0
"""How long things take on a simulated machine."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.disk import Disk, File


@dataclass(frozen=True)
class Speed:
    """How long things take on one machine, and how fast its clock is."""

    sync_s: float
    apply_s: float
    beside_s: float
    rate: float
    bytes_s: float
    """What a worker thread reads or writes of a snapshot in a second."""

    @classmethod
    def drawn(cls, dice: random.Random) -> "Speed":
        """Draw one of a usual machine, of a slow disk, or of a slow machine."""
        return cls(
            sync_s=dice.choice([0.0005, 0.0005, 0.002, 0.01, 0.04]),
            apply_s=dice.choice([0.0002, 0.0002, 0.001, 0.005]),
            beside_s=dice.choice([0.001, 0.01, 0.05, 0.1]),
            rate=dice.choice([1.0, 1.0, 0.98, 1.02, 0.999]),
            bytes_s=dice.choice([200e6, 200e6, 5e6, 500e3]),
        )


class TimedDisk(Disk):
    """A disk whose syncs take time."""

    spend: Callable[[float], object] = staticmethod(lambda _seconds: None)
    sync_s = 0.0
    on_sync: Callable[[File], object] = staticmethod(lambda _file: None)
    """Called before a thread waits for the sync of a file."""

    def copy(self) -> "TimedDisk":
        other = super().copy()
        assert isinstance(other, TimedDisk)
        other.sync_s, other.spend = self.sync_s, self.spend
        return other

    def sync(self, file: File) -> None:
        self.on_sync(file)
        late = self.rng.random() < 0.01
        self.spend(self.sync_s * self.rng.uniform(0.5, 20 if late else 2))
        super().sync(file)
