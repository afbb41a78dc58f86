# SPDX-License-Identifier: Apache-2.0
"""
Wrong passwords of strangers keep no administrator out who has signed in before (L7).

The attack: a stranger who reaches a port types wrong passwords for an administrator's
name, several a second, through gRPC and through the console. Time is simulated; the
limits are those of a node in service.
"""

import contextlib
import dataclasses
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import sessions_pb2, sessions_pb2_grpc
from sparecode_client import NotSignedIn
from sparecode_client.admin import AsyncAdmin
from sparecode_node.console.kit.security import DEVICE_COOKIE
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.sign_in_waits import (
    CLIENT_WAIT_MS_MAX,
    CLIENTS_MAX,
    DEVICE_COOKIE_MS,
    STRANGERS_WAIT_MS_MAX,
    ClientWait,
    guesses,
)
from sparecode_node.services.load.rates import DEFAULT_LIMITS
from sparecode_node.services.people.administrators import Link
from tests.console.desk import Desk, desk
from tests.console.paper import Paper
from tests.rpc.edge import MEMBERS, admin_port
from tests.services.one_node import PASSWORD, ROOT, OneNode, one_node

ROOT_FOLDER = Path(__file__).parents[2]
OWN = "quite another password"


@dataclasses.dataclass
class Door:
    """A node's administrator port."""

    node: OneNode
    address: str
    ca: Path
    sessions: Any
    """A stub without retries."""

    @contextlib.asynccontextmanager
    async def device(self, name: str = ROOT) -> AsyncIterator[AsyncAdmin]:
        """Return a client from which the administrator has signed in."""
        async with self.stranger() as admin:
            await admin.login(name, PASSWORD)
            assert admin.device_cookie
            yield admin

    @contextlib.asynccontextmanager
    async def stranger(self, session: str = "") -> AsyncIterator[AsyncAdmin]:
        """Return a client that has never signed in."""
        admin = AsyncAdmin([self.address], ca=self.ca, session=session)
        try:
            yield admin
        finally:
            await admin.close()

    async def refused(
        self, password: str, *, name: str = ROOT, device_cookie: str = ""
    ) -> tuple[grpc.StatusCode, str]:
        """Send one sign-in that must fail, without a retry; return its status."""
        request = sessions_pb2.LoginRequest(
            request_id=str(uuid.uuid4()),
            administrator=name,
            password=password,
            device_cookie=device_cookie,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.sessions.Login(request, timeout=60)
        return raised.value.code(), raised.value.details() or ""

    async def flood(self, seconds: int = 20, **guess: str) -> set[grpc.StatusCode]:
        """Type two wrong passwords a second; return the answers."""
        answers = set()
        for number in range(2 * seconds):
            answers.add((await self.refused(f"wrong password {number}", **guess))[0])
            self.node.clock.pass_s(0.5)
        return answers


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(MEMBERS.pem)
    async with (
        one_node(tmp_path, DEFAULT_LIMITS) as node,
        admin_port(node) as (address, channel),
    ):
        stub = sessions_pb2_grpc.SessionServiceStub(channel)
        yield Door(node, address, ca, stub)


@pytest.mark.asyncio
async def test_a_known_device_signs_in_during_the_flood(door: Door) -> None:
    """(L7) Every time, while strangers wait for the commit and for the node's rate."""
    async with door.device() as root:
        assert await door.flood() == {
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        for _ in range(19):
            await door.flood(seconds=1)
            await root.login(ROOT, PASSWORD)
    door.node.clock.pass_s(20)
    code, words = await door.refused(PASSWORD)
    assert code is grpc.StatusCode.UNAUTHENTICATED, "the flood keeps strangers out"
    assert "wrong, or there were too many wrong passwords" in words


@pytest.mark.asyncio
async def test_unknown_names_look_and_cost_the_same(door: Door) -> None:
    """(A6, L7) With and without a device cookie; one hash each."""
    async with door.device() as root:
        cookie = root.device_cookie
    hashed = door.node.kdf.evaluations()
    answers = {
        await door.refused("wrong password", name=name, device_cookie=each)
        for name in (ROOT, "unknown")
        for each in ("", cookie, cookie[:-4] + "AAAA", "x", "é" * 9, "A" * 10_000)
    }
    assert len(answers) == 1
    assert door.node.kdf.evaluations() - hashed == 12


@pytest.mark.asyncio
async def test_the_password_can_be_changed_during_the_flood(door: Door) -> None:
    """(L7) The session has a count of its own, and its device stays known afterwards."""
    async with door.device() as root:
        await door.flood()
        await root.change_password(OWN, old_password=PASSWORD)
        await door.flood()
        assert (await root.login(ROOT, OWN)).session


@pytest.mark.asyncio
async def test_a_cookie_signs_nobody_in(door: Door) -> None:
    """(L7) It is no bearer, and it replaces no password."""
    async with door.device() as root:
        cookie = root.device_cookie
    async with door.stranger(session=cookie) as thief:
        with pytest.raises(NotSignedIn):
            await thief.who_am_i()
    code, _ = await door.refused("wrong password", device_cookie=cookie)
    assert code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.asyncio
async def test_a_stolen_cookie_keeps_out_only_itself(door: Door) -> None:
    """(L7) Its guesses are its own: strangers get none of them, nor do other devices."""
    async with door.device() as root:
        stolen = root.device_cookie
        await root.login(ROOT, PASSWORD)
        await door.flood(device_cookie=stolen)
        assert (await door.refused(PASSWORD, device_cookie=stolen))[0] is (
            grpc.StatusCode.UNAUTHENTICATED
        )
        await root.login(ROOT, PASSWORD)
    async with door.device():  # A stranger with the right password is let in, too.
        pass


async def _other_password(door: Door) -> str:
    await door.node.administrators.create(
        door.node.admin("AdministratorService/CreateAdministrator"),
        name="dora",
        role=Role.AUDITOR,
        link=Link(""),
        password=PASSWORD,
    )
    async with door.device("dora") as dora:
        return dora.device_cookie


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["password", "recreated", "age", "name", "altered"])
async def test_a_cookie_is_void(door: Door, what: str) -> None:
    """(L7) After a reset or a deletion, after 90 days, for another name, when altered."""
    cookie, node, name = await _other_password(door), door.node, "dora"
    administrators = node.administrators
    match what:
        case "password":
            await administrators.change_password(
                node.admin("AdministratorService/ChangePassword"),
                name="dora",
                old_password="",
                new_password=PASSWORD,
            )
        case "recreated":
            await administrators.remove(
                node.admin("AdministratorService/RemoveAdministrator"), name="dora"
            )
            await _other_password(door)
        case "age":
            node.clock.pass_s(DEVICE_COOKIE_MS / 1000)
        case "name":
            name = ROOT
        case "altered":
            cookie = cookie[:-6] + "AAAAAA"
    await door.flood(name=name)
    for _ in range(2):  # Strangers have used up their rate.
        await door.refused("wrong password", name=name)
    code, words = await door.refused(PASSWORD, name=name, device_cookie=cookie)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "too fast for this administrator" in words
    node.clock.pass_s(3)  # The node's rate lets the next one through.
    async with door.stranger() as admin:
        with pytest.raises(NotSignedIn):
            await admin.login(name, PASSWORD, device_cookie=cookie)
    assert not node.primary_db.execute("SELECT * FROM sign_in_waits").fetchall()


@pytest.mark.asyncio
async def test_the_counted_devices_are_bounded(door: Door) -> None:
    """(L7) Further devices count as strangers, and gain no guess."""
    async with door.device() as root:
        cookies = []
        for _ in range(CLIENTS_MAX + 1):
            await root.login(ROOT, PASSWORD)
            cookies.append(root.device_cookie)
            door.node.clock.pass_s(1)
        for each in cookies:
            await door.refused("wrong password", device_cookie=each)
        counts = door.node.primary_db.execute(
            "SELECT (SELECT count(*) FROM sign_in_waits), failures FROM administrators"
        )
        assert counts.fetchone() == (CLIENTS_MAX, 1)
    door.node.clock.pass_s(DAY_MS / 1000)
    async with door.device():
        rows = door.node.primary_db.execute("SELECT * FROM sign_in_waits")
        assert not rows.fetchall()


@pytest_asyncio.fixture
async def console(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, DEFAULT_LIMITS) as running:
        yield running


async def _flood(console: Desk, stranger: Paper) -> set[int]:
    answers = set()
    for number in range(40):
        page = await stranger.sign_in(ROOT, f"wrong password {number}")
        answers.add(page.status)
        console.node.clock.pass_s(0.5)
    return answers


@pytest.mark.asyncio
async def test_a_known_browser_signs_in_during_the_flood(console: Desk) -> None:
    """(L7) Also after it has changed the password."""
    stranger, known = await console.browser(), await console.administrator()
    assert await _flood(console, stranger) == {409, 429}
    await known.send("Sign out", action="/account/sign-out")
    assert (await known.sign_in(ROOT, PASSWORD)).path == "/"
    await _flood(console, stranger)
    await known.open("/account/password")
    page = await known.send(
        "Change password",
        old_password=PASSWORD,
        new_password=OWN,
        new_password_again=OWN,
    )
    assert page.path == "/"
    await known.send("Sign out", action="/account/sign-out")
    await _flood(console, stranger)
    assert (await known.sign_in(ROOT, OWN)).path == "/"
    assert (await stranger.sign_in(ROOT, OWN)).path == "/sign-in"


@pytest.mark.asyncio
async def test_scripts_and_other_sites_see_no_device_cookie(console: Desk) -> None:
    """(L7) It is for this host alone, encrypted connections alone, and 90 days."""
    browser = await console.browser()
    await browser.open("/sign-in")
    form = browser.page.form("/sign-in")
    fields = {**dict(form.fields), "administrator": ROOT, "password": PASSWORD}
    answer = await browser.client.post("/sign-in", data=fields)
    (cookie,) = [
        each
        for each in answer.headers.get_list("set-cookie")
        if each.startswith(DEVICE_COOKIE)
    ]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert attributes == {
        "httponly",
        "secure",
        "samesite=strict",
        "path=/",
        f"max-age={90 * 24 * 60 * 60}",
    }


def test_the_guesses_of_a_day_are_those_in_the_documentation() -> None:
    """(L7) Computed from the constants that the commit uses."""
    strangers = guesses(DAY_MS, STRANGERS_WAIT_MS_MAX)
    device = guesses(DAY_MS, CLIENT_WAIT_MS_MAX)
    page = (ROOT_FOLDER / "docs" / "security.md").read_text()
    stated = {
        name: int(number.replace(",", ""))
        for name, number in re.findall(r"^\| (.+?) \| ([\d,]+) \|$", page, re.MULTILINE)
    }
    assert stated["all strangers together"] == strangers
    assert stated["one stolen device cookie or session"] == device
    assert stated["all of them together, at most"] == strangers + CLIENTS_MAX * device


def test_a_count_cannot_be_shed_for_more_guesses() -> None:
    """(L7) A client that guesses whenever it may stays within the documented number."""
    wait, at_ms, judged = ClientWait(), 0, 0
    while at_ms < DAY_MS:
        wait = wait.failed(at_ms)
        judged += 1
        assert wait.blocks(wait.blocked_until_ms - 1)
        assert wait.ends_at_ms > wait.blocked_until_ms, "forgotten while it blocks"
        at_ms = wait.blocked_until_ms
    assert judged == guesses(DAY_MS, CLIENT_WAIT_MS_MAX)
