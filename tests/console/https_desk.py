# SPDX-License-Identifier: Apache-2.0
"""The console of a desk by HTTPS, in Chromium, under names of its own."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.membership.certificates import write_certificates
from tests.console.desk import Desk
from tests.console.estate import CHROMIUM


@contextlib.asynccontextmanager
async def browser_of(desk: Desk, folder: Path, *origins: str) -> AsyncIterator[Browser]:
    """Serve the console by HTTPS; return a browser that finds it at each origin."""
    if CHROMIUM is None:
        pytest.skip("chromium is missing: make system-packages")
    write_certificates(
        folder, members=["n1"], hosts=["127.0.0.1"], now=dt.datetime.now(dt.UTC)
    )
    console = ConsoleServer(
        ConsoleListener(
            host="127.0.0.1",
            port=0,
            certificate=folder / "n1.pem",
            key=folder / "n1.key",
        ),
        desk.site,
        desk.node.refusals.log,
    )
    await console.start(grace_s=1)
    rules = ",".join(
        f"MAP {each.removeprefix('https://')} 127.0.0.1:{console.port}"
        for each in origins
    )
    try:
        async with async_playwright() as playwright:
            yield await playwright.chromium.launch(
                executable_path=CHROMIUM,
                # Root has no sandbox. Only pages of the console are opened.
                args=[
                    "--no-sandbox",
                    "--disable-dev-shm-usage",
                    # A console on the Internet is not protected by it, so ours is not.
                    "--disable-features=LocalNetworkAccessChecks",
                    f"--host-resolver-rules={rules}",
                ],
            )
    finally:
        await console.stop()
