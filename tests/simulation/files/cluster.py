# SPDX-License-Identifier: Apache-2.0
"""The simulated cluster with the real state machine on simulated files."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.codes import CodesCluster
from tests.simulation.disk import StateFault
from tests.simulation.faults import Profile
from tests.simulation.files.journal_rot import JournalRot
from tests.simulation.files.processes import Processes
from tests.simulation.files.rot import RottingDisks
from tests.simulation.files.store import FileStore
from tests.simulation.machines import Node
from tests.simulation.scenarios import Scenario

FAULT_RATE = 0.01
"""Of faults in a step, where the disks are not the subject."""
MORE_FAULTS_RATE = 0.1
SYNCS_RATE = 0.3
"""Of syncs among the calls that fail."""
MORE_SYNCS_RATE = 0.6
"""Where the disks are the subject."""
OWN_RATE = 0.2
"""Of calls that the product makes itself, among the calls that fail and are no syncs."""
DEATHS = ("killed inside", "killed", "wiped", "put back to an older copy")
"""Of a process that has not stopped itself."""

CALLS_MAX = 120
"""Calls that go well before the one that does not."""
SYNCS_MAX = 3
"""The same of syncs with something to write: that is how often one is in a checkpoint."""

CUT_AFTER_ERROR_RATE = 0.02
"""
Of power cuts, per step, while a process goes on after a call has failed.

What it should have stopped for is seen only then, and errors of disks come in company.
"""


class FilesCluster(CodesCluster):
    """Adds faults of the files of the states to those of engines and journals."""

    rotates = False  # The resealer reads the state in memory.
    has_archives = False  # No segment is written to the file of sealed events.

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._dice = random.Random(f"{seed} {scenario.nodes} files")
        self._processes = Processes(self._dice)
        store = lambda: FileStore(self._processes, self._dice)  # noqa: E731
        super().__init__(seed, replace(scenario, store=store))
        batches = random.Random(f"{seed} {scenario.nodes} last batches")
        lost = random.Random(f"{seed} {scenario.nodes} lost writes")
        self._rot = RottingDisks(self, self._dice, batches, JournalRot(lost))

    @contextlib.contextmanager
    def world(self, *, risk: float = 0.0) -> Iterator[None]:
        with self._processes.simulated(), super().world(risk=risk):
            yield

    def step(self, *, faulty: bool) -> None:
        if faulty and self.absences.others_may_act:
            self._spoil()
            self._cut_power_after_errors()
            self._rot.act()
        self._rot.replace_refused()
        super().step(faulty=faulty)

    def boot(self, node: Node) -> None:
        super().boot(node)
        self._rot.started(node)

    def _die(self, node: Node, *, power: bool, cause: str) -> None:
        if cause not in DEATHS:
            self._rot.stopped(node)
        super()._die(node, power=power, cause=cause)

    def _cut_power_after_errors(self) -> None:
        for node_id in self.ids:
            node = self.nodes[node_id]
            goes_on = node.is_up() and node.disk.hurt
            if goes_on and self._dice.random() < CUT_AFTER_ERROR_RATE:
                self.crash(node_id, power=True)

    def _spoil(self) -> None:
        """Plan a failing call, or a kill inside one."""
        dice = self._dice
        much = self.faults.profile in (Profile.DISKS, Profile.POWER)
        if dice.random() >= (MORE_FAULTS_RATE if much else FAULT_RATE):
            return
        node = self.nodes[dice.choice(self.ids)]
        if node.disk.state_fault is not None:
            return  # That one is still to come.
        disks = self.faults.profile is Profile.DISKS
        sync = dice.random() < (MORE_SYNCS_RATE if disks else SYNCS_RATE)
        own = not sync and dice.random() < OWN_RATE
        many = 10 if own or dice.random() < 0.5 else CALLS_MAX
        node.disk.state_fault = StateFault(
            dice.randrange(SYNCS_MAX if sync else many),
            kills=dice.random() < 0.5,
            checkpoint=dice.random() < 0.5,
            sync=sync,
            own=own,
        )
