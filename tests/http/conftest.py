# SPDX-License-Identifier: Apache-2.0
"""A node with an open HTTP door; the agent `vpn` is registered, and Alice has a token."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.http.door import IDENTITY, Door, open_door
from tests.services.one_node import AgentIdentity, one_node


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Open the door of a node."""
    async with one_node(tmp_path) as node, open_door(node, tmp_path / "tls") as opened:
        await node.add_user()
        await node.register_agent(AgentIdentity(IDENTITY))
        yield opened
