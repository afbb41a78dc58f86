# SPDX-License-Identifier: Apache-2.0
"""
Clusters that share the users, programs that sign them in, and operators who move slots.

The programs use the library's `AsyncRoutedAgent`, the clusters the real state machine.
Requests and answers are lost and repeated late, attempts up to ten minutes late. Clusters
lose their quorum for a while, slot tables are old, operators give moves up or want slots
back at once, and a thief sends again what they have sent. Moves take one slot or a range,
which another move may have in part. Passcodes of tokens are tried again everywhere, and
the clocks of tokens are set. Clusters are restored from older states, and one is lost for
good.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from sparecode_node.domain import tokencodes
from sparecode_node.services.cluster import move_pieces
from sparecode_node.statemachine.handlers import epochs
from sparecode_node.statemachine.handlers import moves as move_handlers
from tests.simulation.groups.estate import Estate
from tests.simulation.groups.hazards import Hazards
from tests.simulation.groups.moves import DELETED_AFTER_MS
from tests.simulation.groups.operators import Operators
from tests.simulation.groups.programs import PROGRAMS, Programs
from tests.simulation.groups.queues import Queue
from tests.simulation.groups.recovery import Recovery
from tests.simulation.groups.rules import GroupRules
from tests.simulation.groups.tokens import DRIFT_GROWTH, PERIOD_S
from tests.simulation.nodes.loops import NodeLoop, Timeline

CONTENT_BYTES = 1_000
"""A user has several pieces, so that an import may stop between them."""
PERIODS_S = (PERIOD_S, *tokencodes.PERIODS_S)
SECONDS = 80.0
OPERATORS = 4


class GroupsRun:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(move_handlers, "DELETED_AFTER_MS", DELETED_AFTER_MS)
        self._patch.setattr(move_pieces, "CONTENT_BYTES", CONTENT_BYTES)
        self._patch.setattr(tokencodes, "PERIODS_S", PERIODS_S)
        self._patch.setattr(epochs, "DRIFT_GROWTH_MAX", DRIFT_GROWTH)
        self.rules = GroupRules()
        self.timeline = Timeline()
        self.loop = NodeLoop(
            self.timeline,
            self.rng,
            rate=1.0,
            run_beside=lambda work: work() or 0.0,
            on_error=lambda seen: self.rules.violated("no exception", seen),
        )
        self.estate = Estate(self.rng, self.rules, self.timeline, PROGRAMS)
        # Dice of their own: what is held back, or set, rolls no others.
        queue = Queue(self.estate, random.Random(f"{seed} queue"))
        self.programs = Programs(self.estate, SECONDS, queue)
        self.operators = Operators(self.estate)
        self.recovery = Recovery(self.estate)
        self.hazards = Hazards(self.estate, random.Random(f"{seed} clocks"))

    def close(self) -> None:
        self._patch.undo()
        self.loop.kill()
        self.loop.drain()
        self.estate.close()

    def run(self) -> None:
        """Run to the end, and look at what is left."""
        estate = self.estate
        work = [
            *(self.programs.sign_in(program) for program in range(PROGRAMS)),
            *(self.operators.move() for _ in range(OPERATORS)),
            self.operators.move_on(),
            self.programs.deploy(),
            self.programs.help(),
            self.recovery.back_up(),
            self.recovery.recover(),
            self.hazards.stop_clusters(),
            self.hazards.steal(),
            self.hazards.replay(),
            self.hazards.set_clocks(),
        ]
        tasks = [self.loop.create_task(each) for each in work]
        self.timeline.run_until(self.timeline.now + SECONDS)
        estate.is_faulty = False
        for group in estate.living:
            group.is_up = True
        self._expect_end(tasks)
        self._expect_end(self.operators.deletions)
        self._expect_end([self.loop.create_task(self.programs.do_without_each_group())])
        estate.check_homes()
        self.rules.check_end(estate.living, estate.slots, estate.codes)

    def _expect_end(self, tasks: Sequence["asyncio.Task[Any]"]) -> None:
        self.timeline.run_until(self.timeline.now + SECONDS)
        for task in tasks:
            if not task.done():
                self.rules.violated("everything ends", repr(task.get_coro()))
            elif error := task.exception():
                self.rules.violated("no exception", repr(error))
