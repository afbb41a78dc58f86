# SPDX-License-Identifier: Apache-2.0
"""
Every command costs the same steps of SQLite in a small and in a large estate.

The thread that applies commands answers nobody meanwhile, and a primary sends no
heartbeats. The golden scripts have every command, so they run in estates of two sizes.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.commands.approvals import Approve
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.commands.keys import RetireKey
from sparecode_node.statemachine.commands.pending import from_json
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables.formats import columns
from sparecode_node.statemachine.tables.schema import VERSION
from tests.statemachine.scripts import directives
from tests.statemachine.steps import add_crowd, add_history, steps
from tests.statemachine.test_scripts import SCRIPTS
from tests.statemachine.world import World

FEW, MANY = 3, 150
"""Users, each with a token, ten codes, an agent, and what they left behind."""

GROWING = {
    BeginEpoch: "it changes every user and token, and nobody is served before it",
    OpenCluster: "the same, and it ends the time in which agents are not served",
}
"""Commands that cost more in a larger estate, and why they may."""

GROWING_BELOW_2 = GROWING | {
    UpdatePolicy: "as release 0.1.0 counts live codes",
    RetireKey: "as release 0.1.0 looks for values that are sealed with the key",
}


class MeasuredWorld(World):
    """A state machine with an estate, which records the steps of each entry."""

    def __init__(self, users: int, level: int) -> None:
        super().__init__()
        add_crowd(self.db, users)
        add_history(self.db, users)
        meta.write(self.db, "feature_level", level)
        self.machine.reload()
        self.costs: list[tuple[type[Command], int]] = []

    def apply_batch(self, calls: Sequence[Call]) -> tuple[Result, ...]:
        self.index += 1
        command = self._decided(calls[0].command)
        results: list[tuple[Result, ...]] = []
        taken = steps(
            self.db, lambda: results.append(self.machine.apply(self.index, calls))
        )
        self.costs.append((type(command), taken))
        return results[0]

    def _decided(self, command: Command) -> Command:
        """Return the command, or the one that it approves."""
        if not isinstance(command, Approve):
            return command
        row = self.db.execute(
            "SELECT change FROM approvals WHERE approval_id = ? AND change != ''",
            (command.approval_id,),
        ).fetchone()
        return from_json(row[0]) if row else command


def costs(script: Path, users: int, level: int) -> list[tuple[type[Command], int]]:
    """Return the command and the steps of each entry of a script."""
    world = MeasuredWorld(users, level)
    for directive, arguments in directives(script):
        world.handle(directive, arguments)
    return world.costs


MOVING = "moves_level_2"
"""It moves and deletes every user, in batches, so its two estates end unlike."""


@pytest.mark.parametrize(
    "script",
    [each for each in SCRIPTS if each.stem != MOVING],
    ids=lambda path: path.stem,
)
def test_a_command_costs_the_same_in_a_larger_estate(script: Path) -> None:
    """(c) At each level: most scripts are played at the first one."""
    for level, growing in ((1, GROWING_BELOW_2), (2, GROWING)):
        few, many = (costs(script, users, level) for users in (FEW, MANY))
        assert [command for command, _ in few] == [command for command, _ in many]
        assert [
            (command.__name__, one, other)
            for (command, one), (_, other) in zip(few, many, strict=True)
            if one != other and command not in growing
        ] == []


def test_the_estate_fills_every_table_that_grows() -> None:
    world = MeasuredWorld(FEW, 2)
    empty = {
        table
        for table in columns(VERSION)
        if not world.db.execute(f"SELECT 1 FROM {table}").fetchone()  # noqa: S608
    }
    assert empty == SMALL.keys() | NOT_FILLED.keys()


SMALL = dict.fromkeys(
    (
        *("administrator_resets", "approvals", "browser_logins", "passkeys", "policy"),
        *("sessions", "sign_in_waits"),
        *("authority_keys", "authority_successors", "due_authorities", "join_tickets"),
        *("member_keys", "nodes", "ring_keys", "segment_holders"),
        *("lost_segments", "skip_statements", "skipped_entries"),
        *("archive_places", "channels", "move_administrators", "moved_slots", "moves"),
        *("notices", "notice_senders"),
    ),
    "it has rows for administrators, members or operators, or a bound",
)

NOT_FILLED = {
    "archived_segments": "one row for each 10,000 events; this test does not cover it",
    "removed_segments": "one row for each 10,000 events; this test does not cover it",
    "audit_events": "apply reads the newest and the oldest, by their number",
    "audit_segments": "apply looks one up by its number: test_segment_holders.py",
}
