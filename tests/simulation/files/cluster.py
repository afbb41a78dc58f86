# SPDX-License-Identifier: Apache-2.0
"""The simulated cluster with the real state machine on simulated files."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.codes import CodesCluster
from tests.simulation.disk import StateFault
from tests.simulation.faults import Profile
from tests.simulation.files.processes import Processes
from tests.simulation.files.rot import RottingDisks
from tests.simulation.files.store import FileStore
from tests.simulation.machines import Node
from tests.simulation.scenarios import Scenario

FAULT_RATE = 0.01
"""Of faults in a step, where the disks are not the subject."""
MORE_FAULTS_RATE = 0.05
DEATHS = ("killed inside", "killed", "wiped", "put back to an older copy")
"""Of a process that has not stopped itself."""

CALLS_MAX = 120
"""Calls that go well before the one that does not."""


class FilesCluster(CodesCluster):
    """Adds faults of the files of the states to those of engines and journals."""

    rotates = False  # The resealer reads the state in memory.
    has_archives = False  # No segment is written to the file of sealed events.

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._dice = random.Random(f"{seed} {scenario.nodes} files")
        self._processes = Processes(self._dice)
        store = lambda: FileStore(self._processes, self._dice)  # noqa: E731
        super().__init__(seed, replace(scenario, store=store))

        self._rot = RottingDisks(self, self._dice)

    @contextlib.contextmanager
    def world(self, *, risk: float = 0.0) -> Iterator[None]:
        with self._processes.simulated(), super().world(risk=risk):
            yield

    def step(self, *, faulty: bool) -> None:
        if faulty:
            self._spoil()
            self._rot.act()
        self._rot.replace_refused()
        super().step(faulty=faulty)

    def _die(self, node: Node, *, power: bool, cause: str) -> None:
        if cause not in DEATHS:
            self._rot.stopped(node)
        super()._die(node, power=power, cause=cause)

    def _spoil(self) -> None:
        """Plan a failing call, or a kill inside one."""
        dice = self._dice
        much = self.faults.profile in (Profile.DISKS, Profile.POWER)
        if dice.random() >= (MORE_FAULTS_RATE if much else FAULT_RATE):
            return
        node = self.nodes[dice.choice(self.ids)]
        sync = dice.random() < 0.3
        many = 10 if sync or dice.random() < 0.5 else CALLS_MAX
        node.disk.state_fault = StateFault(
            dice.randrange(many),
            kills=dice.random() < 0.5,
            checkpoint=dice.random() < 0.5,
            sync=sync,
        )
