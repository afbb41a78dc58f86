# SPDX-License-Identifier: Apache-2.0
"""The called node of the service tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.services.one_node import OneNode, one_node


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Start a node with an agent, signed in as administrator."""
    async with one_node(tmp_path) as started:
        await started.register_agent()
        yield started
