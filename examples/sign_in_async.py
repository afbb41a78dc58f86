# SPDX-License-Identifier: Apache-2.0
"""Signs many users in at a time, in an asyncio program: one client, shared by all tasks."""

import asyncio
from collections.abc import Mapping

from sparecode_client import AsyncAgent, SparecodeError


async def sign_in_all(
    agent: AsyncAgent, passcodes: Mapping[str, str]
) -> dict[str, bool | None]:
    """Return for each user whether the passcode was accepted; None: no decision."""

    async def one(username: str, passcode: str) -> bool | None:
        try:
            answer = await agent.authenticate(username, passcode)
        except SparecodeError:
            return None
        return answer.accepted

    async with asyncio.TaskGroup() as group:
        tasks = {
            username: group.create_task(one(username, passcode))
            for username, passcode in passcodes.items()
        }
    return {username: task.result() for username, task in tasks.items()}
