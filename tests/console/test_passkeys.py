# SPDX-License-Identifier: Apache-2.0
"""Passkeys in Chromium, with the virtual authenticator of its developer tools (P8)."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from sparecode_node.console.kit.security import SESSION_COOKIE
from sparecode_node.domain.administrators import Role
from sparecode_node.rpc.server import Listeners
from sparecode_node.services.people import browser_logins
from tests.console.desk import Desk
from tests.console.https_desk import browser_of
from tests.console.test_pages import OWN, with_role
from tests.rpc.edge import MEMBERS, settings
from tests.services.one_node import CONSOLES, PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

HERE, THERE = CONSOLES[0], CONSOLES[1]
CommandLine = Callable[..., Awaitable[asyncio.subprocess.Process]]
"""Runs a command of `sparecode`."""
PAGE = "/account/passkeys"
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """Serve the console under the names of two nodes; return a browser that knows them."""
    async with browser_of(desk, tmp_path / "certificates", HERE, THERE) as running:
        yield running


class Device:
    """A browser window with an authenticator."""

    def __init__(self, page: Page, tools: Any, authenticator: str) -> None:
        self.page = page
        self._tools = tools
        self._authenticator = authenticator

    async def send(self, method: str, **values: object) -> Any:
        """Send a command about the authenticator to the developer tools."""
        return await self._tools.send(
            f"WebAuthn.{method}", {"authenticatorId": self._authenticator, **values}
        )

    async def sign_in(
        self, console: str, button: str, *, name: str = ROOT, password: str = PASSWORD
    ) -> None:
        """Fill in the sign-in form, and press a button."""
        await self.page.goto(f"{console}/sign-in")
        await self.page.get_by_label("Name").fill(name)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name=button, exact=True).click()

    async def heading(self, words: str) -> None:
        """Wait for a page."""
        await self.page.get_by_role("heading", level=1, name=words).wait_for()

    async def text(self) -> str:
        """Return the visible text."""
        return await self.page.locator("body").inner_text()


@contextlib.asynccontextmanager
async def device(browser: Browser, **options: Any) -> AsyncIterator[Device]:
    """Open a window with an authenticator."""
    context: BrowserContext = await browser.new_context(
        ignore_https_errors=True, **options
    )
    context.set_default_timeout(20_000)
    page = await context.new_page()
    tools = await context.new_cdp_session(page)
    await tools.send("WebAuthn.enable", {})
    added = await tools.send(
        "WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR}
    )
    yield Device(page, tools, added["authenticatorId"])
    await context.close()


async def set_policy(desk: Desk, **values: object) -> None:
    """Change the policy."""
    policies = desk.node.policies
    read = await policies.get(desk.node.admin("PolicyService/GetPolicy"))
    await policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=read.value.version,
        values=values,
    )


async def register(device: Device, label: str = "Laptop") -> None:
    """Register a passkey on the account's page."""
    await device.page.goto(f"{HERE}{PAGE}")
    await device.page.get_by_label("Name of the device").fill(label)
    await device.page.get_by_role("button", name="Add passkey").click()
    await device.page.get_by_text("The passkey is registered").wait_for()


async def shoot(device: Device, name: str) -> None:
    """Save a picture for people, if the environment names a folder."""
    folder = os.environ.get("PASSKEY_PICTURES")
    if folder:
        await device.page.screenshot(path=f"{folder}/{name}.png", full_page=True)


async def test_a_passkey_is_registered_and_signs_in_at_every_console(
    desk: Desk, browser: Browser
) -> None:
    """(P8) Registered at one console, used at another; the password alone is refused."""
    await set_policy(desk, passkey_domain="sparecode.test")
    async with device(browser) as laptop:
        await laptop.sign_in(HERE, "Sign in")
        await laptop.heading("Dashboard")
        await register(laptop)
        await shoot(laptop, "registered")
        assert "Laptop" in await laptop.text()
        await laptop.page.context.clear_cookies()
        await laptop.sign_in(THERE, "Sign in")
        await laptop.page.get_by_text("Your account has a passkey").wait_for()
        await shoot(laptop, "needed")
        await laptop.sign_in(THERE, "Sign in with a passkey", password="wrong")
        await laptop.page.get_by_text("name or password is wrong").wait_for()
        desk.node.clock.pass_s(2)
        await laptop.sign_in(THERE, "Sign in with a passkey")
        await laptop.heading("Dashboard")
        await laptop.page.goto(f"{THERE}{PAGE}")
        assert re.search("Laptop added .* last used", await laptop.text())


async def test_a_passkey_confirms_a_change(desk: Desk, browser: Browser) -> None:
    """(P7, P8) The password and a passkey confirm of a device that has verified its user."""
    await set_policy(desk, passkey_domain="sparecode.test")
    async with device(browser, viewport={"width": 390, "height": 844}) as phone:
        await phone.sign_in(HERE, "Sign in")
        await phone.heading("Dashboard")
        await register(phone, "Phone")
        await shoot(phone, "phone-registered")
        desk.node.clock.pass_s(6 * 60)
        await phone.page.goto(f"{HERE}{PAGE}")
        await phone.heading("Confirm that it is you")
        await phone.page.get_by_label("Password").fill(PASSWORD)
        await shoot(phone, "phone-confirm")
        # The device cannot verify its user: the browser gives no answer.
        await phone.send("setUserVerified", isUserVerified=False)
        confirm = phone.page.get_by_role("button", name="Confirm with a passkey")
        await confirm.click()
        await phone.page.get_by_text("No passkey was used").wait_for()
        await phone.send("setUserVerified", isUserVerified=True)
        await confirm.click()
        await phone.heading("Passkeys")
        # The same device has one passkey of the account.
        await phone.page.get_by_label("Name of the device").fill("Again")
        await phone.page.get_by_role("button", name="Add passkey").click()
        await phone.page.get_by_text("already has a passkey").wait_for()
        await shoot(phone, "phone-twice")
        assert (await phone.text()).count("Phone added") == 1


async def test_a_required_passkey_is_set_up_at_the_next_sign_in(
    desk: Desk, browser: Browser
) -> None:
    """(P8) Until then, an administrator sees only the page that sets it up."""
    await set_policy(desk, passkey_domain="sparecode.test")
    await with_role(desk, Role.HELP_DESK)
    async with device(browser, color_scheme="dark") as laptop:
        await laptop.sign_in(HERE, "Sign in")
        await laptop.heading("Dashboard")
        await register(laptop)
        await laptop.page.goto(f"{HERE}/policy")
        await laptop.page.get_by_label("Second factor of administrators").select_option(
            "passkey"
        )
        await shoot(laptop, "dark-policy")
        await laptop.page.get_by_role("button", name="Save").click()
        await laptop.page.get_by_text("The policy is changed").wait_for()
    async with device(browser, color_scheme="dark") as tablet:
        await tablet.sign_in(HERE, "Sign in", name="help_desk", password=OWN)
        await tablet.heading("Passkeys")
        await tablet.page.goto(f"{HERE}/users")
        await tablet.heading("Passkeys")
        await tablet.page.get_by_text("The policy requires a passkey").wait_for()
        await shoot(tablet, "dark-required")
        await tablet.page.get_by_label("Name of the device").fill("Tablet")
        await tablet.page.get_by_role("button", name="Add passkey").click()
        await tablet.page.get_by_text("The passkey is registered").wait_for()
        await tablet.page.goto(f"{HERE}/users")
        await tablet.heading("Users")
        await tablet.page.context.clear_cookies()
        await tablet.page.goto(f"{HERE}/sign-in")
        await shoot(tablet, "dark-sign-in")
        assert "Sign in with a passkey" in await tablet.text()


@contextlib.asynccontextmanager
async def command_line(desk: Desk, folder: Path) -> AsyncIterator[CommandLine]:
    """Serve the API of the same node; return what runs commands against it."""
    listeners = Listeners(
        node_id="n1",
        agents=settings(mutual=True),
        admin=settings(mutual=False),
        services=desk.node.services,
        refusals=desk.node.refusals,
        is_ready=lambda: True,
        clock=desk.node.clock,
    )
    await listeners.start()
    (folder / "ca.pem").write_bytes(MEMBERS.pem)
    environment = {
        **os.environ,
        "COLUMNS": "80",
        "PYTHONUNBUFFERED": "1",
        "SPARECODE_NODES": f"127.0.0.1:{listeners.ports['admin']}",
        "SPARECODE_CA": str(folder / "ca.pem"),
        "SPARECODE_SESSION_FILE": str(folder / "session.json"),
    }

    async def run(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("sparecode"),
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    try:
        yield run
    finally:
        await listeners.stop(grace_s=0)


async def output_of(process: asyncio.subprocess.Process, text: str = "") -> str:
    """Return everything that a command prints."""
    output, errors = await asyncio.wait_for(
        process.communicate(text.encode()), timeout=60
    )
    return (output + errors).decode()


async def shown_code(process: asyncio.subprocess.Process) -> str:
    """Wait until the command line shows its code."""
    assert process.stdout is not None
    shown = ""
    while not (code := re.search(r"[B-Z]{4}-[B-Z]{4}", shown)):
        line = await asyncio.wait_for(process.stdout.readline(), timeout=60)
        assert line, shown
        shown += line.decode()
    assert f"{HERE}/account/command-line" in shown
    return code[0]


async def test_a_command_line_signs_in_with_a_passkey(
    desk: Desk, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P8, P9) Where only passkeys sign in: in the browser, after a confirmation there."""
    monkeypatch.setattr(browser_logins, "POLL_MS", 200)
    await set_policy(desk, passkey_domain="sparecode.test")
    async with (
        device(browser) as laptop,
        command_line(desk, tmp_path) as run,
    ):
        await laptop.sign_in(HERE, "Sign in")
        await laptop.heading("Dashboard")
        await register(laptop)
        desk.node.bearer = next(
            cookie["value"]
            for cookie in await laptop.page.context.cookies()
            if cookie["name"] == SESSION_COOKIE
        )
        await set_policy(desk, administrators_second_factor="passkey")
        # The password is refused, and the words point to the browser.
        refused = await output_of(
            await run("login", ROOT, "--password-file", "-"), PASSWORD
        )
        assert "approve this sign-in there" in refused
        assert "sparecode login --browser NAME" in refused
        desk.node.clock.pass_s(6 * 60)
        waiting = await run("login", "--browser", ROOT)
        code = await shown_code(waiting)
        await laptop.page.goto(f"{HERE}/account")
        await laptop.page.get_by_role("link", name="Command line").click()
        await laptop.page.get_by_label("Code").fill(code.lower())
        await shoot(laptop, "command-line-code")
        await laptop.page.get_by_role("button", name="Continue").click()
        await laptop.page.get_by_text("Approve only what you have started").wait_for()
        assert "Same as this browser" in await laptop.text()
        for name, view in (
            ("light", {}),
            ("dark", {"color_scheme": "dark"}),
            ("phone", {"color_scheme": "light"}),
        ):
            await laptop.page.emulate_media(**view)
            if name == "phone":
                await laptop.page.set_viewport_size({"width": 390, "height": 844})
            await shoot(laptop, f"command-line-{name}")
        await laptop.page.get_by_role("button", name="Approve").click()
        await laptop.heading("Confirm that it is you")
        await laptop.page.get_by_label("Password").fill(PASSWORD)
        await laptop.page.get_by_role("button", name="Confirm with a passkey").click()
        await laptop.page.get_by_text("Approved. The command line signs in").wait_for()
        await shoot(laptop, "command-line-approved")
        assert "Signed in as root (super-admin)" in await output_of(waiting)
        assert waiting.returncode == 0
        # The session is as good as the browser's, and known by its origin.
        listed = await output_of(await run("sessions", "list", "--output", "json"))
        doors = {each["door"] for each in json.loads(listed)["sessions"]}
        assert doors == {"browser", "console"}
        assert "root" in await output_of(await run("admins", "list"))
        # Another one is refused.
        waiting = await run("login", "--browser", ROOT)
        await laptop.page.get_by_label("Code").fill(await shown_code(waiting))
        await laptop.page.get_by_role("button", name="Continue").click()
        # This computer has signed in before.
        await laptop.page.get_by_text("you have signed in from there before").wait_for()
        await laptop.page.get_by_role("button", name="Refuse").click()
        await laptop.page.get_by_text("Refused. The program").wait_for()
        assert "the sign-in was refused" in await output_of(waiting)
        assert waiting.returncode == 4
