# SPDX-License-Identifier: Apache-2.0
"""
After a restore, no tokencode that the lost state accepted is accepted alone (E1, K1).

The story of each test: the clock of alice's token is ten minutes ahead, and her cluster
learns that after its backup.
"""

import json
import sqlite3
from collections.abc import Callable

import pytest

from sparecode_node.domain.moves import MoveState
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokens import DRIFT_GROWTH_MAX
from sparecode_node.statemachine.results import Decision
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_reclaimed_users import pass_minutes, restored
from tests.services.test_user_moves import Move, move, refused

pytestmark = pytest.mark.asyncio

__all__ = ["move"]

AHEAD = 20
"""Time steps by which alice's token is ahead."""
STEP_S = 30
OVER = DRIFT_GROWTH_MAX + 2
"""Time steps from an opening until one tokencode is enough; the window is one step."""


def backup(node: OneNode) -> Callable[[], None]:
    """Copy the tokens of a node; return what puts the copy back."""
    columns = [
        name for _, name, *_ in node.primary_db.execute("PRAGMA table_info(tokens)")
    ]
    rows = node.primary_db.execute("SELECT * FROM tokens").fetchall()

    def put_back(db: sqlite3.Connection) -> None:
        for row in rows:
            fields = ", ".join(f"{name} = ?" for name in columns)
            db.execute(
                f"UPDATE tokens SET {fields} WHERE serial = ?",  # noqa: S608 - its own.
                (*row, row[0]),
            )

    def put_all_back() -> None:
        for db in (node.primary_db, node.local_db):
            put_back(db)

    return put_all_back


async def resynchronize(node: OneNode, *codes: str) -> None:
    first, second = codes or (node.tokencode(step=AHEAD - 1), shown(node))
    await node.tokens.resynchronize(
        node.admin("TokenService/ResynchronizeToken"),
        serial=SERIAL,
        first_tokencode=first,
        second_tokencode=second,
    )


def shown(node: OneNode) -> str:
    """Return what alice's token shows now."""
    return node.tokencode(step=AHEAD)


def pass_steps(node: OneNode, steps: int) -> None:
    node.clock.pass_s(steps * STEP_S)


async def lost(node: OneNode, *, learned: int = 2, exists: bool = False) -> list[str]:
    """
    Learn the drift after a backup, sign in, and restore the backup.

    Return the two tokencodes of the resynchronization and the one of the sign-in.
    """
    if not exists:
        await node.add_user()
    put_back = backup(node)
    pair = [node.tokencode(step=AHEAD - 1), shown(node)]
    await resynchronize(node, *pair)
    pass_steps(node, learned)
    old = shown(node)
    assert await node.accepts(PIN + old)
    put_back()
    await restored(node)
    return [*pair, old]


async def set_policy(node: OneNode, **fields: int) -> None:
    """Change the policy, whatever rules such a change has."""
    for db in (node.primary_db, node.local_db):
        value = json.loads(db.execute("SELECT value FROM policy").fetchone()[0])
        db.execute("UPDATE policy SET value = ?", (json.dumps(value | fields),))


async def test_a_tokencode_is_not_accepted_again_after_a_restore(node: OneNode) -> None:
    """(E1) The restored state knows nothing of the drift that was learned after it."""
    _, _, old = await lost(node)
    pass_steps(node, AHEAD)
    answer = await node.authenticate(PIN + old)
    assert answer.decision is Decision.NEXT_TOKENCODE_REQUIRED


async def test_a_tokencode_is_not_accepted_again_after_a_reclaim(move: Move) -> None:
    """(E1) The other cluster has learned the drift, and is lost."""
    await move.through_import()
    await move.activate()
    await resynchronize(move.west)
    pass_steps(move.west, 2)
    old = PIN + shown(move.west)
    assert await move.west.accepts(old)
    await pass_minutes(move.east, 10)
    assert await move.reclaim(move.east) is MoveState.RETURNED
    pass_steps(move.east, 2)
    assert not await move.east.accepts(old)


async def test_for_an_hour_two_tokencodes_sign_in(node: OneNode) -> None:
    """(E1) Whatever the policy asks for after failures, and after each success."""
    await node.add_user()
    await set_policy(node, next_tokencode_from_failures=0)
    await restored(node)
    pass_steps(node, 2)
    for _ in range(2):
        assert await node.accepts_two()
        pass_steps(node, 2)
    pass_steps(node, OVER - 9)
    assert await node.accepts_two()
    pass_steps(node, 1)
    assert await node.accepts(PIN + node.tokencode())


async def test_an_old_pair_is_not_learned(node: OneNode) -> None:
    """(E1, K1) A person who heard it being read to the help desk could read it again."""
    first, second, _ = await lost(node)
    for steps in (0, AHEAD, AHEAD + 30):
        pass_steps(node, steps)
        await node.login()
        step = resynchronize(node, first, second)
        assert await refused(step) is Reason.TOKENCODE_MAYBE_SPENT


async def test_an_old_pair_is_not_learned_after_failures(node: OneNode) -> None:
    """(E1, K1) The wide window of next-tokencode mode is that of resynchronization."""
    _, second, old = await lost(node, learned=1)
    for _ in range(3):
        assert not await node.accepts("1" * 10)
        node.clock.pass_s(10)
    for passcode in (PIN + second, PIN + old):
        answer = await node.authenticate(passcode)
        assert (answer.decision, answer.challenge) == (Decision.REFUSED, b"")
        # It was right once: no guess.
        assert node.reasons()[-1] == Reason.TOKENCODE_MAYBE_SPENT
    user = await node.user("alice")
    assert user.token_failures == 3


async def test_a_clock_that_is_ahead_is_learned_again(node: OneNode) -> None:
    """(K1) By what it shows later than any lost state can have accepted."""
    await lost(node)
    pass_steps(node, OVER - AHEAD)
    await node.login()
    assert await refused(resynchronize(node)) is Reason.TOKENCODE_MAYBE_SPENT
    pass_steps(node, 1)
    await resynchronize(node)
    pass_steps(node, 1)
    assert await node.accepts(PIN + shown(node))


async def test_old_tokencodes_choose_no_pin(node: OneNode) -> None:
    """(E1, K2) Two of them would be enough, without any PIN."""
    await node.add_user()
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    await restored(node)
    pass_steps(node, 2)
    answer = await node.authenticate(node.tokencode())
    assert answer.decision is Decision.REFUSED
    pass_steps(node, OVER)
    answer = await node.authenticate(node.tokencode())
    assert answer.decision is Decision.NEW_PIN_REQUIRED


async def test_the_doubt_moves_with_the_user(move: Move) -> None:
    """(E1) East was restored, and west learns of it with the user."""
    _, _, old = await lost(move.east, exists=True)
    await move.through_import()
    await move.activate()
    pass_steps(move.west, AHEAD + 2)
    assert not await move.west.accepts(PIN + old)
    pass_steps(move.west, 1)
    assert await move.west.accepts_two()


async def test_the_doubt_outlives_the_token(node: OneNode) -> None:
    """(E1, K1) Deleted and enrolled again, with the same seed."""
    _, _, old = await lost(node)
    await node.tokens.unassign(node.admin("TokenService/UnassignToken"), serial=SERIAL)
    await node.tokens.delete(node.admin("TokenService/DeleteToken"), serial=SERIAL)
    await node.enroll(pin_rule=PinRule.NONE)
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=SERIAL, username="alice"
    )
    pass_steps(node, AHEAD)
    assert not await node.accepts(old)
    assert node.reasons()[-1] == Reason.TOKENCODE_SPENT


async def test_a_help_desk_reads_why_two_are_asked_for(node: OneNode) -> None:
    """(A6) And until when."""
    await node.add_user()
    await restored(node)
    context = node.admin("UserService/ExplainUser")
    (blocker,) = (await node.explanations.explain(context, "alice")).value.blockers
    assert blocker.reason == Reason.TOKENCODE_MAYBE_SPENT
    assert blocker.words.startswith(
        f"Until 2023-11-14 23:14:30 UTC, each sign-in with token {SERIAL} "
    )
    assert not blocker.stops_codes
    pass_steps(node, OVER)
    await node.login()
    context = node.admin("UserService/ExplainUser")
    assert not (await node.explanations.explain(context, "alice")).value.blockers
