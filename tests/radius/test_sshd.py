# SPDX-License-Identifier: Apache-2.0
"""A real sshd with pam_radius and the packaged files: passcodes, next steps, name sprays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.radius.door import Door, failures
from tests.radius.pam import name_nodes
from tests.radius.sshd import NEEDS_SSHD, Machine, running_sshd
from tests.services.one_node import PIN, SERIAL

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180), *NEEDS_SSHD]

PASSCODE = "4711ABCD2345EF"
"""A wrong one; longer than the text of sshd."""
WRONG = "1" * 10
"""Of the length of PIN and tokencode."""


@pytest_asyncio.fixture
async def machine(tmp_path: Path, door: Door) -> AsyncIterator[Machine]:
    """Start sshd. Its first node is down, the door is the second."""
    servers = name_nodes(tmp_path, door, wait_s=60)
    async with running_sshd(tmp_path, servers) as machine:
        yield machine


async def test_sshd_asks_for_the_passcode_and_the_next_node(door, machine):
    """(D1, D3) The first node is down; a code signs in once."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert await machine.sign_in("alice", passcode), machine.log
    assert "Passcode:" in machine.prompts
    name_nodes(machine.folder, door, first_is_down=False, wait_s=60)
    assert not await machine.sign_in("alice", passcode)


async def test_sshd_lets_a_user_choose_a_pin(door, machine):
    """(K2, K3) A user without a PIN chooses one at the same prompt."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    name_nodes(machine.folder, door, first_is_down=False, wait_s=60)
    answers = (
        door.node.tokencode(),
        "82649173",
        "82649173",
        door.node.tokencode(step=1),
    )
    assert await machine.sign_in("alice", *answers), machine.log
    assert "Enter the new PIN again:" in machine.prompts


async def test_sshd_asks_for_the_next_tokencode(door, machine):
    """(K1, K3) After three failures one tokencode is not enough: the same prompt asks."""
    name_nodes(machine.folder, door, first_is_down=False, wait_s=60)
    for _ in range(3):
        assert not await machine.sign_in("alice", WRONG)
        door.node.clock.pass_s(10)
    answers = (PIN + door.node.tokencode(), door.node.tokencode(step=1))
    assert await machine.sign_in("alice", *answers), machine.log
    assert "Wait for the next tokencode" in machine.prompts


async def test_a_spray_of_names_over_ssh_charges_no_user(door, machine):
    """
    (D2) Users of Sparecode whom the machine does not know, and root.

    sshd sends a text of the length that was typed, so several lengths are tried.
    """
    name_nodes(machine.folder, door, first_is_down=False, wait_s=60)
    for name in ("carol", "root"):
        await door.node.add_user(name, serial=f"serial-{name}")
    tried = [("carol", ""), ("carol", "1"), ("carol", "47111234"), ("root", PASSCODE)]
    signed_in = await asyncio.gather(*(machine.sign_in(*each) for each in tried))
    assert not any(signed_in)
    assert door.counted("rejected") == len(tried)
    assert failures(door) == 0
    # A user whom it knows is charged.
    assert not await machine.sign_in("alice", PASSCODE)
    assert failures(door) == 1


async def test_the_packaged_file_needs_a_key_and_the_passcode(door, tmp_path):
    """
    Neither alone is enough, but for a break-glass user, whose key is.

    That user is asked for nothing, so also gets in while no node answers. Everyone else
    is refused then.
    """
    issued = await door.node.issue()
    first, second, third = (PIN + each.code for each in issued.codes)
    servers = name_nodes(tmp_path, door, first_is_down=False, wait_s=60)
    async with running_sshd(tmp_path, servers, keys=True) as machine:
        assert await machine.sign_in("alice", first, key=True), machine.log
        assert not await machine.sign_in("alice", second)
        assert not await machine.sign_in("alice", "wrong", key=True)
        assert not await machine.sign_in("bob")

        door.listener.leave()
        name_nodes(tmp_path, door, first_is_down=False, wait_s=1)
        asked = machine.prompts
        assert await machine.sign_in("bob", key=True), machine.log
        assert machine.prompts == asked
        assert not await machine.sign_in("alice", third, key=True)
