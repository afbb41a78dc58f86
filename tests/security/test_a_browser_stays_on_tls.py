# SPDX-License-Identifier: Apache-2.0
"""An attacker on the network cannot move a browser from TLS to plain HTTP."""

import pytest

from tests.console.desk import Desk

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    "path", ["/sign-in", "/", "/tokens", "/static/console.css", "/nothing/here"]
)
async def test_every_answer_of_the_console_asks_for_tls_for_a_year(
    desk: Desk, path: str
) -> None:
    """By HSTS (RFC 6797): on pages, redirects, static files and errors."""
    browser = await desk.administrator()
    answer = await browser.client.get(path)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
