# SPDX-License-Identifier: Apache-2.0
"""The primary has users told of sets that end by time (N6)."""

import pytest

from sparecode_node.domain.ids import NameKey, RequestId
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.emergency import ended_sets
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.notices import FailNotices
from tests.services.mail_server import MailServer
from tests.services.one_node import SERIAL, OneNode
from tests.services.test_mail import add_alice, create, ending, server
from tests.services.test_notices import lane, waiting
from tests.services.test_user_moves import Move, move

__all__ = ["move", "server"]

pytestmark = pytest.mark.asyncio

HOUR_S = 3600
"""The lifetime of the sets that `issue` issues."""


def ended(node: OneNode) -> list[tuple[str, str]]:
    """Return the tokens whose sets have ended, with what the audit log says of it."""
    rows = node.primary_db.execute(
        "SELECT target, detail FROM audit_events WHERE action = 'SET_ENDED'"
    )
    return [(target, detail) for target, detail in rows]


async def fail_all(node: OneNode) -> None:
    """Make all notices of the channel dead letters."""
    (version,) = node.primary_db.execute("SELECT version FROM channels").fetchone()
    rows = node.primary_db.execute("SELECT number FROM notices")
    failed = FailNotices(
        channel=NameKey("siem"),
        numbers=tuple(number for (number,) in rows),
        cause="refused",
        disable=False,
        version=version,
    )
    call = UnstampedCall.of_node(node.replicator.node_id, failed, RequestId("fail"))
    await node.replicator.propose(Proposal(call=call), timeout_s=60)
    assert all(dead for _, dead, _ in waiting(node))


async def test_a_user_hears_that_codes_have_expired(
    node: OneNode, server: MailServer
) -> None:
    """Once, and in their language."""
    await add_alice(node, language="de")
    await create(node, server.url)
    issued = await node.issue()
    node.replicator.leads = True
    node.clock.pass_s(HOUR_S - 1)
    assert not await node.ended_sets.step()
    node.clock.pass_s(1)
    assert await node.ended_sets.step()
    assert not await node.ended_sets.step()
    assert ended(node) == [(SERIAL, f"set {issued.saved.set_id}: 3 codes unused")]
    await (await lane(node)).step()
    mail = server.mails[-1]
    assert mail["Subject"] == "Ihre Notfallcodes sind abgelaufen"
    body = mail.get_body(("plain",))
    assert body is not None
    assert SERIAL in body.get_content()
    assert len(server.mails) == 2  # With the one of the issue.
    assert waiting(node) == []


async def test_only_the_primary_has_ends_told(node: OneNode) -> None:
    await node.add_user()
    await node.issue()
    node.clock.pass_s(HOUR_S)
    forwarded = node.replicator.forwarded
    assert not await node.ended_sets.step()
    assert node.replicator.forwarded == forwarded
    assert ended(node) == []


async def test_ends_wait_for_room_in_the_outbox(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full channel would drop notices. One that never delivers holds them up an hour."""
    monkeypatch.setattr(ended_sets, "ROOM", 1)
    await add_alice(node)
    await create(node, "smtps://mail.example:465", allow_private=False)
    async with ending(node):
        for _ in range(2):
            await node.issue()
        node.replicator.leads = True
        node.clock.pass_s(HOUR_S)
        assert not await node.ended_sets.step()
        assert ended(node) == []
        node.clock.pass_s(HOUR_S - 1)
        assert not await node.ended_sets.step()
        node.clock.pass_s(1)
        assert await node.ended_sets.step()
        assert len(ended(node)) == 1


async def test_dead_letters_delay_no_end(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take no room: a full channel drops them first."""
    monkeypatch.setattr(ended_sets, "ROOM", 1)
    await add_alice(node)
    await create(node, "smtps://mail.example:465", allow_private=False)
    async with ending(node):
        for _ in range(2):
            await node.issue()
        await fail_all(node)
        node.replicator.leads = True
        node.clock.pass_s(HOUR_S)
        assert await node.ended_sets.step()
        assert len(ended(node)) == 1


async def test_an_end_during_a_move_is_told_by_the_target(move: Move) -> None:
    """Once: the source is frozen then, and no longer has the users when it could."""
    await move.east.issue()
    await move.prepare()
    await move.freeze()
    for node in (move.east, move.west):
        node.replicator.leads = True
        node.clock.pass_s(HOUR_S)
        await node.login()
    assert await move.east.ended_sets.step()
    await move.export()
    await move.load()
    await move.end((await move.activate()).receipt)
    for node in (move.east, move.west):
        node.clock.pass_s(HOUR_S)
        while await node.ended_sets.step():
            pass
    assert ended(move.east) == []
    assert [serial for serial, _ in ended(move.west)] == [SERIAL]
