# SPDX-License-Identifier: Apache-2.0
"""
What a real browser signs for another page, or with another key, signs in nowhere (P8).

Chromium holds the victim's passkey, in the virtual authenticator of its developer tools.
The attacker knows the password, has a sign-in page open, and shows the victim another
page with the options of that one. `test_a_passkey_answer_serves_once.py` makes the same
answers by itself; here, the browser decides which of them exist.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from sparecode_node.domain.administrators import Role
from tests.console.desk import Desk
from tests.console.https_desk import browser_of
from tests.console.test_pages import OWN, with_role
from tests.console.test_passkeys import (
    HERE,
    THERE,
    Device,
    device,
    register,
    set_policy,
)
from tests.security.test_a_passkey_answer_serves_once import (
    REFUSED,
    Attempt,
    attempt,
)
from tests.services.one_node import PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

WIKI = "https://wiki.sparecode.test:7302"
"""Another machine of the domain, which the attacker has taken over."""
EVIL = "https://sparecode.test.evil.example:7302"
ANSWER = """
async ([options, changes]) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(
    { ...JSON.parse(options), ...changes },
  );
  try {
    return JSON.stringify((await navigator.credentials.get({ publicKey })).toJSON());
  } catch (error) {
    return error.name;
  }
}
"""
"""What the attacker's page does. It gets the name of the error, or the answer."""


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """Return a browser that finds the consoles, and the attacker's pages."""
    await set_policy(desk, passkey_domain="sparecode.test")
    origins = (HERE, THERE, WIKI, EVIL)
    async with browser_of(desk, tmp_path / "certificates", *origins) as running:
        yield running


async def registered(
    laptop: Device, name: str = ROOT, password: str = PASSWORD
) -> None:
    """Sign in, and register a passkey."""
    await laptop.sign_in(HERE, "Sign in", name=name, password=password)
    await laptop.heading("Dashboard")
    await register(laptop)


async def answer_at(laptop: Device, origin: str, at: Attempt, **changes: object) -> str:
    """Let the victim open a page, which asks for the passkey with the attacker's options."""
    await laptop.page.goto(f"{origin}/static/icon.svg")
    options = await at.options()
    answer: str = await laptop.page.evaluate(ANSWER, [options, changes])
    return answer


async def refused(desk: Desk, at: Attempt, answer: str) -> bool:
    """Return whether the attacker's answer is refused; then wait as long as it takes."""
    assert answer.startswith("{"), f"the browser gave no answer: {answer}"
    page = await at.send(answer)
    desk.node.clock.pass_s(61)
    return REFUSED in page.text


async def test_an_answer_for_another_page_signs_in_nowhere(
    desk: Desk, browser: Browser
) -> None:
    """The browser signs at which address it was; for another domain, it gives none."""
    async with device(browser) as laptop:
        await registered(laptop)
        at = await attempt(desk)
        assert await answer_at(laptop, EVIL, at) == "SecurityError"
        own = await answer_at(laptop, EVIL, at, rpId="sparecode.test.evil.example")
        assert own == "NotAllowedError"  # There is no passkey for it.
        assert await refused(desk, at, await answer_at(laptop, WIKI, at))
        # The same answer from a page of a console is right.
        right = await answer_at(laptop, THERE, at)
        assert (await at.send(right)).path == "/"


async def test_an_answer_that_was_sent_signs_in_nowhere_else(
    desk: Desk, browser: Browser
) -> None:
    """Not in the window that gave it, and not at the console of another node."""
    async with device(browser) as laptop:
        await registered(laptop)
        await laptop.page.context.clear_cookies()
        await laptop.page.goto(f"{HERE}/sign-in")
        visit = await laptop.page.context.cookies()
        async with laptop.page.expect_request(
            lambda each: "passkey=%7B" in (each.post_data or "")
        ) as sent:
            await laptop.sign_in(HERE, "Sign in with a passkey")
        await laptop.heading("Dashboard")
        fields = parse_qs((await sent.value).post_data or "")
        for console in (HERE, THERE):
            await laptop.page.context.clear_cookies()
            for each in visit:
                name, value = each["name"], each["value"]
                await laptop.page.context.add_cookies(
                    [{"name": name, "value": value, "url": console, "secure": True}]
                )
            await laptop.page.goto(f"{console}/sign-in")
            await laptop.page.locator("input[name=passkey]").evaluate(
                "(field, value) => { field.value = value; }", fields["passkey"][0]
            )
            await laptop.page.get_by_label("Name").fill(ROOT)
            await laptop.page.get_by_label("Password").fill(PASSWORD)
            await laptop.page.get_by_role(
                "button", name="Sign in with a passkey", exact=True
            ).click()
            await laptop.page.get_by_text(REFUSED).wait_for()
            desk.node.clock.pass_s(61)


async def copy_of(laptop: Device, **changes: object) -> dict[str, Any]:
    """Return the passkey of a device with its private key, as its maker could copy it."""
    (credential,) = (await laptop.send("getCredentials"))["credentials"]
    return {**credential, **changes}


async def test_a_copied_or_foreign_passkey_signs_in_nowhere(
    desk: Desk, browser: Browser
) -> None:
    """A copy of the key has an older count, and a colleague's is of another person."""
    await with_role(desk, Role.HELP_DESK)
    async with device(browser) as laptop, device(browser) as thief:
        await registered(laptop)
        copied = await copy_of(laptop)
        at = await attempt(desk)
        assert (await at.send(await answer_at(laptop, HERE, at))).path == "/"
        await thief.send("addCredential", credential=copied)
        at = await attempt(desk)
        assert await refused(desk, at, await answer_at(thief, HERE, at))
        await thief.send("removeCredential", credentialId=copied["credentialId"])
        await registered(thief, "help_desk", OWN)
        assert await refused(desk, at, await answer_at(thief, HERE, at))
        # The handle of the user in the answer is the attacker's to choose.
        own = await copy_of(thief, userHandle=copied["userHandle"])
        await thief.send("removeCredential", credentialId=own["credentialId"])
        await thief.send("addCredential", credential=own)
        assert await refused(desk, at, await answer_at(thief, HERE, at))
        laptop_again = await answer_at(laptop, HERE, at)
        assert (await at.send(laptop_again)).path == "/"


async def test_a_stolen_key_that_verifies_nobody_signs_in_nowhere(
    desk: Desk, browser: Browser
) -> None:
    """(P8) The thief's page asks for no PIN, and the browser then needs none."""
    async with device(browser) as laptop:
        await registered(laptop)
        await laptop.send("setUserVerified", isUserVerified=False)
        at = await attempt(desk)
        assert await answer_at(laptop, HERE, at) == "NotAllowedError"
        answer = await answer_at(laptop, HERE, at, userVerification="discouraged")
        assert flags_of(answer) & 0x04 == 0
        assert await refused(desk, at, answer)


def flags_of(answer: str) -> int:
    """Return the flags that the authenticator has signed."""
    text = json.loads(answer)["response"]["authenticatorData"]
    return base64.urlsafe_b64decode(text + "==")[32]
