# SPDX-License-Identifier: Apache-2.0
"""What the state remembers of unassigned and deleted tokens (A5, K1)."""

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from tests.generators import oathtool_hotp
from tests.services.one_node import PIN, SEED, SERIAL, OneNode

pytestmark = pytest.mark.asyncio


async def unassign(node: OneNode) -> None:
    await node.tokens.unassign(node.admin("TokenService/UnassignToken"), serial=SERIAL)


async def delete(node: OneNode) -> None:
    await node.tokens.delete(node.admin("TokenService/DeleteToken"), serial=SERIAL)


async def replace(node: OneNode, *, keep_pin: bool) -> None:
    await node.enroll("2", seed=b"another seed of 20 b")
    await node.tokens.replace(
        node.admin("TokenService/ReplaceToken"),
        serial=SERIAL,
        replacement_serial="2",
        keep_pin=keep_pin,
    )


async def give(node: OneNode, username: str, *, pin: str = PIN) -> None:
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=SERIAL, username=username
    )
    if pin:
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin=pin
        )


def failures(node: OneNode) -> int:
    row = node.primary_db.execute("SELECT sum(failures) FROM lockouts").fetchone()
    return row[0] or 0


@pytest.mark.parametrize(
    "way",
    [
        "unassigned",
        "replaced",
        "replaced with its PIN",
        "deleted",
        "unassigned and deleted",
    ],
)
async def test_code_of_an_unassigned_token_is_no_guess(node: OneNode, way: str) -> None:
    """(A4, A5, R3) It is refused with its reason and locks no one out."""
    await node.add_user()
    codes = [code.code for code in (await node.issue()).codes]
    if "unassigned" in way:
        await unassign(node)
    if "replaced" in way:
        await replace(node, keep_pin="with" in way)
    if "deleted" in way:
        await delete(node)
    for code in codes * 3:
        assert not await node.accepts(PIN + code)
    assert set(node.reasons()) == {Reason.TOKEN_NOT_ASSIGNED}
    assert failures(node) == 0
    assert not await node.accepts(PIN + "ABCDEFGH")
    assert failures(node) == 1


async def test_code_of_a_token_that_was_enrolled_again_tells_no_pin(
    node: OneNode,
) -> None:
    """(A5) The serial is that of the user's token, and the code never works again."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    await delete(node)
    await node.enroll()
    await give(node, "alice")
    for pin in (PIN, "9999"):
        assert not await node.accepts(pin + code)
    assert failures(node) == 0
    assert node.reasons() == [Reason.CODE_NOT_LIVE] * 2


async def test_codes_of_deleted_tokens_go_with_their_user(node: OneNode) -> None:
    """(A5) Without the user, no guess could be charged."""
    await node.add_user()
    await node.issue()
    await delete(node)
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    for table in ("deleted_sets", "deleted_codes"):
        rows = node.primary_db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        assert rows == []


async def test_code_of_an_earlier_owner_is_a_guess(node: OneNode) -> None:
    """(A5) For the token's next user it is a guess like any other."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    await unassign(node)
    await node.users.create(
        node.admin("UserService/CreateUser"), username="bob", display_name="", email=""
    )
    await give(node, "bob")
    assert not await node.accepts(PIN + code, username="bob")
    assert failures(node) == 1
    assert not await node.accepts(PIN + code)
    assert node.reasons() == [Reason.WRONG_PASSCODE, Reason.TOKEN_NOT_ASSIGNED]
    assert failures(node) == 1


async def test_code_of_a_token_that_came_back_tells_no_pin(node: OneNode) -> None:
    """(A5) The code stays void, whatever PIN is typed before it."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    await unassign(node)
    await give(node, "alice")
    for pin in (PIN, "9999"):
        assert not await node.accepts(pin + code)
    assert node.reasons() == [Reason.CODE_NOT_LIVE] * 2
    assert failures(node) == 0


async def test_spent_tokencode_stays_spent_when_a_token_is_enrolled_again(
    node: OneNode,
) -> None:
    """(K1) Deleted and enrolled again within the window: never accepted again."""
    await node.add_user()
    shown = node.tokencode()
    assert await node.accepts(PIN + shown)
    await delete(node)
    await node.enroll()
    await give(node, "alice")
    assert not await node.accepts(PIN + shown)
    assert node.reasons() == ["", Reason.TOKENCODE_SPENT]
    node.clock.pass_s(30)
    assert await node.accepts(PIN + node.tokencode())


async def enroll_hotp(node: OneNode, seed: bytes, counter: int = 0) -> None:
    await node.tokens.enroll(
        node.admin("TokenService/EnrollToken"),
        serial=SERIAL,
        algorithm=Algorithm.HOTP,
        hash_name=HashName.SHA1,
        digits=6,
        period_s=0,
        counter=counter,
        seed=seed,
        pin_rule=PinRule.NONE,
        expires_at_ms=None,
    )


async def test_spent_counter_stays_spent_when_a_token_is_enrolled_again(
    node: OneNode,
) -> None:
    """(K1) From the same file, which holds the counter of the first day."""
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    await enroll_hotp(node, SEED)
    await give(node, "alice", pin="")
    assert await node.accepts(oathtool_hotp(SEED, 4, digits=6))
    for _ in range(2):  # A second time, although nothing was spent in between.
        await delete(node)
        await enroll_hotp(node, SEED)
        await give(node, "alice", pin="")
        assert not await node.accepts(oathtool_hotp(SEED, 4, digits=6))
    assert await node.accepts(oathtool_hotp(SEED, 5, digits=6))


async def test_counter_starts_over_with_another_seed(node: OneNode) -> None:
    """(K1) A reprogrammed token shows other tokencodes."""
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    await enroll_hotp(node, SEED, counter=7)
    await delete(node)
    other = bytes(range(20))
    await enroll_hotp(node, other)
    await give(node, "alice", pin="")
    assert await node.accepts(oathtool_hotp(other, 0, digits=6))


async def test_nothing_of_a_deleted_token_s_seed_is_kept(node: OneNode) -> None:
    """(K1) The mark that recognizes the same seed again reveals nothing of it."""
    await node.add_user()
    sealed = node.primary_db.execute("SELECT sealed_seed FROM tokens").fetchone()[0]
    await delete(node)
    database = "\n".join(node.primary_db.iterdump()).lower()
    assert sealed.hex() not in database


async def test_spent_tokencode_stays_spent_under_another_serial(node: OneNode) -> None:
    """(K1, K5) Deleted, and its seed enrolled again under another serial."""
    await node.add_user(pin="")
    shown = node.tokencode()
    assert await node.accepts(shown)
    await delete(node)
    await node.enroll("2", seed=SEED, pin_rule=PinRule.NONE)
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2", username="alice"
    )
    assert not await node.accepts(shown)
    assert node.reasons() == ["", Reason.TOKENCODE_SPENT]
    node.clock.pass_s(30)
    assert await node.accepts(node.tokencode())
