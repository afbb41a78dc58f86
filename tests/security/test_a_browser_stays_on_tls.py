# SPDX-License-Identifier: Apache-2.0
"""An attacker on the network cannot move a browser from TLS to plain HTTP."""

import httpx
import pytest

from sparecode_node.console import app
from sparecode_node.console.kit.security import HEADERS
from tests.console.desk import ORIGIN, Desk

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


async def test_the_answer_to_a_bug_has_the_headers_of_every_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them HSTS, the content security policy and `no-store`."""

    async def failing(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(app, "_visit", failing)
    transport = httpx.ASGITransport(desk.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        answer = await client.get("/sign-in")
    assert answer.status_code == 500
    assert not set(HEADERS) - set(answer.headers)
