# SPDX-License-Identifier: Apache-2.0
"""
An answer of a passkey signs in once, from a page of a console, for its owner (P8).

The attacks: an answer is sent again; it comes from another site, from a page inside
another page, from a key that has verified nobody, from a copy of the key, or from the
attacker's own key; its challenge is old, of another cluster, of another browser, or for
another purpose. Everywhere the attacker knows the password, and each attack counts like
a wrong password (L7).
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from webauthn.helpers import bytes_to_base64url

from sparecode_node.console.kit.security import SESSION_COOKIE, VISIT_COOKIE
from sparecode_node.domain.administrators import Role
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.passkey_checks import (
    Asking,
    PasskeyChecks,
    Purpose,
)
from sparecode_node.services.secrets.sealing import Sealing, session_id
from tests.console.desk import Desk, desk
from tests.console.paper import Page, Paper
from tests.console.test_pages import with_role
from tests.services.authenticator import PRESENT, Authenticator
from tests.services.one_node import CONSOLES, PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

PAGE = "/account/passkeys"
CONFIRMATION = f"{PAGE}/confirmation"
REFUSED = "The passkey was not accepted"


@pytest_asyncio.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        node = running.node
        await node.policies.update(
            node.admin("PolicyService/UpdatePolicy"),
            version=1,
            values={"passkey_domain": "sparecode.test"},
        )
        yield running


class Attempt:
    """A new browser at the sign-in page."""

    def __init__(self, browser: Paper) -> None:
        self.browser = browser

    async def options(self) -> str:
        """Return what the page asks a passkey."""
        return (await self.browser.client.get("/sign-in/passkey")).text

    async def send(self, passkey: str) -> Page:
        """Send the right password with an answer."""
        return await self.browser.send(
            "Sign in", administrator=ROOT, password=PASSWORD, passkey=passkey
        )


async def attempt(desk: Desk) -> Attempt:
    """Open the sign-in page in a new browser."""
    browser = await desk.browser()
    await browser.open("/sign-in")
    return Attempt(browser)


async def sign_in(desk: Desk, key: Authenticator) -> Paper:
    """Sign in with a passkey; the node's own calls use the session, too."""
    at = await attempt(desk)
    page = await at.send(key.used(await at.options()))
    assert page.path == "/", page.text
    desk.node.bearer = at.browser.client.cookies[SESSION_COOKIE]
    return at.browser


async def registered(desk: Desk, key: Authenticator) -> Page:
    """Register a passkey on the account's page."""
    browser = await desk.administrator()
    asked = await browser.client.get(f"{PAGE}/options")
    await browser.open(PAGE)
    return await browser.send("Add passkey", label="Key", passkey=key.made(asked.text))


async def test_the_password_alone_does_not_sign_in(desk: Desk) -> None:
    key = Authenticator(CONSOLES[0])
    assert "The passkey is registered" in (await registered(desk, key)).text
    assert "Your account has a passkey" in (await (await attempt(desk)).send("")).text
    await sign_in(desk, key)


async def test_an_answer_is_not_accepted_again(desk: Desk) -> None:
    """The thief has also the cookies of the browser that gave it, and no count tells."""
    key = Authenticator(CONSOLES[0], count=0)
    await registered(desk, key)
    at, thief = await attempt(desk), await attempt(desk)
    answer = key.used(await at.options())
    thief.browser.client.cookies = httpx.Cookies(at.browser.client.cookies)
    await thief.browser.open("/sign-in")
    assert (await at.send(answer)).path == "/"
    assert REFUSED in (await thief.send(answer)).text
    # And it was counted: the next right answer must wait (L7).
    other = await attempt(desk)
    page = await other.send(key.used(await other.options()))
    assert "the wait after a wrong" in page.text
    desk.node.clock.pass_s(2)
    await sign_in(desk, key)


async def test_an_answer_serves_only_its_browser_and_purpose(desk: Desk) -> None:
    """A stolen answer that was not sent yet signs in nowhere, and confirms nothing."""
    key = Authenticator(CONSOLES[0])
    await registered(desk, key)
    owner, thief = await attempt(desk), await attempt(desk)
    answer = key.used(await owner.options())
    assert REFUSED in (await thief.send(answer)).text
    desk.node.clock.pass_s(2)
    assert (await owner.send(key.used(await owner.options()))).path == "/"
    # A stolen session asks at the sign-in page, which needs no session.
    session = owner.browser
    desk.node.clock.pass_s(6 * 60)
    asked = await attempt(desk)
    for stolen in (
        key.used(await asked.options()),
        key.used((await (await sign_in(desk, key)).client.get(CONFIRMATION)).text),
    ):
        await session.open(PAGE)
        page = await session.send("Confirm", confirm_password=PASSWORD, passkey=stolen)
        assert REFUSED in page.text
        desk.node.clock.pass_s(2)
    own = key.used((await session.client.get(CONFIRMATION)).text)
    assert REFUSED in (await (await attempt(desk)).send(own)).text
    desk.node.clock.pass_s(6)
    await session.open(PAGE)
    page = await session.send("Confirm", confirm_password=PASSWORD, passkey=own)
    assert "Your passkeys" in page.text


async def test_a_registration_is_not_accepted_again(desk: Desk) -> None:
    key = Authenticator(CONSOLES[0])
    browser = await desk.administrator()
    asked = await browser.client.get(f"{PAGE}/options")
    answer = key.made(asked.text)
    await browser.open(PAGE)
    await browser.send("Add passkey", label="Key", passkey=answer)
    page = await browser.send("Add passkey", label="Key", passkey=answer)
    assert "took too long, or was sent twice" in page.text


def checks(desk: Desk, sealing: Sealing) -> PasskeyChecks:
    """Return what makes the challenges of a node with a key ring."""
    return PasskeyChecks(
        sealing=sealing,
        clock=desk.node.clock,
        entropy=desk.site.entropy,
        consoles=CONSOLES,
    )


def edited(answer: str, **values: object) -> str:
    """Return an answer with another response."""
    content = json.loads(answer)
    return json.dumps({**content, "response": {**content["response"], **values}})


async def false_answers(
    desk: Desk, key: Authenticator, at: Attempt
) -> AsyncIterator[str]:
    """Make the false answers. Each is of a challenge of its own."""
    for change in (
        {"origin": "https://sparecode.test.evil.example"},
        {"origin": "https://wiki.sparecode.test"},  # Not a console.
        {"origin": CONSOLES[2]},  # A console, but not of the domain.
        {"cross_origin": True},
        {"domain": "elsewhere.test"},
        {"flags": PRESENT},  # Has not verified its user.
        {"count": 5},  # A copy of the key, from before the last use.
        {"key": Authenticator("").key},
    ):
        yield replace(key, **change).used(await at.options())
    answer = key.used(await at.options())
    desk.node.clock.pass_s(121)
    yield answer
    yield edited(key.used(await at.options()), signature=bytes_to_base64url(bytes(70)))
    asked = json.loads(await at.options())
    visit = Asking(Purpose.SIGN_IN, session_id(at.browser.client.cookies[VISIT_COOKIE]))
    register = visit._replace(purpose=Purpose.REGISTER)
    made = checks(desk, desk.node.sealing).registration(
        register, ROOT, "sparecode.test", ()
    )
    yield key.used(json.dumps({**asked, "challenge": json.loads(made)["challenge"]}))
    other = Sealing(KeyRing.draw(desk.site.entropy))
    yield key.used(checks(desk, other).request(visit, "sparecode.test"))
    for answer in ("{", "7", "[" * 16_000, "x" * 17_000, '{"id": "AA"}'):
        yield answer


async def test_a_false_answer_is_refused_and_counted(desk: Desk) -> None:
    key = Authenticator(CONSOLES[0], count=5)
    await registered(desk, key)
    await sign_in(desk, key)
    attacks, at = 0, await attempt(desk)
    async for answer in false_answers(desk, key, at):
        attacks += 1
        page = await at.send(answer)
        assert REFUSED in page.text, (attacks, page.text)
        assert desk.node.primary_db.execute(
            "SELECT failures FROM administrators WHERE name = ?", (ROOT,)
        ).fetchone() == (attacks,)
        desk.node.clock.pass_s(61)  # The longest wait.
    assert attacks == 17
    key.count = 99
    await sign_in(desk, key)


async def test_anothers_passkey_is_refused(desk: Desk) -> None:
    """An administrator who knows a colleague's password uses the own passkey."""
    key = Authenticator(CONSOLES[0])
    await registered(desk, key)
    await sign_in(desk, key)
    heidi = await with_role(desk, Role.HELP_DESK)
    own = Authenticator(CONSOLES[1])
    asked = await heidi.client.get(f"{PAGE}/options")
    await heidi.open(PAGE)
    page = await heidi.send("Add passkey", label="Own", passkey=own.made(asked.text))
    assert "The passkey is registered" in page.text
    at = await attempt(desk)
    assert REFUSED in (await at.send(own.used(await at.options()))).text


async def test_the_options_do_not_tell_who_has_a_passkey(desk: Desk) -> None:
    """They are for no administrator, and a stranger gets one answer for all names."""
    await registered(desk, Authenticator(CONSOLES[0]))
    at, texts = await attempt(desk), set()
    options = json.loads(await at.options())
    assert options["allowCredentials"] == []
    assert options["userVerification"] == "required"
    answer = Authenticator(CONSOLES[0]).used(await at.options())
    for name in (ROOT, "stranger"):
        page = await at.browser.send(
            "Sign in", administrator=name, password="wrong", passkey=answer
        )
        texts.add(page.text.replace(name, ""))
        desk.node.clock.pass_s(2)
    assert len(texts) == 1, texts


async def test_a_false_registration_is_refused(desk: Desk) -> None:
    """A page in the middle cannot plant a passkey, nor one that verifies nobody."""
    browser = await desk.administrator()
    for key in (
        Authenticator("https://evil.example"),
        Authenticator(CONSOLES[0], flags=PRESENT),
    ):
        asked = await browser.client.get(f"{PAGE}/options")
        await browser.open(PAGE)
        page = await browser.send(
            "Add passkey", label="Key", passkey=key.made(asked.text)
        )
        assert "was not accepted" in page.text
    # Nor can another administrator's session use the answer.
    answer = Authenticator(CONSOLES[0]).made(asked.text)
    heidi = await with_role(desk, Role.HELP_DESK)
    await heidi.open(PAGE)
    page = await heidi.send("Add passkey", label="Key", passkey=answer)
    assert "was not accepted" in page.text
    db = desk.node.primary_db
    assert db.execute("SELECT count(*) FROM passkeys").fetchone() == (0,)
