# SPDX-License-Identifier: Apache-2.0
"""A real sshd that asks three nodes by pam_radius, while the first of them is dead."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.cluster import HOST, LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import RadiusSettings
from tests.radius.pam import write_servers
from tests.radius.sshd import NEEDS_SSHD, Machine, running_sshd
from tests.system.estate import PIN, Estate
from tests.system.test_next_step import add, shown

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300), *NEEDS_SSHD]

USER, DAVE = "alice", "dave"
"""Users of the machine."""
NEW_PIN = "82649173"
WRONG = "1" * 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Start three nodes that serve RADIUS."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True, doors=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest_asyncio.fixture
async def estate(cluster: LocalCluster) -> AsyncIterator[Estate]:
    """Connect to every node."""
    async with Estate(cluster) as estate:
        yield estate


async def sshd_secret(estate: Estate) -> str:
    """Register this machine as a RADIUS client, as docs/ssh.md says."""
    new = await estate.admin.register_radius_client(
        "ssh", RadiusSettings(networks=(HOST,), repeats_with_new_authenticator=True)
    )
    return str(new.secret)


async def primary_first(estate: Estate) -> list[LocalNode]:
    """Return the nodes; the primary is the first that sshd asks."""
    primary = await estate.primary()
    return sorted(estate.cluster.nodes, key=lambda node: node is not primary)


@pytest.mark.long
async def test_sshd_signs_in_while_its_first_node_is_dead(
    estate: Estate, tmp_path: Path
) -> None:
    """
    (D3, D4, K1, K3) The primary is the first node that sshd asks; it is killed.

    PIN and emergency code sign in, once. A new PIN and the next tokencode are asked for
    at the same prompt. Names that sshd does not know lock no user out. Then the first
    node is paused: it is silent, and holds its port. Without a quorum sshd refuses.
    """
    secret = await sshd_secret(estate)
    first, *others = await primary_first(estate)
    holder = await estate.holder(USER, codes=3)
    spent, second, third = (PIN + code for code in holder.codes)
    servers = write_servers(
        tmp_path / "servers",
        [(first.ports.radius, 3), *((node.ports.radius, 20) for node in others)],
        secret,
    )
    async with running_sshd(tmp_path, servers) as machine:
        first.kill()
        await estate.primary(but=first)
        assert await machine.sign_in(USER, spent), machine.log
        assert not await machine.sign_in(USER, spent)
        await next_steps(estate, machine)
        await spray(estate, machine)

        first.start()
        estate.cluster.wait_ready(first)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)
        try:
            assert await machine.sign_in(USER, second), machine.log
        finally:
            os.kill(first.pid, signal.SIGCONT)

        for node in others:
            node.kill()
        write_servers(servers, [(first.ports.radius, 3)], secret)
        assert not await machine.sign_in(USER, third)


async def next_steps(estate: Estate, machine: Machine) -> None:
    """Dave chooses a PIN, fails three times, and enters the next tokencode, too."""
    await add(estate, DAVE, pin="")
    typed = (shown(DAVE, 0), NEW_PIN, NEW_PIN, shown(DAVE, 1))
    assert await machine.sign_in(DAVE, *typed), machine.log
    assert "Enter the new PIN again:" in machine.prompts

    for _ in range(3):
        assert not await machine.sign_in(DAVE, WRONG)
        async with asyncio.timeout(60):
            while (await estate.admin.get_user(DAVE)).locked:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    typed = (NEW_PIN + shown(DAVE, 2), shown(DAVE, 3))
    assert await machine.sign_in(DAVE, *typed), machine.log
    assert "Wait for the next tokencode" in machine.prompts


async def spray(estate: Estate, machine: Machine) -> None:
    """Try names that the machine does not know, more often than a user may fail."""
    names = [f"name-{n}" for n in range(2)]
    for name in names:
        await estate.holder(name, codes=1)
    for _ in range(3):
        tried = await asyncio.gather(
            *(machine.sign_in(name, PIN + WRONG) for name in names)
        )
        assert not any(tried)
    for name in names:
        user = await estate.admin.get_user(name)
        assert not user.locked
        assert user.token_failures == user.emergency_failures == 0
