# SPDX-License-Identifier: Apache-2.0
"""The same, of rotations of the key: a machine whose seals are not as its keys."""

import random
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.keys import KeyInUse
from sparecode_node.statemachine.tables import keys as key_tables
from tests.simulation.broken_runs import breaks
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effects
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.people import (
    FOUNDING,
    KEY,
    ROOT,
    IssuedSet,
    Try,
    call_of,
    marked,
)
from tests.simulation.rotations import Rotations, check_opens, check_unused
from tests.simulation.rules import CodeRules
from tests.simulation.sqlite_store import SqliteStore


def rotated(*, sealed_again: bool, row_says: int) -> Any:
    """Return a machine with a second key, and the administrator's password."""
    store = SqliteStore()
    store.start(Disk("n1", random.Random(1), Effects()))
    store.apply(1, [call_of(FOUNDING, "founding", content="").stamped(1)])
    key_id = key_tables.add(store.db, b"second", 1)
    key_tables.age(store.db, KeyInUse(key_id=KEY, fingerprint=b"", retire_at_ms=1))
    verifier = marked(b"right", key_id if sealed_again else KEY)
    store.db.execute(
        "UPDATE administrators SET password_verifier = ?, key_id = ?, "
        "factor_key_id = ? WHERE name = ?",
        (verifier, row_says, key_id, ROOT),
    )
    store.db.commit()
    store.db.keep()
    return SimpleNamespace(node_id="n1", store=store, wall_s=lambda: 9.0)


@breaks("no retired key used")
def a_row_that_names_a_retired_key() -> Invariants:
    made = Invariants()
    check_unused(made, rotated(sealed_again=True, row_says=1), [KEY])
    return made


@breaks("no retired key used")
def a_value_that_is_sealed_with_a_retired_key() -> Invariants:
    """Its row names another one."""
    made, machine = Invariants(), rotated(sealed_again=True, row_says=1)
    [_, second] = machine.store.keys().in_use
    check_unused(made, machine, [second.key_id])
    return made


@breaks("seals open")
def a_value_that_is_sealed_with_another_key_than_its_row_says() -> Invariants:
    made = Invariants()
    check_opens(made, rotated(sealed_again=False, row_says=2))
    return made


@breaks("rotations end")
def a_key_that_is_due_and_not_retired() -> Invariants:
    world: Any = SimpleNamespace(invariants=Invariants())
    machine = rotated(sealed_again=True, row_says=2)
    Rotations(world, random.Random(1), 0.0).check([machine])
    return world.invariants  # type: ignore[no-any-return]


@breaks("live codes work")
def a_live_code_that_is_refused() -> Invariants:
    rules, code = CodeRules(), Try("ada", IssuedSet("ada", 1, 0).set_id, 1)
    made = call_of(code.command(1), "r", content="")
    rules.check_works(code.what, Submission("r", "n1.1.0", 10.0, made))
    return rules


ROTATED_RUNS = True
"""Imported by the test, so that the runs above are registered."""
