# SPDX-License-Identifier: Apache-2.0
"""Secrets that pass the RADIUS door show up in no log at DEBUG, entry or table (T3)."""

import logging

import pytest
from pyrad.packet import AccessAccept, AccessReject

from tests.radius.door import Door, answered, request, update
from tests.radius.test_dialog import NAS_PORT, state_of, with_state
from tests.services.one_node import SERIAL

pytestmark = pytest.mark.asyncio

PIN_CHOSEN = "90817263"
"""Long: fewer digits are found in times and hashes by chance."""
WRONG = "93847561ABCD2345"
TYPED_AS_NAME = "95968778"


async def drive(door: Door) -> list[str]:
    """Send secrets in every kind of packet; return those that must show up nowhere."""
    node, secret = door.node, door.secret
    await choose_pin(door)
    issued = await node.issue()
    passcode = PIN_CHOSEN + issued.codes[0].code
    assert await answered(door, request(secret, password=passcode)) == AccessAccept
    assert await answered(door, request(secret, TYPED_AS_NAME, WRONG)) == AccessReject
    assert await answered(door, request(secret, password=WRONG)) == AccessReject
    await door.silent(request("another secret", password=WRONG))
    await door.silent(request(secret, password=WRONG)[:-1])
    await door.silent(request(secret, password=WRONG, code=4))
    broken = WRONG.encode() + b"\xff"
    assert await answered(door, request(secret, password=broken)) == AccessReject
    await update(door, allow_unsigned=True, repeats_with_new_authenticator=True)
    for signed in (True, False):
        sent = request(secret, password=WRONG, signed=signed, attributes=[NAS_PORT])
        assert await answered(door, sent) == AccessReject

    def broken_answer(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a bug")

    door.listener.exchange._dialog.answer = broken_answer
    await door.silent(request(secret, password=WRONG))
    return [secret, issued.codes[0].code, PIN_CHOSEN, WRONG, TYPED_AS_NAME]


async def choose_pin(door: Door) -> None:
    """Choose a PIN, after one that the policy forbids."""
    node = door.node
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    state = await state_of(door, node.tokencode())
    state = await state_of(door, WRONG, state)
    state = await state_of(door, PIN_CHOSEN, state)
    assert PIN_CHOSEN.encode() not in state
    state = await state_of(door, PIN_CHOSEN, state)
    node.clock.pass_s(30)
    sent = with_state(door, state, node.tokencode())
    assert await answered(door, sent) == AccessAccept


async def test_no_secret_is_written_anywhere(door, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = await drive(door)
    assert door.counted("rejected") > 0
    assert any(each.message == "radius_failed" for each in caplog.records)
    lines = "\n".join(
        f"{each.getMessage()} {each.__dict__} {each.exc_text}"
        for each in caplog.records
    )
    entries = b"".join(door.node.replicator.entries)
    tables = "\n".join(door.node.primary_db.iterdump())
    for secret in secrets:
        assert secret not in lines
        assert secret.encode() not in entries
        assert secret not in tables
        assert secret.encode().hex().upper() not in tables
