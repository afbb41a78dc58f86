# SPDX-License-Identifier: Apache-2.0
"""
What an administrator knows of a token counts in the cluster that its user moves to (I10).

The attack: `root` chooses Alice's PIN in one cluster. In the cluster that she moves to,
the same person is called `dora`, and would issue codes for her without an approver.
"""

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.administrators import Role
from sparecode_node.services.errors import ApprovalNeededError
from tests.services.one_node import SERIAL, OneNode, one_node
from tests.services.test_administrators import settled
from tests.services.test_user_moves import BOB, Move

pytestmark = pytest.mark.asyncio


class Moved(Move):
    """Two clusters. In the west two administrators sign in after the users have come."""

    root: str = ""
    dora: str = ""

    async def through(self) -> None:
        await self.through_import()
        await self.activate()
        self.dora = await settled(self.west, Role.SUPER_ADMIN)
        self.root = self.west.bearer


@pytest_asyncio.fixture
async def moved(tmp_path: Path) -> AsyncIterator[Moved]:
    """In the east, `root` has created Alice and her token, and has set its PIN."""
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
    async with one_node(tmp_path / "east") as east, one_node(tmp_path / "west") as west:
        await east.register_agent()
        await west.register_agent()
        await east.add_user("alice")
        yield Moved(east, west)


async def expect_waits(step: Awaitable[object]) -> int:
    """Expect that a step needs an approval; return its number."""
    with pytest.raises(ApprovalNeededError) as waiting:
        await step
    number: int = waiting.value.approval_id
    return number


async def approve(node: OneNode, number: int) -> None:
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"), approval_id=number
    )


def extended(node: OneNode) -> Awaitable[object]:
    """Request a change of Alice's token that an approval confirms."""
    step: Awaitable[object] = node.tokens.update(
        node.admin("TokenService/UpdateToken"),
        serial=SERIAL,
        expires_at_ms=None,
        never_expires=True,
    )
    return step


def pin_set(node: OneNode, pin: str) -> Awaitable[object]:
    step: Awaitable[object] = node.tokens.set_pin(
        node.admin("TokenService/SetPin"), serial=SERIAL, pin=pin
    )
    return step


def known(node: OneNode, serial: str = SERIAL) -> list[str]:
    rows = node.primary_db.execute(
        "SELECT secret FROM secrets_known_elsewhere WHERE serial = ? ORDER BY secret",
        (serial,),
    )
    return [secret for (secret,) in rows]


async def test_another_name_in_the_target_issues_nothing_alone(moved: Moved) -> None:
    """(I10) Nor does an equal name, and one approval is for one set."""
    await moved.through()
    west = moved.west
    for session, approver in ((moved.dora, moved.root), (moved.root, moved.dora)):
        west.bearer = session
        number = await expect_waits(west.issue())
        west.bearer = approver
        await approve(west, number)
        west.bearer = session
        await west.issue()
        await expect_waits(west.issue())


async def test_nothing_is_made_usable_alone_after_a_move(moved: Moved) -> None:
    """(I10) With the seed known, a PIN or an unlock is all that is missing."""
    await moved.through()
    west = moved.west
    for step in (
        extended(west),
        pin_set(west, "8264"),
        west.tokens.clear_pin(west.admin("TokenService/ClearPin"), serial=SERIAL),
        west.users.unlock(west.admin("UserService/UnlockUser"), username="alice"),
    ):
        await expect_waits(step)


async def test_an_approved_change_confirms_its_author_alone(moved: Moved) -> None:
    """(I10) The other one may be who knew the PIN."""
    await moved.through()
    west = moved.west
    west.bearer = moved.dora
    number = await expect_waits(extended(west))
    west.bearer = moved.root
    await approve(west, number)
    west.bearer = moved.dora
    await west.issue()
    west.bearer = moved.root
    await expect_waits(west.issue())


async def test_the_approver_reads_who_may_know_the_secret(moved: Moved) -> None:
    """(I10) The name is of another cluster, and would name another person here."""
    await moved.through()
    with pytest.raises(ApprovalNeededError):
        await moved.west.issue()
    [(words,)] = moved.west.primary_db.execute("SELECT description FROM approvals")
    assert words == (
        f"codes for token {SERIAL}; an administrator of another cluster has seen its "
        "seed and has set or cleared its PIN and has assigned it"
    )


async def test_a_pin_that_the_user_chooses_ends_it_but_for_the_seed(
    moved: Moved,
) -> None:
    """(I10) As in the cluster where the PIN was known."""
    east, west = moved.east, moved.west
    await east.tokens.clear_pin(east.admin("TokenService/ClearPin"), serial=SERIAL)
    await moved.through()
    assert known(west) == ["assignment", "pin", "seed"]
    answer = await west.authenticate(west.tokencode())
    west.clock.pass_s(30)
    await west.answer_challenge(answer.challenge, west.tokencode(), new_pin="8052")
    assert known(west) == ["seed"]


async def test_codes_of_the_source_count_as_those_of_anyone(moved: Moved) -> None:
    """(I10) With the codes, the PIN is all that is missing. Also after an approval."""
    await moved.east.issue()
    await moved.through()
    west = moved.west
    west.bearer = moved.dora
    number = await expect_waits(extended(west))
    west.bearer = moved.root
    await approve(west, number)
    west.bearer = moved.dora
    await expect_waits(pin_set(west, "8264"))


async def approved_by_dora(moved: Moved, step: Awaitable[object]) -> None:
    number = await expect_waits(step)
    moved.west.bearer = moved.dora
    await approve(moved.west, number)
    moved.west.bearer = moved.root


async def test_a_known_pin_stays_known_in_a_replacement(moved: Moved) -> None:
    """(I10) It goes to the new token, whose seed no administrator has seen."""
    await moved.through()
    west = moved.west
    await west.enroll(BOB)
    await approved_by_dora(
        moved,
        west.tokens.replace(
            west.admin("TokenService/ReplaceToken"),
            serial=SERIAL,
            replacement_serial=BOB,
            keep_pin=True,
        ),
    )
    await west.tokens.replace(
        west.admin("TokenService/ReplaceToken"),
        serial=SERIAL,
        replacement_serial=BOB,
        keep_pin=True,
    )
    assert known(west, BOB) == ["pin"]
    west.bearer = moved.dora
    await expect_waits(west.issue(BOB))


async def test_a_user_who_arrives_is_not_new(moved: Moved) -> None:
    """(I10) The creator of an equal name is no creator here, and the name may be old."""
    await moved.east.create_user("bob")
    await moved.through()
    west = moved.west
    await west.enroll(BOB)
    for session in (moved.root, moved.dora):
        west.bearer = session
        await expect_waits(
            west.tokens.assign(
                west.admin("TokenService/AssignToken"), serial=BOB, username="bob"
            )
        )


async def test_what_was_known_elsewhere_goes_on_with_the_user(moved: Moved) -> None:
    """(I10) Back in the source, too: its administrators may have changed their names."""
    await moved.through_import()
    await moved.end((await moved.activate()).receipt)
    east, west = moved.east, moved.west
    east.clock.pass_s(25 * 3600)
    await east.login()
    await moved.delete(east)
    west.clock.now = east.clock.now
    await west.login()
    back = Moved(west, east)
    await back.through()
    assert known(east) == ["assignment", "pin", "seed"]
    east.bearer = back.dora
    await expect_waits(east.issue())
