# SPDX-License-Identifier: Apache-2.0
"""Golden scripts: the state machine's recorded output, read before it is committed."""

import re
import typing
from pathlib import Path

import pytest

from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.browser_logins import StartBrowserLogin
from sparecode_node.statemachine.commands.cluster import PassBarrier
from sparecode_node.statemachine.commands.notices import AcknowledgeNotices
from sparecode_node.statemachine.commands.segments import (
    NoteArchive,
    NoteSegments,
    RemoveSegments,
)
from sparecode_node.statemachine.commands.sessions import TouchSessions
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.tables.formats import columns
from sparecode_node.statemachine.tables.schema import VERSION
from tests.statemachine.scripts import run_script
from tests.statemachine.world import World

WITHOUT_EVENT = {
    PassBarrier.__name__: "barrier",
    TouchSessions.__name__: "touch",
    StartBrowserLogin.__name__: "start-login",
    AcknowledgeNotices.__name__: "acknowledge",
    NoteSegments.__name__: "note-segments",
}
"""Commands that give no power, and their directives in scripts."""
NEED_A_SEGMENT = {
    NoteArchive.__name__: "note-archive",
    RemoveSegments.__name__: "remove-segments",
}
"""Commands whose events need a longer log than a script has (`test_retention.py`)."""

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_gives_its_recorded_output(script: Path, *, rewrite: bool) -> None:
    """
    Replaying the log of a script gives the same state (U1).

    And a stop and a start change no row: below its level, nothing new is written.
    """
    world = World()
    run_script(script, world.handle, rewrite=rewrite)
    if script.stem not in {
        "backups",
        "roles",
    }:  # Its administrators are planted, not in the log.
        assert world.replayed().machine.digest() == world.machine.digest()
    rows = rows_of(world)
    world.machine.rest()
    assert world.machine.digest() == StateMachine(world.db).digest()
    assert rows_of(world) == rows


def rows_of(world: World) -> list[str]:
    """Return every row of every table, in the columns' order."""
    return sorted(
        f"{table} {row}"
        for table in columns(VERSION)
        for row in world.db.execute(f"SELECT * FROM {table}")  # noqa: S608
    )


def test_every_command_is_in_a_script() -> None:
    """So a reader can see what each command does and how it is refused."""
    text = "\n".join(script.read_text() for script in SCRIPTS)
    missing = {
        command.__name__
        for command in typing.get_args(Command)
        if not re.search(rf"^  {command.__name__} ", text, re.MULTILINE)
    }
    assert missing == {*WITHOUT_EVENT, *NEED_A_SEGMENT}
    for directive in (*WITHOUT_EVENT.values(), *NEED_A_SEGMENT.values()):
        assert re.search(rf"^{directive}\b", text, re.MULTILINE)
