# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of attacks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.console.desk import Desk, desk


@pytest_asyncio.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Return a console of one node."""
    async with desk(tmp_path) as running:
        yield running
