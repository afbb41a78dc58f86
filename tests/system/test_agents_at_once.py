# SPDX-License-Identifier: Apache-2.0
"""A change of an agent takes effect on every node at once, on open connections (A4)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from local_cluster.cluster import AGENT, LocalCluster

from sparecode_client import AsyncAgent, NotPermitted, certificate_fingerprint
from tests.system.estate import PIN, Estate

pytestmark = pytest.mark.asyncio

Change = Callable[[], Awaitable[object]]
ROUNDS = 3


class Wanted:
    """The expected answer between one change and the next."""

    def __init__(self, accepted: bool) -> None:
        self.accepted = accepted


class Asking:
    """Asks through one open connection without pause, with a code that works again."""

    def __init__(self, agent: AsyncAgent, passcode: str) -> None:
        self._agent = agent
        self._passcode = passcode
        self.wanted: Wanted | None = None
        """The expected answer from now on; None: either is right."""
        self.answers = 0
        """Answers that had to be as expected, and were."""
        self.accepted = True
        """Whether the latest answer was an acceptance."""
        self.turned_away = False
        """Whether the node knew in the latest call that the certificate is denied."""

    async def run(self) -> None:
        while True:
            wanted = self.wanted
            self.accepted = await self._is_accepted()
            if wanted is not None and wanted is self.wanted:
                assert self.accepted is wanted.accepted
                self.answers += 1

    async def _is_accepted(self) -> bool:
        try:
            answer = await self._agent.authenticate("alice", self._passcode)
        except NotPermitted:
            self.turned_away = True
            return False
        self.turned_away = False
        return answer.accepted


async def until_answered(asking: list[Asking]) -> None:
    """Return when every node has answered some more."""
    before = [each.answers for each in asking]
    while any(  # noqa: ASYNC110
        each.answers < earlier + ROUNDS
        for each, earlier in zip(asking, before, strict=True)
    ):
        await asyncio.sleep(0.01)


@pytest.mark.timeout(300)
async def test_change_of_an_agent_holds_on_every_open_connection_from_its_commit_on(
    cluster: LocalCluster,
) -> None:
    """
    (A4) Three connections, one to each node, are kept open and used all the time.

    From the moment an administrator learns that the agent is disabled or its
    certificate denied, every call on each is refused; after the opposite change,
    accepted again. No connection is opened again, and no one is charged. A node turns
    an allowed certificate away until it has applied the change. So each node first
    learns of the denial: from then on, an acceptance shows that it knows of the change.
    """
    certificate = (cluster.certificates / f"{AGENT}.pem").read_bytes()
    fingerprint = certificate_fingerprint(certificate)
    async with Estate(cluster) as estate:
        admin = estate.admin
        await estate.holder("alice", codes=1)
        fixed = await admin.issue_fixed_tokencode("serial-alice")
        asking = [Asking(agent, PIN + fixed.code) for agent in estate.agents.values()]

        async def change(do: Change, *, accepted: bool, wait: bool = False) -> None:
            for each in asking:
                each.wanted = None
            await do()
            while wait and not all(  # noqa: ASYNC110
                each.accepted for each in asking
            ):
                await asyncio.sleep(0.01)
            for each in asking:
                each.wanted = Wanted(accepted)
            await until_answered(asking)

        async def until_turned_away() -> None:
            while not all(each.turned_away for each in asking):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each.run()) for each in asking]
            async with asyncio.timeout(200):
                for _ in range(ROUNDS):
                    await change(
                        lambda: admin.update_agent(AGENT, enabled=False), accepted=False
                    )
                    await change(
                        lambda: admin.update_agent(AGENT, enabled=True), accepted=True
                    )
                    await change(
                        lambda: admin.deny_certificate(fingerprint=fingerprint),
                        accepted=False,
                    )
                    await until_turned_away()
                    await change(
                        lambda: admin.allow_certificate(fingerprint=fingerprint),
                        accepted=True,
                        wait=True,
                    )
            for task in running:
                task.cancel()
        user = await admin.get_user("alice")
        assert (user.emergency_failures, user.locked) == (0, False)
        assert await estate.until_equal()
