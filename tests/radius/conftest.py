# SPDX-License-Identifier: Apache-2.0
"""A node with an open RADIUS door; the client `vpn` on 127.0.0.1 is registered."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.radius.door import Door, open_door
from tests.services.one_node import one_node


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Open the door of a node; Alice has a token with a PIN."""
    async with one_node(tmp_path) as node, open_door(node) as opened:
        await node.add_user()
        await opened.register()
        yield opened
