# SPDX-License-Identifier: Apache-2.0
"""Golden scripts: what the state machine says, recorded and read before committed."""

from pathlib import Path

import pytest

from tests.statemachine.datadriven import run_script
from tests.statemachine.world import World

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script: Path, *, rewrite: bool) -> None:
    """Every script says what it said; replayed, its log makes the same state (U1)."""
    world = World()
    run_script(script, world.handle, rewrite=rewrite)
    if script.stem not in {
        "backups",
        "roles",
    }:  # Its administrators are planted, not in the log.
        assert world.replayed().machine.digest() == world.machine.digest()
