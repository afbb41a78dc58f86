# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the console's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.sync_api import Browser

from tests.console.desk import Desk, desk
from tests.console.estate import CHROMIUM, Estate, running_chromium, running_estate


@pytest_asyncio.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Return Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is missing: make system-packages")
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """Return three running nodes, for the tests of one module."""
    with running_estate(tmp_path_factory.mktemp("estate")) as running:
        yield running
