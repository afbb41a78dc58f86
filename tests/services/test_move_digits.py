# SPDX-License-Identifier: Apache-2.0
"""The digits that approvers of a move compare, in both clusters (docs/clusters.md)."""

import dataclasses
from pathlib import Path

import pytest

from sparecode_client.values import moves as of_client
from sparecode_node.domain import moves as of_node
from sparecode_node.services.cluster import move_fields
from sparecode_node.services.errors import InvalidFieldError
from tests.services.one_node import one_node
from tests.services.test_user_moves import Move

TICKET = of_node.MoveTicket(
    move_id="m",
    first_slot=1,
    last_slot=2,
    source="c1",
    target="c2",
    source_key_id=3,
    public_key=b"p" * 32,
    activated_lock=b"a" * 32,
    canceled_lock=b"c" * 32,
)


@pytest.mark.parametrize(
    "name", [each.name for each in dataclasses.fields(of_node.MoveTicket)]
)
def test_each_field_of_a_ticket_is_compared(name: str) -> None:
    before = getattr(TICKET, name)
    other = before + 1 if isinstance(before, int) else before[:-1] + before[:1] + before
    changed = dataclasses.replace(TICKET, **{name: other})
    assert of_node.ticket_words(changed) != of_node.ticket_words(TICKET)


def test_a_ticket_with_which_no_exchange_works_is_refused() -> None:
    """Else its users are frozen, and no export can be written."""
    ticket = dataclasses.replace(TICKET, public_key=bytes(32))
    with pytest.raises(InvalidFieldError, match="public_key"):
        move_fields.check_ticket(ticket)
    move_fields.check_ticket(TICKET)


def test_client_and_node_show_the_same_digits() -> None:
    ticket = of_client.MoveTicket(**dataclasses.asdict(TICKET))
    assert of_client.ticket_words(ticket) == of_node.ticket_words(TICKET)
    assert of_client.key_words(b"k") == of_node.key_words(b"k")


@pytest.mark.asyncio
async def test_both_clusters_name_the_ticket_and_the_target_the_key(
    tmp_path: Path,
) -> None:
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
    async with one_node(tmp_path / "east") as east, one_node(tmp_path / "west") as west:
        await east.add_user("alice")
        move = Move(east, west)
        await move.prepare()
        await move.freeze()
        assert move.ticket is not None
        words = of_node.ticket_words(move.ticket)
        key = await east.user_moves.key(east.admin("MoveService/GetMoveKey"))
        for node, action, told in (
            (west, "PrepareMove", (words, of_node.key_words(key.public_key))),
            (east, "FreezeUsers", (words,)),
        ):
            [(detail,)] = node.primary_db.execute(
                "SELECT detail FROM audit_events WHERE action = ?", (action,)
            )
            for each in told:
                assert each in detail
