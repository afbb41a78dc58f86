# SPDX-License-Identifier: Apache-2.0
"""PINs with letters and codes without: a passcode is read both ways (T4, L)."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.statemachine.results import Decision
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_first_step import PASSCODES

pytestmark = pytest.mark.asyncio

LETTERED = "KEY42"


async def allow(node: OneNode, **values: Any) -> None:
    read = await node.policies.get(
        replace(node.admin("PolicyService/GetPolicy"), request_id="")
    )
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=read.value.version,
        values=values,
    )


async def set_pin(node: OneNode, pin: str) -> None:
    await node.tokens.set_pin(node.admin("TokenService/SetPin"), serial=SERIAL, pin=pin)


def failures(node: OneNode) -> dict[str, int]:
    return dict(node.primary_db.execute("SELECT factor, failures FROM lockouts"))


async def test_pin_with_letters_stands_before_either_code(node: OneNode) -> None:
    """(A1, K2) In any letter case. By default, policy does not allow letters."""
    await node.add_user()
    with pytest.raises(InvalidFieldError, match="4 to 8 digits"):
        await set_pin(node, LETTERED)
    await allow(node, pin_letters=True)
    await set_pin(node, LETTERED)
    assert await node.accepts(LETTERED.lower() + node.tokencode())
    codes = (await node.issue()).codes
    assert await node.accepts(LETTERED + codes[0].code.lower())
    assert not await node.accepts(LETTERED + codes[0].code)
    assert not await node.accepts(codes[1].code)
    assert failures(node) == {"emergency": 1}


async def test_code_of_digits_is_told_from_a_tokencode_by_trying_both(
    node: OneNode,
) -> None:
    """(I5, T4, L) A passcode that is wrong both ways is charged to both factors."""
    await node.add_user()
    await allow(node, code_alphabet="0123456789")
    codes = [code.code.replace("-", "") for code in (await node.issue()).codes]
    assert all(code.isdigit() for code in codes)
    assert await node.accepts(PIN + codes[0])
    assert not await node.accepts(PIN + codes[0])
    assert failures(node) == {}
    wrong = str((int(codes[1]) + 1) % 10**8).zfill(8)
    assert not await node.accepts(PIN + wrong)
    assert failures(node) == {"token": 1, "emergency": 1}
    node.clock.pass_s(1)
    assert await node.accepts(PIN + codes[1])
    assert failures(node) == {"token": 1}
    assert await node.accepts(PIN + node.tokencode())
    assert failures(node) == {}


async def test_a_locked_factor_leaves_the_other_usable(node: OneNode) -> None:
    """(L5) After guesses at her codes, Alice's token still works."""
    await node.add_user()
    await allow(node, pin_letters=True)
    await set_pin(node, "KEYAB")
    await node.issue()
    for _ in range(5):
        assert not await node.accepts("KEYABK7PM4XQ2")
        node.clock.pass_s(6)
    assert failures(node) == {"emergency": 5}
    # The last eight of it may be a code: AB and the six digits.
    assert not await node.accepts("KEYAB" + node.tokencode(step=50))
    assert failures(node) == {"emergency": 5, "token": 1}
    node.clock.pass_s(1)
    assert await node.accepts("KEYAB" + node.tokencode())
    assert failures(node) == {"emergency": 5}


@pytest.mark.parametrize(
    ("values", "hashes"),
    [
        ({"pin_letters": True}, 3),
        ({"code_alphabet": "0123456789"}, 3),
        ({"pin_letters": True, "code_length": 10}, 4),
        ({"further_code_lengths": "10"}, 4),
        ({"code_length": 9, "further_code_lengths": "8 10"}, 6),
        ({"pin_letters": True, "further_code_lengths": "10"}, 5),
    ],
)
async def test_every_attempt_still_costs_the_same(
    node: OneNode, values: dict[str, Any], hashes: int
) -> None:
    """(A6, T4) Same hashes, one commit, both steps, for any user and passcode."""
    await node.add_user()
    await allow(node, **values)
    for username in ("alice", "nobody"):
        for passcode in (*PASSCODES, "KEY42123456", "1" * 12):
            before, entries = node.kdf.evaluations(), len(node.replicator.entries)
            await node.accepts(passcode, username=username)
            assert node.kdf.evaluations() - before == hashes
            assert len(node.replicator.entries) - entries == 1
    before = node.kdf.evaluations()
    await node.answer_challenge(b"no challenge", node.tokencode())
    assert node.kdf.evaluations() - before == hashes


async def test_letters_stay_allowed_while_a_pin_has_any(node: OneNode) -> None:
    """(T4) A PIN that could not be typed any more would lock its owner out."""
    await node.add_user()
    await allow(node, pin_letters=True)
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    first = await node.authenticate(node.tokencode())
    assert first.decision is Decision.NEW_PIN_REQUIRED
    chosen = await node.answer_challenge(
        first.challenge, node.tokencode(step=1), new_pin=LETTERED
    )
    assert chosen.decision is Decision.ACCEPTED
    with pytest.raises(Refused) as refused:
        await allow(node, pin_letters=False)
    assert refused.value.rejected.reason is Reason.PINS_LETTERED
    assert SERIAL in refused.value.rejected.detail
    await set_pin(node, PIN)
    await allow(node, pin_letters=False)
    node.clock.pass_s(60)
    assert await node.accepts(PIN + node.tokencode())
