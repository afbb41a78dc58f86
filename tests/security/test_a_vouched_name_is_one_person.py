# SPDX-License-Identifier: Apache-2.0
"""
Two clusters with the same administrators: each knows what they knew before (I10).

Two administrators of the target vouch for that when they prepare a move. Then what an
administrator of the source knows of a token counts for the one of the same name, and
for no other. A name for which they cannot have vouched counts for everyone.
"""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.moves import MoveTicket
from sparecode_node.domain.outcomes import Reason
from tests.security.test_a_move_forgets_no_known_secret import (
    approve,
    expect_waits,
    extended,
    known,
    pin_set,
)
from tests.services.one_node import SERIAL, OneNode, one_node
from tests.services.test_administrators import create, settled
from tests.services.test_user_moves import BOB, Move, refused

pytestmark = pytest.mark.asyncio

EVE = "000131415928"
VOUCHED = (
    "vouched for: an administrator of that cluster is the person who has the same name "
    "here, and has no other name here (2 administrators here)"
)


class Vouched(Move):
    """A move for which `root` and `dora` of the west vouch; `root` is in the east, too."""

    root: str = ""
    dora: str = ""

    async def people(self) -> None:
        self.dora = await settled(self.west, Role.SUPER_ADMIN)
        self.root = self.west.bearer

    async def request(self) -> int:
        return await expect_waits(self.prepare(same_administrators=True))

    async def approved(self, number: int) -> None:
        self.west.bearer = self.dora
        await approve(self.west, number)
        self.west.bearer = self.root
        self.ticket = await self.newest_ticket()

    async def newest_ticket(self) -> MoveTicket:
        context = self.west.admin("MoveService/ListMoves")
        newest: MoveTicket = (await self.west.user_moves.list(context))[0].ticket
        return newest

    async def prepared(self) -> None:
        await self.people()
        await self.approved(await self.request())

    async def arrive(self) -> None:
        await self.freeze()
        await self.export()
        await self.load()
        self.west.bearer = self.dora
        number = await expect_waits(self.activate())
        self.west.bearer = self.root
        await approve(self.west, number)

    async def through(self) -> None:
        await self.prepared()
        await self.arrive()


@pytest_asyncio.fixture
async def move(tmp_path: Path) -> AsyncIterator[Vouched]:
    """In the east, `root` has created Alice and her token, and has set its PIN."""
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
    async with one_node(tmp_path / "east") as east, one_node(tmp_path / "west") as west:
        await east.register_agent()
        await west.register_agent()
        await east.add_user("alice")
        yield Vouched(east, west)


async def pin_cleared_by_dora(node: OneNode) -> None:
    """Let another administrator know the PIN, who may be another Dora than in the west."""
    session = await settled(node)
    mine, node.bearer = node.bearer, session
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    node.bearer = mine


def own(node: OneNode) -> list[tuple[str, str]]:
    rows = node.primary_db.execute(
        "SELECT administrator, secret FROM known_secrets WHERE serial = ? ORDER BY 1, 2",
        (SERIAL,),
    )
    return [(administrator, secret) for administrator, secret in rows]


def vouched(node: OneNode) -> list[str]:
    rows = node.primary_db.execute(
        "SELECT administrator FROM move_administrators ORDER BY administrator"
    )
    return [name for (name,) in rows]


async def test_a_person_of_the_same_name_needs_the_approval_alone(
    move: Vouched,
) -> None:
    """(I10) A help desk that did not enroll the tokens works on as before."""
    await move.through()
    west = move.west
    assert (known(west), vouched(west)) == ([], [])
    west.bearer = move.root
    for step in (west.issue(), extended(west), pin_set(west, "8264")):
        await expect_waits(step)
    west.bearer = move.dora
    await extended(west)
    await west.issue()


async def test_without_the_declaration_an_equal_name_is_not_enough(
    move: Vouched,
) -> None:
    """(I10) Others may have the name there."""
    await move.people()
    number = await expect_waits(move.prepare())
    await move.approved(number)
    await move.arrive()
    assert own(move.west) == []
    assert known(move.west) == ["assignment", "pin", "seed"]
    move.west.bearer = move.dora
    await expect_waits(move.west.issue())


async def test_both_read_what_they_vouch_for(move: Vouched) -> None:
    """(P3) So does the approver in the source, where a name may be another person's."""
    await move.people()
    number = await move.request()
    [(words,)] = move.west.primary_db.execute("SELECT description FROM approvals")
    assert VOUCHED in words
    await move.approved(number)
    await move.freeze()
    ticket = await move.newest_ticket()
    assert ticket.same_administrators
    for node, action, told in (
        (move.west, "PrepareMove", VOUCHED),
        (move.east, "FreezeUsers", "the person who has the same name there"),
    ):
        rows = node.primary_db.execute(
            "SELECT detail FROM audit_events WHERE action = ? AND outcome = 'applied'",
            (action,),
        ).fetchall()
        assert told in rows[0][0]


async def test_a_name_that_the_target_lacks_counts_for_everyone(
    move: Vouched,
) -> None:
    """(I10) Also if it is given there later, before the users arrive or after."""
    east, west = move.east, move.west
    await pin_cleared_by_dora(east)
    await move.prepare(same_administrators=True)  # `root` is alone in the west.
    move.dora = await settled(west, Role.SUPER_ADMIN)
    move.root = west.bearer
    await move.arrive()
    assert known(west) == ["pin"]
    assert {name for name, _ in own(west)} == {"root"}
    west.bearer = move.dora
    await expect_waits(extended(west))


async def test_a_name_that_goes_and_comes_back_is_another_person(
    move: Vouched,
) -> None:
    """(I10) While the users are on the way, its vouched owner is removed."""
    east, west = move.east, move.west
    await pin_cleared_by_dora(east)
    await create(west)
    await move.prepare(same_administrators=True)
    assert vouched(west) == ["dora", "root"]
    await west.administrators.remove(
        west.admin("AdministratorService/RemoveAdministrator"), name="dora"
    )
    await create(west)
    assert vouched(west) == ["root"]
    await move.freeze()
    await move.export()
    await move.load()
    assert known(west) == ["pin"]


async def test_an_administrator_who_comes_meanwhile_voids_the_request(
    move: Vouched,
) -> None:
    """(P3) The approver would vouch for a person whom the request did not count."""
    await move.people()
    number = await move.request()
    creation = await expect_waits(create(move.west, "erin"))
    move.west.bearer = move.dora
    await approve(move.west, creation)
    assert await refused(approve(move.west, number)) is Reason.APPROVAL_STALE


async def test_codes_of_the_source_count_for_their_issuer(move: Vouched) -> None:
    """(I10) With the codes, the PIN is all that is missing. Here the seed is unknown."""
    east, west = move.east, move.west
    session = await settled(east)
    mine, east.bearer = east.bearer, session
    await east.issue()
    east.bearer = mine
    await move.through()
    west.bearer = move.dora
    await expect_waits(pin_set(west, "8264"))
    await expect_waits(
        west.users.unlock(west.admin("UserService/UnlockUser"), username="alice")
    )
    issued = west.primary_db.execute("SELECT 1 FROM sets_issued_elsewhere").fetchall()
    assert issued == []


async def test_what_a_third_cluster_knew_keeps_counting_for_everyone(
    move: Vouched,
) -> None:
    """(I10) There was no declaration for its administrators; nor for its codes."""
    east, west = move.east, move.west
    await east.issue()
    await move.through_import()
    await move.end((await move.activate()).receipt)
    east.clock.pass_s(25 * 3600)
    await east.login()
    await move.delete(east)
    west.clock.now = east.clock.now
    await west.login()
    back = Vouched(west, east)
    await back.through()
    assert known(east) == ["assignment", "pin", "seed"]
    [(count,)] = east.primary_db.execute("SELECT count(*) FROM sets_issued_elsewhere")
    assert count == 1


async def assigned(node: OneNode, serial: str) -> None:
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=serial, username="bob"
    )


async def test_a_new_user_stays_new_for_their_creator(move: Vouched) -> None:
    """(I10) Others who have seen the seed need an approval, as in one cluster."""
    await move.east.create_user("bob")
    await move.through()
    west = move.west
    west.bearer = move.dora
    await west.enroll(EVE)
    await expect_waits(assigned(west, EVE))
    west.bearer = move.root
    await west.enroll(BOB)
    await assigned(west, BOB)


async def test_a_user_of_a_former_name_arrives_as_not_new(move: Vouched) -> None:
    """(I10) Agents may still admit the former user, and only the source knows."""
    east, west = move.east, move.west
    await east.create_user("bob")
    await east.users.delete(east.admin("UserService/DeleteUser"), username="bob")
    await east.create_user("bob")
    await move.through()
    await west.enroll(BOB)
    await expect_waits(assigned(west, BOB))


async def test_a_ticket_that_hides_the_declaration_moves_no_one(
    move: Vouched,
) -> None:
    """(I10) Else no administrator of the source would read it."""
    await move.prepared()
    assert move.ticket is not None
    move.ticket = dataclasses.replace(move.ticket, same_administrators=False)
    await move.freeze()
    await move.export()
    assert await refused(move.load()) is Reason.MOVE_EXPORT
