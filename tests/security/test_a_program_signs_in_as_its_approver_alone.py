# SPDX-License-Identifier: Apache-2.0
"""
A program signs in only as the administrator who approves it in the console (P9).

The attacks: guess or steal a code, collect a session twice or from another client,
approve for another administrator, by another site or with a stolen session, keep an
approval beyond the session that gave it, ask for more power than the approver has, and
fill the table of waiting requests.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_node.console.kit.security import SESSION_COOKIE
from sparecode_node.console.pages import passkeys
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.browser_logins import (
    BROWSER_LOGIN_MS,
    KNOWN_MAX,
    OF_SOURCE_MAX,
    STRANGERS_MAX,
    USER_CODE_ALPHABET,
    USER_CODE_LENGTH,
)
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.context import Anonymous, CallContext, SessionCaller
from sparecode_node.services.errors import RateError, Refused
from sparecode_node.services.load.rates import DEFAULT_LIMITS
from sparecode_node.services.people.browser_logins import StartedLogin
from sparecode_node.services.people.sessions import SignedIn
from tests.console.desk import Desk, desk
from tests.console.paper import Page, Paper
from tests.console.test_pages import OWN, with_role
from tests.security.test_a_required_second_factor_is_shown import protected
from tests.services.one_node import PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

PAGE = "/account/command-line"
APPROVED = "Approved. The command line signs in"
UNKNOWN = "No sign-in with this code waits for you"


@pytest_asyncio.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


@dataclass
class Program:
    """A command line that signs in through a browser."""

    desk: Desk
    peer: str = "192.0.2.7"
    certificate: str = ""
    device_cookie: str = ""
    request_id: str = ""

    def call(
        self, method: str, bearer: str = "", *, service: str = "SessionService"
    ) -> CallContext:
        """Return the context of a call."""
        return CallContext(
            caller=SessionCaller(bearer=bearer) if bearer else Anonymous(),
            request_id=self.request_id or str(uuid.uuid4()),
            method=f"{service}/{method}",
            deadline_s=10,
            peer=self.peer,
            client_certificate=self.certificate,
            device_cookie=self.device_cookie,
        )

    async def start(self, name: str = ROOT) -> StartedLogin:
        """Ask to sign in."""
        started: StartedLogin = await self.desk.node.browser_logins.start(
            self.call("StartBrowserLogin"), administrator=name, client_name="laptop"
        )
        return started

    async def collect(self, login: StartedLogin) -> SignedIn | None:
        """Poll once."""
        signed_in: SignedIn | None = await self.desk.node.browser_logins.collect(
            self.call("CollectBrowserLogin"), device_code=login.device_code
        )
        return signed_in

    async def refusal(self, login: StartedLogin) -> Reason:
        """Poll once, which must be refused."""
        with pytest.raises(Refused) as refused:
            await self.collect(login)
        return refused.value.rejected.reason

    async def who_am_i(self, signed_in: SignedIn) -> Any:
        """Use the session."""
        return await self.desk.node.sessions.who_am_i(
            self.call("WhoAmI", signed_in.bearer)
        )


async def look_up(browser: Paper, code: str) -> Page:
    """Type a code on the console's page."""
    await browser.open(PAGE)
    return await browser.send("Continue", user_code=code)


async def approve(browser: Paper, login: StartedLogin) -> Page:
    """Approve a request that the page shows."""
    page = await look_up(browser, login.user_code)
    assert "192.0.2.7" in page.text, page.text
    return await browser.send("Approve")


async def refused_start(program: Program) -> Reason:
    """Ask to sign in, which must be refused."""
    with pytest.raises(Refused) as refused:
        await program.start()
    return refused.value.rejected.reason


def rows(desk: Desk, table: str, condition: str = "true") -> int:
    """Return the number of rows of a table."""
    db = desk.node.primary_db
    (number,) = db.execute(
        f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608
    ).fetchone()
    return int(number)


async def test_an_approved_program_gets_a_session_of_its_own(desk: Desk) -> None:
    """(P9, P2) On a node that lags; the listing tells where it comes from."""
    program, browser = Program(desk), await desk.administrator()
    desk.node.replicator.lags = True
    login = await program.start()
    assert login.page == "https://n1.sparecode.test:7302/account/command-line"
    assert await program.collect(login) is None
    # Small letters and spaces are fine.
    page = await look_up(browser, login.user_code.lower().replace("-", "  "))
    assert login.user_code in page.text
    assert "Computer laptop" in page.text
    assert "Not this browser’s" in page.text
    assert APPROVED in (await approve(browser, login)).text
    await desk.node.replicator.read_barrier(timeout_s=60)
    signed_in = await program.collect(login)
    assert signed_in is not None
    assert (await program.who_am_i(signed_in)).administrator == ROOT
    page = await browser.open("/sessions")
    assert "API on n1 from 192.0.2.7, approved in the console by root" in page.text
    # The browser's session ends; the program's goes on.
    await browser.client.post("/account/sign-out", data={})
    assert (await program.who_am_i(signed_in)).administrator == ROOT
    events = desk.node.primary_db.execute(
        "SELECT action, actor, detail FROM audit_events "
        "WHERE action LIKE '%BrowserLogin' ORDER BY sequence"
    ).fetchall()
    assert [each[0] for each in events] == [
        "ApproveBrowserLogin",
        "CollectBrowserLogin",
    ]
    assert all(each[1] == "administrator:root" for each in events)
    assert "from 192.0.2.7, computer laptop" in events[1][2]


async def test_a_device_code_gives_one_session(desk: Desk) -> None:
    """(P9, Q1) A thief of the code comes too late, also with the same request id."""
    program, browser = Program(desk), await desk.administrator()
    program.request_id = str(uuid.uuid4())
    login = await program.start()
    await approve(browser, login)
    assert await program.collect(login)
    assert await program.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN
    program.request_id = ""
    assert await program.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN
    assert UNKNOWN in (await look_up(browser, login.user_code)).text


@pytest.mark.parametrize("request_id", ["", "0d5f6f0e-3c56-4d7c-9a80-6f7f2f6a7c11"])
async def test_collections_at_once_give_one_session(
    desk: Desk, request_id: str
) -> None:
    """(P9, Q1) The owner and a thief, with ids of their own or the same; apply decides."""
    program, browser = Program(desk), await desk.administrator()
    login = await program.start()
    await approve(browser, login)
    program.request_id = request_id
    answers = await asyncio.gather(
        *(program.collect(login) for _ in range(3)), return_exceptions=True
    )
    refused = [each for each in answers if isinstance(each, Refused)]
    assert len(refused) == 2, answers
    assert rows(desk, "sessions", "door = 'browser'") == 1


async def test_the_same_address_is_shown_as_no_proof(desk: Desk) -> None:
    """(P9) Behind a router or a load balancer, an attacker has the browser's address."""
    browser = await desk.administrator()
    login = await Program(desk, peer="127.0.0.1").start()
    page = await look_up(browser, login.user_code)
    assert "Same as this browser" in page.text
    assert "everyone behind the same router or proxy has it" in page.text


async def test_an_approval_that_was_not_collected_ends(desk: Desk) -> None:
    """(P9) After five minutes, approved or not."""
    program, browser = Program(desk), await desk.administrator()
    approved, waiting = await program.start(), await program.start()
    await approve(browser, approved)
    desk.node.clock.pass_s(BROWSER_LOGIN_MS / 1000)
    for login in (approved, waiting):
        assert await program.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN
        assert UNKNOWN in (await look_up(browser, login.user_code)).text


async def test_another_client_collects_nothing(desk: Desk) -> None:
    """(P9, P2) With a stolen device code, but without the client's key."""
    owner = Program(desk, certificate="ab" * 32)
    browser, login = await desk.administrator(), await owner.start()
    await approve(browser, login)
    for thief in (Program(desk), Program(desk, certificate="cd" * 32)):
        assert await thief.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN
    signed_in = await owner.collect(login)
    assert signed_in is not None
    assert (await owner.who_am_i(signed_in)).administrator == ROOT


async def test_no_one_approves_for_another(desk: Desk) -> None:
    """
    (P9) An administrator who knows the code of another one learns and decides nothing.

    A request gives the role of the administrator in it, not that of the approver.
    """
    program, heidi = Program(desk), await with_role(desk, Role.HELP_DESK)
    login = await program.start()
    texts = set()
    for code in (login.user_code, "BBBB-BBBB"):
        page = await look_up(heidi, code)
        texts.add(page.text.replace(code, ""))
        assert UNKNOWN in page.text
    assert len(texts) == 1
    for action in ("approve", "refuse"):
        page = Page(await sent(heidi, code=login.user_code, action=action))
        assert UNKNOWN in page.text
    assert await program.collect(login) is None
    # A request in heidi's name gives heidi's role.
    for_heidi = await program.start("help_desk")
    root = await desk.administrator()
    assert UNKNOWN in (await look_up(root, for_heidi.user_code)).text
    assert APPROVED in (await approve(heidi, for_heidi)).text
    signed_in = await program.collect(for_heidi)
    assert signed_in is not None
    assert signed_in.opened.role == Role.HELP_DESK


async def sent(
    browser: Paper, *, code: str, action: str, token: str = "", **headers: str
) -> Any:
    """Send the form of an approval as an attacker's page or script can."""
    await browser.open(PAGE)
    form = browser.page.form(PAGE)
    return await browser.client.post(
        PAGE,
        data={
            "form_token": token or form.value("form_token"),
            "request_id": str(uuid.uuid4()),
            "user_code": code,
            "action": action,
        },
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        follow_redirects=True,
    )


async def test_another_site_approves_nothing(desk: Desk) -> None:
    """(P9) A page that the administrator visits sends the form, or only links to it."""
    program, browser = Program(desk), await desk.administrator()
    login = await program.start()
    for headers, token in (
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, ""),
        ({"origin": "https://evil.example", "sec_fetch_site": ""}, ""),
        ({}, "0" * 64),
    ):
        answer = await sent(
            browser, code=login.user_code, action="approve", token=token, **headers
        )
        assert answer.status_code == 403, answer.text
    page = await browser.open(f"{PAGE}?user_code={login.user_code}&action=approve")
    assert login.user_code not in page.text
    assert await program.collect(login) is None


async def test_a_stolen_session_approves_nothing(desk: Desk) -> None:
    """(P9, P7) Not without the password; the form goes on after the confirmation."""
    program, browser = Program(desk), await desk.administrator()
    desk.node.clock.pass_s(5 * 60 + 1)
    login = await program.start()
    page = await approve(browser, login)
    assert "Confirm that it is you" in page.text
    page = await browser.send("Confirm", confirm_password="a wrong password")
    assert "The password is wrong" in page.text
    assert await program.collect(login) is None
    desk.node.clock.pass_s(2)
    page = await browser.send("Confirm", confirm_password=PASSWORD)
    assert APPROVED in page.text
    assert await program.collect(login)


async def test_a_refused_program_gets_nothing(desk: Desk) -> None:
    """(P9) Also if it was approved a moment ago; a stolen session may refuse."""
    program, browser = Program(desk), await desk.administrator()
    first, second = await program.start(), await program.start()
    await approve(browser, first)
    await sent(browser, code=first.user_code, action="refuse")
    assert await program.refusal(first) is Reason.BROWSER_LOGIN_REFUSED
    desk.node.clock.pass_s(5 * 60 - 1)
    second = await program.start()
    desk.node.clock.pass_s(2)
    await look_up(browser, second.user_code)
    assert "Refused." in (await browser.send("Refuse")).text
    assert await program.refusal(second) is Reason.BROWSER_LOGIN_REFUSED
    assert rows(desk, "audit_events", "action = 'RefuseBrowserLogin'") == 2


async def test_an_approval_ends_with_the_session_that_gave_it(desk: Desk) -> None:
    """(P9) Signed out, ended by another, a new password, disabled, another role."""
    program, node = Program(desk), desk.node

    async def change(**values: object) -> None:
        await node.administrators.update(
            node.admin("AdministratorService/UpdateAdministrator"),
            name="help_desk",
            **values,
        )

    async def sign_out() -> None:
        await browser.open("/account")
        await browser.send("Sign out everywhere", action="/account/sign-out-everywhere")

    async def set_password() -> None:
        await node.administrators.change_password(
            node.admin("AdministratorService/ChangePassword"),
            name="help_desk",
            old_password="",
            new_password="another password of hers",
        )

    await with_role(desk, Role.HELP_DESK)
    for end in (
        sign_out,
        lambda: change(role=Role.AUDITOR),
        lambda: change(enabled=False),
        set_password,
    ):
        await change(enabled=True)
        browser = await desk.administrator("help_desk", OWN)
        login = await program.start("help_desk")
        assert APPROVED in (await approve(browser, login)).text
        await end()
        await change(enabled=True)
        assert await program.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN


async def test_wrong_passwords_of_strangers_keep_no_program_out(desk: Desk) -> None:
    """(P9, L7) The administrator's name waits, but no password is guessed here."""
    program, browser = Program(desk), await desk.administrator()
    for _ in range(7):
        with pytest.raises(Refused):
            await desk.node.login(password="a wrong password")
    login = await program.start()
    await approve(browser, login)
    assert await program.collect(login)


async def test_a_session_without_the_required_factor_approves_nothing(
    desk: Desk,
) -> None:
    """(P9, P8) Else the program could; one that a passkey has approved can do its work."""
    program, heidi = Program(desk), await with_role(desk, Role.HELP_DESK)
    for_heidi = await program.start("help_desk")
    root = await protected(desk, "passkey")
    await heidi.open(passkeys.PAGE)
    answer = await heidi.client.post(
        PAGE,
        data={
            "form_token": heidi.page.form(passkeys.PAGE).value("form_token"),
            "user_code": for_heidi.user_code,
            "action": "approve",
        },
    )
    assert answer.headers["location"] == passkeys.PAGE
    assert await program.collect(for_heidi) is None
    login = await program.start()
    assert APPROVED in (await approve(root, login)).text
    signed_in = await program.collect(login)
    assert signed_in is not None
    assert not (await program.who_am_i(signed_in)).lacks_factor


async def test_a_program_has_shown_no_more_than_its_approver(desk: Desk) -> None:
    """(P9, P8) It was approved without a second factor, which the policy requires now."""
    program, heidi = Program(desk), await with_role(desk, Role.HELP_DESK)
    login = await program.start("help_desk")
    assert APPROVED in (await approve(heidi, login)).text
    signed_in = await program.collect(login)
    assert signed_in is not None
    assert not (await program.who_am_i(signed_in)).lacks_factor
    await protected(desk, "any")
    assert (await program.who_am_i(signed_in)).lacks_factor
    with pytest.raises(Refused) as refused:
        await desk.node.users.list(
            program.call("ListUsers", signed_in.bearer, service="UserService"),
            page_size=10,
            page_token="",
        )
    assert refused.value.rejected.reason is Reason.SECOND_FACTOR_REQUIRED


async def test_a_program_is_confirmed_no_longer_than_its_approver(desk: Desk) -> None:
    """(P9, P7) The approval is no confirmation: the owner has typed nothing since."""
    program, browser = Program(desk), await desk.administrator()
    desk.node.clock.pass_s(4 * 60)
    login = await program.start()
    assert APPROVED in (await approve(browser, login)).text
    signed_in = await program.collect(login)
    assert signed_in is not None
    assert (await program.who_am_i(signed_in)).confirmed
    desk.node.clock.pass_s(61)
    assert not (await program.who_am_i(signed_in)).confirmed
    with pytest.raises(Refused) as refused:
        await desk.node.sessions.logout_everywhere(
            program.call("LogoutEverywhere", signed_in.bearer)
        )
    assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED


async def test_codes_cannot_be_guessed(tmp_path: Path) -> None:
    """
    (P9, L7) Codes have the rate of passwords: 10 at once, then one a second.

    So an administrator's session has 310 guesses while a request lives, among all
    requests that can be in its name.
    """
    async with desk(tmp_path, DEFAULT_LIMITS) as running:
        browser = await running.administrator()
        for guess in range(11):
            letters = f"{USER_CODE_ALPHABET[guess]}BBBBBBB"
            page = await look_up(browser, letters)
            assert (UNKNOWN if guess < 10 else "Too many requests") in page.text
        guesses = 10 + BROWSER_LOGIN_MS // 1000
        codes = len(USER_CODE_ALPHABET) ** USER_CODE_LENGTH
        assert guesses * (STRANGERS_MAX + KNOWN_MAX) / codes < 4e-6
        # A device code has 256 bits, and an unknown one is refused alike.
        login = await Program(running).start()
        assert len(login.device_code) == 43
        wrong = replace(login, device_code="A" * 43)
        assert await Program(running).refusal(wrong) is Reason.BROWSER_LOGIN_UNKNOWN


async def test_a_program_polls_slowly(tmp_path: Path) -> None:
    """(P9) RFC 8628, 3.5: `slow_down`."""
    async with desk(tmp_path, DEFAULT_LIMITS) as running:
        program = Program(running)
        login = await program.start()
        for _ in range(2):
            assert await program.collect(login) is None
        with pytest.raises(RateError) as slower:
            await program.collect(login)
        assert 0 < slower.value.retry_after_s <= 5
        for _ in range(5):
            running.node.clock.pass_s(5)
            assert await program.collect(login) is None


async def test_strangers_fill_nothing(desk: Desk) -> None:
    """
    (P9, Q3, U1, L7) From any number of addresses.

    Neither the table of requests nor the audit log, nor a known device's part of the
    table of sign-ins.
    """
    browser, known = await desk.administrator(), Program(desk)
    before = rows(desk, "requests"), rows(desk, "audit_events")
    for address in range(OF_SOURCE_MAX + 1):
        one = Program(desk, peer=f"ipv6:[2001:db8::{address}]")
        if address < OF_SOURCE_MAX:
            await one.start()
        else:
            assert await refused_start(one) is Reason.BROWSER_LOGINS_FULL
    for number in range(STRANGERS_MAX - OF_SOURCE_MAX):
        name = ROOT if number % 2 else f"nobody{number}"
        await Program(desk, peer=f"198.51.100.{number}").start(name)
    assert await refused_start(known) is Reason.BROWSER_LOGINS_FULL
    assert (rows(desk, "requests"), rows(desk, "audit_events")) == before
    assert rows(desk, "browser_logins") == STRANGERS_MAX
    # The owner's computer has signed in before.
    signed_in = await desk.node.sessions.login(
        Program(desk).call("Login"),
        administrator=ROOT,
        password=PASSWORD,
    )
    known.device_cookie = signed_in.device_cookie
    for _ in range(2 * KNOWN_MAX):
        login = await known.start()
        desk.node.clock.pass_s(1)
    assert rows(desk, "browser_logins", "device != ''") == KNOWN_MAX
    page = await look_up(browser, login.user_code)
    assert "you have signed in from there before" in page.text
    assert APPROVED in (await browser.send("Approve")).text
    assert await known.collect(login)
    # The flood leaves nothing behind.
    desk.node.clock.pass_s(BROWSER_LOGIN_MS / 1000)
    await known.start()
    assert rows(desk, "browser_logins") == 1


async def test_a_flood_has_a_rate(tmp_path: Path) -> None:
    """(P9, L7) Of one address, and of all strangers; each request is an entry of the log."""
    async with desk(tmp_path, DEFAULT_LIMITS) as running:
        started = 0
        for number in range(100):
            try:
                await Program(running, peer=f"198.51.100.{number}").start()
            except RateError:
                break
            started += 1
        assert 0 < started <= DEFAULT_LIMITS.peer * 10
        one = Program(running, peer="203.0.113.1")
        running.node.clock.pass_s(60)
        for _ in range(OF_SOURCE_MAX):
            await one.start()
        for _ in range(10 - OF_SOURCE_MAX):
            assert await refused_start(one) is Reason.BROWSER_LOGINS_FULL
        with pytest.raises(RateError):
            await one.start()


async def test_no_answer_tells_who_is_an_administrator(desk: Desk) -> None:
    """(P9) The answer to a request in the name of nobody is as long, and waits as long."""
    program = Program(desk)
    entries = desk.node.replicator.entries
    for name in (ROOT, "nobody at all"):
        login = await program.start(name)
        assert await program.collect(login) is None
        assert (len(login.user_code), len(login.device_code)) == (9, 43)
        desk.node.clock.pass_s(BROWSER_LOGIN_MS / 1000)
        assert await program.refusal(login) is Reason.BROWSER_LOGIN_UNKNOWN
    # People type their password into the name field: what is unknown is not stored.
    stored = b"".join(entries) + database(desk)
    assert b"nobody at all" not in stored


async def test_no_code_is_in_the_log_or_the_database(desk: Desk) -> None:
    """(P9) A reader of the log, a snapshot or a backup can collect and approve nothing."""
    program, browser = Program(desk), await desk.administrator()
    login = await program.start()
    await approve(browser, login)
    stored = database(desk)
    signed_in = await program.collect(login)
    assert signed_in is not None
    stored += database(desk) + b"".join(desk.node.replicator.entries)
    for secret in (
        login.device_code,
        login.user_code,
        login.user_code.replace("-", ""),
        signed_in.bearer,
    ):
        assert secret.encode() not in stored
    assert "device" not in repr(login)
    assert browser.client.cookies[SESSION_COOKIE].encode() not in stored


def database(desk: Desk) -> bytes:
    """Return the content of the database."""
    return "\n".join(desk.node.primary_db.iterdump()).encode()
