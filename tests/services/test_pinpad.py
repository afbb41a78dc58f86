# SPDX-License-Identifier: Apache-2.0
"""PINpad tokens: the PIN is typed into the token, which shows the sum (A1, K2)."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.ids import Moment
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import tokencode_at
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files.token_files import TokenFile, TokenFileFormat
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.results import Decision
from tests.domain.examples import TOTP
from tests.generators import sdtid_of, stoken
from tests.services.one_node import SEED, SERIAL, OneNode, call_of, seed_of
from tests.services.test_secrecy import attempt

pytestmark = pytest.mark.asyncio

PIN = "4719"
EIGHT = "000777777777"
SECURID_SERIAL = "000612345678"
SECURID_SEED = bytes(range(1, 17))


def shown(node: OneNode, pin: str, *, step: int = 0, seed: bytes = SEED) -> str:
    """Return what the token shows after *pin* is typed into it."""
    moment = Moment(node.clock.now // 30_000 + step)
    return folded(tokencode_at(seed, TOTP, moment), pin)


def folded(tokencode: str, pin: str) -> str:
    """Add the PIN to the last digits without carry, as the token does."""
    pairs = zip(tokencode, pin.rjust(len(tokencode), "0"), strict=True)
    return "".join(str((int(a) + int(b)) % 10) for a, b in pairs)


async def add_alice(node: OneNode, *, pin: str = PIN, digits: int = 6) -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    await node.enroll(pin_rule=PinRule.PINPAD, digits=digits)
    await assign(node)
    if pin:
        await set_pin(node, pin)


async def assign(node: OneNode, serial: str = SERIAL) -> None:
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=serial, username="alice"
    )


async def set_pin(node: OneNode, pin: str, serial: str = SERIAL) -> None:
    await node.tokens.set_pin(node.admin("TokenService/SetPin"), serial=serial, pin=pin)


async def test_sum_of_tokencode_and_pin_is_accepted_once(node: OneNode) -> None:
    """(A1, K1) Within the window, for any order of PIN and time."""
    await add_alice(node)
    assert await node.accepts(shown(node, PIN, step=-1))
    assert await node.accepts(shown(node, PIN))
    assert not await node.accepts(shown(node, PIN))
    assert node.reasons()[-1] == Reason.TOKENCODE_SPENT


async def test_any_other_passcode_is_a_guess(node: OneNode) -> None:
    """(A1, A2) Tokencode alone, sum of another PIN, PIN before either: charged."""
    await add_alice(node)
    alone = tokencode_at(SEED, TOTP, Moment(node.clock.now // 30_000))
    for passcode, reason in [
        (alone, Reason.WRONG_PIN),
        (shown(node, "4712"), Reason.WRONG_PASSCODE),
        (PIN + alone, Reason.WRONG_PIN),
        (PIN + shown(node, PIN), Reason.WRONG_PIN),
    ]:
        assert not await node.accepts(passcode)
        assert node.reasons()[-1] == reason
        node.clock.pass_s(5)
    node.clock.pass_s(60)
    user = node.primary_db.execute("SELECT failures FROM lockouts").fetchone()
    assert user == (4,)


async def test_emergency_code_follows_the_pin(node: OneNode) -> None:
    """(A1) No token shows it, so no PIN is folded into it."""
    await add_alice(node)
    codes = (await node.issue()).codes
    assert not await node.accepts(codes[0].code)
    node.clock.pass_s(1)
    assert await node.accepts(PIN + codes[0].code)
    assert await node.accepts(shown(node, PIN))  # ALLOW_AND_DISABLE.
    assert not await node.accepts(PIN + codes[1].code)


async def test_codes_are_issued_only_with_a_pin(node: OneNode) -> None:
    """(I1)."""
    await add_alice(node, pin="")
    with pytest.raises(Refused) as refused:
        await node.issue()
    assert refused.value.rejected.reason is Reason.PIN_NOT_SET


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        ("0471", "does not begin with 0"),
        ("4719471", "has at most 6 digits"),
        ("471", "a PIN is 4 to 8 digits"),
    ],
)
async def test_pin_that_would_be_shorter_than_it_looks_is_refused(
    node: OneNode, pin: str, says: str
) -> None:
    """(K2) A leading zero adds nothing, and digits beyond the code's are cut off."""
    await add_alice(node, pin="")
    with pytest.raises(InvalidFieldError, match=says) as invalid:
        await set_pin(node, pin)
    assert invalid.value.field == "pin"
    assert pin not in str(invalid.value)


async def test_owner_chooses_a_pin(node: OneNode) -> None:
    """(K2, K3) With the tokencode alone; after that the token shows the sum."""
    await add_alice(node, pin="")
    answer = await node.authenticate(node.tokencode())
    assert answer.decision is Decision.NEW_PIN_REQUIRED
    with pytest.raises(InvalidFieldError, match="does not begin with 0"):
        await node.answer_challenge(
            answer.challenge, node.tokencode(step=1), new_pin="0815"
        )
    chosen = await node.answer_challenge(
        answer.challenge, node.tokencode(step=1), new_pin="8150"
    )
    assert chosen.decision is Decision.ACCEPTED
    node.clock.pass_s(60)
    assert await node.accepts(shown(node, "8150"))
    code = (await node.issue()).codes[0].code
    assert await node.accepts("8150" + code)


async def test_next_tokencode_has_the_pin_folded_in_too(node: OneNode) -> None:
    """(K1, K3) After three wrong ones; without the PIN it is refused."""
    await add_alice(node)
    for right in (True, False):
        for _ in range(3):
            assert not await node.accepts("1" * 6)
            node.clock.pass_s(60)
        answer = await node.authenticate(shown(node, PIN))
        assert answer.decision is Decision.NEXT_TOKENCODE_REQUIRED
        following = shown(node, PIN, step=1) if right else node.tokencode(step=1)
        went = await node.answer_challenge(answer.challenge, following)
        assert (went.decision is Decision.ACCEPTED) is right
        node.clock.pass_s(120)


async def test_token_is_resynchronized_with_or_without_its_pin(node: OneNode) -> None:
    """(K1) Help desk and owner read off whatever the token shows."""
    await add_alice(node)
    for pin, away in ((PIN, 20), ("0", 50)):
        await node.tokens.resynchronize(
            node.admin("TokenService/ResynchronizeToken"),
            serial=SERIAL,
            first_tokencode=shown(node, pin, step=away),
            second_tokencode=shown(node, pin, step=away + 1),
        )
        assert await node.accepts(shown(node, PIN, step=away + 2))
        assert not await node.accepts(node.tokencode(step=away + 3))
        node.clock.pass_s(60)


async def test_pin_moves_to_a_pinpad_token_and_from_it(node: OneNode) -> None:
    """(R3, T3) It is sealed again. A token that has only a hash cannot pass it on."""
    await add_alice(node)
    await node.enroll("2", pin_rule=PinRule.PINPAD)
    await node.enroll("3")
    await node.enroll("4", pin_rule=PinRule.PINPAD)

    async def put(new: str, old: str) -> None:
        await node.tokens.replace(
            node.admin("TokenService/ReplaceToken"),
            serial=old,
            replacement_serial=new,
            keep_pin=True,
        )

    await put("2", SERIAL)
    assert await node.accepts(shown(node, PIN, seed=seed_of("2")))
    await put("3", "2")
    node.clock.pass_s(30)
    assert await node.accepts(PIN + node.tokencode(seed=seed_of("3")))
    with pytest.raises(Refused) as refused:
        await put("4", "3")
    assert refused.value.rejected.reason is Reason.PIN_FORMAT


async def test_every_attempt_costs_two_hashes(node: OneNode) -> None:
    """(T4, A6) Right or wrong, folded or not: as for a PREPENDED token."""
    await add_alice(node)
    for passcode in (shown(node, PIN), shown(node, PIN), node.tokencode(), "1" * 8):
        before, entries = node.kdf.evaluations(), len(node.replicator.entries)
        await node.accepts(passcode)
        assert node.kdf.evaluations() - before == 2
        assert len(node.replicator.entries) - entries == 1
        node.clock.pass_s(5)


async def test_pin_is_sealed_and_of_one_length(node: OneNode) -> None:
    """(T3) Neither state nor log holds the PIN or tells its length."""
    pin = "90827364"
    await add_alice(node, pin=pin, digits=8)
    database = "\n".join(node.primary_db.iterdump())
    assert pin not in database
    assert pin.encode().hex() not in database.lower()
    assert not [entry for entry in node.replicator.entries if pin.encode() in entry]

    def sealed() -> bytes:
        return node.primary_db.execute("SELECT sealed_pin FROM tokens").fetchone()[0]

    longer = sealed()
    await set_pin(node, "9082")
    assert len(sealed()) == len(longer)
    assert sealed() != longer


async def test_cleared_pin_is_gone(node: OneNode) -> None:
    """(A2) The token's next user gets nothing of it."""
    await add_alice(node)
    right = shown(node, PIN)
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    row = node.primary_db.execute("SELECT sealed_pin, pin_verifier FROM tokens")
    assert row.fetchone() == (b"", b"")
    assert not await node.accepts(right)


async def test_primary_that_is_behind_judges_no_pin(node: OneNode) -> None:
    """(T2) It names the state of its PINs, and apply sees that it is stale."""
    await add_alice(node)
    typed = shown(node, PIN)
    user_id, version = node.primary_db.execute(
        "SELECT user_id, auth_version FROM users"
    ).fetchone()

    def stamped(computed_with: int) -> Authenticate:
        command = replace(attempt(node, 6), user_id=user_id, auth_version=computed_with)
        proposal = Proposal(call=call_of(node, command), tokencodes=(typed,))
        (call,) = node.replicator._stamper.stamp([proposal])
        return call.command

    assert stamped(version + 1).auth_version == version
    assert stamped(version).auth_version == version
    assert stamped(version - 1).auth_version == version - 1


@pytest.mark.parametrize("digits", [6, 8])
async def test_folded_codes_of_stoken_are_accepted(
    node: OneNode, tmp_path: Path, digits: int
) -> None:
    """(K4, K1) A software token with AddPIN 1, from its file."""
    file = sdtid_of(
        tmp_path,
        serial=SECURID_SERIAL,
        seed=SECURID_SEED,
        digits=digits,
        add_pin=True,
    )
    begun = await node.token_import.begin(
        node.admin("TokenService/ImportTokenFile"),
        TokenFile(format=TokenFileFormat.SDTID, content=file.read_bytes()),
    )
    assert [row.problem async for row in begun.results] == [""]
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    await assign(node, SECURID_SERIAL)
    for pin in ("9974", "739182"):
        await set_pin(node, pin, SECURID_SERIAL)
        node.clock.pass_s(120)
        now = node.clock.now // 1000
        assert not await node.accepts(stoken(file, now))
        node.clock.pass_s(1)
        assert await node.accepts(stoken(file, now, pin=pin))
