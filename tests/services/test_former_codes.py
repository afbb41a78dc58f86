# SPDX-License-Identifier: Apache-2.0
"""Codes of any former set of a user are recognized, by tags in bounded room (A5)."""

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.codec import decode_entry
from sparecode_node.services.keys import resealing
from sparecode_node.services.secrets.sealing import CODE_TAG_BYTES
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.handlers.emergency_access import ENDED_SETS_KEPT
from sparecode_node.statemachine.tables import former
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_rotation import begin, finish
from tests.services.two_replicas import NODE, TwoReplicas

pytestmark = pytest.mark.asyncio

SETS = ENDED_SETS_KEPT + 3
"""Sets of one token, of which the two oldest are no longer stored in full."""


@pytest.fixture(autouse=True)
def leading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node lead."""
    monkeypatch.setattr(TwoReplicas, "primary", NODE)


async def issue_sets(node: OneNode, number: int) -> list[str]:
    """Return the first code of each set; each set voids the one before it."""
    return [(await node.issue(count=2)).codes[0].code for _ in range(number)]


async def condense(node: OneNode) -> None:
    """Let the primary make tags of all waiting sets."""
    while await node.resealer.step():
        pass
    node.clock.pass_s(resealing.TAGS_S)
    while await node.resealer.step():
        pass


def failures(node: OneNode) -> int:
    row = node.primary_db.execute("SELECT sum(failures) FROM lockouts").fetchone()
    return row[0] or 0


def tags(node: OneNode) -> list[bytes]:
    rows = node.primary_db.execute("SELECT tags FROM former_codes ORDER BY number")
    return [row[0] for row in rows]


def waiting(node: OneNode) -> int:
    (count,) = node.primary_db.execute("SELECT count(*) FROM deleted_codes").fetchone()
    return int(count)


async def test_a_code_of_any_older_set_is_no_guess(node: OneNode) -> None:
    """(A5) With the right PIN it is refused and not charged, before and after."""
    await node.add_user()
    codes = await issue_sets(node, SETS)
    assert waiting(node) == 4
    for step in range(2):
        for code in codes[:-1]:
            assert not await node.accepts(PIN + code)
        assert set(node.reasons()) == {Reason.CODE_NOT_LIVE}
        assert failures(node) == 0
        await condense(node)
        assert (len(tags(node)), waiting(node)) == (2, 0), step
    assert [len(each) for each in tags(node)] == [2 * CODE_TAG_BYTES] * 2
    assert digest(node.primary_db) == digest(node.local_db)


async def test_a_former_code_tells_no_pin(node: OneNode) -> None:
    """(A5) A wrong PIN before it is neither charged nor told, not even in the log."""
    await node.add_user()
    codes = await issue_sets(node, SETS)
    await condense(node)
    for pin in (PIN, "9999"):
        assert not await node.accepts(pin + codes[0])
    assert node.reasons() == [Reason.CODE_NOT_LIVE] * 2
    assert failures(node) == 0


async def test_a_code_of_another_user_is_a_guess(node: OneNode) -> None:
    """(A5) Tags are those of one user: the same code has another tag for another."""
    await node.add_user()
    await node.add_user("bob", serial="2")
    codes = await issue_sets(node, SETS)
    await condense(node)
    assert not await node.accepts(PIN + codes[0], username="bob")
    assert node.reasons() == [Reason.WRONG_PASSCODE]
    assert failures(node) == 1


async def test_the_sets_of_a_minute_share_one_event(node: OneNode) -> None:
    """(U1) Each command of the primary is an event, and the audit log only grows."""
    await node.add_user()
    await condense(node)
    await issue_sets(node, SETS)
    assert not await node.resealer.step()
    assert tags(node) == []
    node.clock.pass_s(resealing.TAGS_S)
    assert await node.resealer.step()
    assert len(tags(node)) == 2
    assert not await node.resealer.step()


async def test_a_code_is_recognized_in_every_way_to_lose_its_token(
    node: OneNode,
) -> None:
    """(A5, R3) Of a deleted token, however many sets have been kept since."""
    await node.add_user()
    first = (await issue_sets(node, 1))[0]
    for _ in range(former.FORMER_SETS_MAX + 1):
        await node.tokens.delete(node.admin("TokenService/DeleteToken"), serial=SERIAL)
        await node.enroll()
        await node.tokens.assign(
            node.admin("TokenService/AssignToken"), serial=SERIAL, username="alice"
        )
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin=PIN
        )
        await issue_sets(node, 1)
    assert not await node.accepts(PIN + first)
    await condense(node)
    assert not await node.accepts(PIN + first)
    assert set(node.reasons()) == {Reason.CODE_NOT_LIVE}
    assert failures(node) == 0


async def test_old_sets_of_unassigned_tokens_become_tags(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A5) The newest stay as they are; the code of any is no guess."""
    monkeypatch.setattr(former, "FORMER_SETS_MAX", 1)
    await node.add_user()
    codes = await issue_sets(node, 3)
    await node.tokens.unassign(node.admin("TokenService/UnassignToken"), serial=SERIAL)
    await condense(node)
    assert len(tags(node)) == 2
    for code in codes:
        assert not await node.accepts(PIN + code)
    assert set(node.reasons()) == {Reason.TOKEN_NOT_ASSIGNED}
    assert failures(node) == 0


async def test_tags_move_to_another_key(node: OneNode) -> None:
    """(A5, T3, P5) Nothing stays under a retired key, and the codes stay known."""
    await node.add_user()
    codes = await issue_sets(node, SETS)
    await condense(node)
    before = tags(node)
    await begin(node)
    assert not await node.accepts(PIN + codes[0])
    assert tags(node) == before
    await finish(node)
    (keys,) = node.primary_db.execute(
        "SELECT count(*) FROM ring_keys WHERE retired"
    ).fetchone()
    assert keys == 1
    assert not {*before} & {*tags(node)}
    assert [len(each) for each in tags(node)] == [2 * CODE_TAG_BYTES] * 2
    assert not await node.accepts(PIN + codes[0])
    assert set(node.reasons()) == {Reason.CODE_NOT_LIVE}
    assert failures(node) == 0


async def test_tags_of_another_user_do_not_open(node: OneNode) -> None:
    """(T3) A row that is moved to another user is dropped when it is sealed again."""
    await node.add_user()
    await node.add_user("bob", serial="2")
    await issue_sets(node, SETS)
    await condense(node)
    for db in (node.primary_db, node.local_db):
        db.execute(
            "UPDATE former_codes SET user_id = "
            "(SELECT user_id FROM users WHERE username = 'bob') WHERE number = 1"
        )
        db.commit()
    await begin(node)
    await finish(node)
    assert len(tags(node)) == 1


async def test_the_tags_of_a_user_have_a_bound(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A5) The oldest go first, so the state and each attempt stay small."""
    monkeypatch.setattr(former, "TAGGED_SETS_MAX", 2)
    await node.add_user()
    codes = await issue_sets(node, SETS + 1)
    await condense(node)
    assert len(tags(node)) == 2
    assert not await node.accepts(PIN + codes[1])
    assert failures(node) == 0
    assert not await node.accepts(PIN + codes[0])
    assert failures(node) == 1


async def test_tags_are_forgotten_in_steps(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A5) After the policy's time, and no call deletes them all."""
    monkeypatch.setattr(former, "FORGOTTEN_PER_CALL_MAX", 1)
    await node.add_user()
    await issue_sets(node, SETS)
    await condense(node)
    node.clock.pass_s(365 * 24 * 3600)
    counts = []
    for _ in range(3):
        await node.accepts(PIN + node.tokencode())
        counts.append(len(tags(node)))
        node.clock.pass_s(30)
    assert counts == [1, 0, 0]


async def test_tags_go_with_their_user(node: OneNode) -> None:
    """(A5) Without the user, no guess could be charged."""
    await node.add_user()
    await issue_sets(node, SETS)
    await condense(node)
    await issue_sets(node, 1)
    await node.tokens.delete(node.admin("TokenService/DeleteToken"), serial=SERIAL)
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    assert (tags(node), waiting(node)) == ([], 0)


async def test_a_tag_that_does_not_open_is_dropped(node: OneNode) -> None:
    """(T3) Of a row that another program wrote: it keeps no key in use."""
    await node.add_user()
    await issue_sets(node, SETS)
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE deleted_codes SET verifier = x'07'")
        db.commit()
    await condense(node)
    assert (tags(node), waiting(node)) == ([], 0)


async def test_below_level_2_no_tag_is_proposed(node: OneNode) -> None:
    """Release 0.1.0 does not read them; `ended_sets.txt` shows what it decides."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    for level, expected in ((1, False), (2, True)):
        for db in (node.primary_db, node.local_db):
            db.execute(
                "UPDATE meta SET value = ? WHERE name = 'feature_level'", (level,)
            )
            db.commit()
        await node.accepts("9999" + code)
        (call,) = decode_entry(node.replicator.entries[-1])
        assert isinstance(call.command, Authenticate)
        assert bool(call.command.readings[0].code_tags) is expected
