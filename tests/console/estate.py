# SPDX-License-Identifier: Apache-2.0
"""Three real nodes with users, tokens and administrators, for browsers to work on."""

import base64
import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyotp
from local_cluster.cluster import (
    ADMINISTRATOR,
    AGENT,
    LocalCluster,
    LocalNode,
    Ports,
    free_ports,
)
from local_cluster.setup import set_up
from local_cluster.story import until
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from sparecode_client import (
    Admin,
    AdministratorRole,
    Agent,
    MemberRole,
    NewToken,
    PinRule,
)

CHROMIUM = shutil.which("chromium")
PIN = "4719"
PATIENCE = timedelta(seconds=30)
TEMPORARY = "a password for one day"
PASSWORD = "a password of her own"
CONFIRMED_S = 120.0
"""Less than the five minutes after which a change of power needs the password again."""


@dataclass(frozen=True)
class Holder:
    """A user with a token."""

    username: str
    serial: str

    @property
    def seed(self) -> bytes:
        """The seed of the token."""
        return self.serial.encode().ljust(20, b".")

    def tokencode(self) -> str:
        """Return the present tokencode."""
        return str(pyotp.TOTP(base64.b32encode(self.seed).decode()).now())


class Estate:
    """A running cluster, and clients of it."""

    def __init__(self, cluster: LocalCluster, admin: Admin) -> None:
        self.cluster = cluster
        self.admin = admin
        self.registrar = ADMINISTRATOR
        """The administrator who adds users and their tokens."""

    def holder(self, username: str = "", *, pin: bool = True) -> Holder:
        """Add a user with a token."""
        if self.registrar == ADMINISTRATOR:
            return self._add_holder(self.admin, username, pin=pin)
        with self.sign_in(self.registrar, PASSWORD) as own:
            return self._add_holder(own, username, pin=pin)

    def _add_holder(self, admin: Admin, username: str, *, pin: bool) -> Holder:
        name = username or f"user-{uuid.uuid4().hex[:8]}"
        serial = f"{uuid.uuid4().int % 10**12:012}"
        rule = PinRule.PREPENDED if pin else PinRule.NONE
        admin.create_user(
            name,
            display_name=name.replace(".", " ").title(),
            email=f"{name}@example.com",
        )
        holder = Holder(name, serial)
        admin.enroll_token(NewToken(serial=serial, seed=holder.seed, pin_rule=rule))
        admin.assign_token(serial, name)
        if pin:
            admin.set_pin(serial, PIN)
        return holder

    def administrator(self, name: str, role: AdministratorRole) -> None:
        """Add an administrator who has already changed the temporary password."""
        self.admin.create_administrator(name, role, TEMPORARY, username=None)
        with self.sign_in(name, TEMPORARY) as own:
            own.change_password(PASSWORD, old_password=TEMPORARY)

    @contextlib.contextmanager
    def sign_in(self, name: str, password: str) -> Iterator[Admin]:
        """Sign in as another administrator."""
        with Admin(
            [node.admin_address for node in self.cluster.nodes],
            ca=self.cluster.members_ca,
            timeout=PATIENCE,
        ) as admin:
            admin.login(name, password)
            yield admin

    def accepts(self, node: LocalNode, holder: Holder, passcode: str) -> bool:
        """Return whether a node accepts a passcode from an agent."""
        certificates = self.cluster.certificates
        with Agent(
            [node.agents_address],
            ca=self.cluster.members_ca,
            certificate=certificates / f"{AGENT}.pem",
            key=certificates / f"{AGENT}.key",
            timeout=PATIENCE,
        ) as agent:
            return agent.authenticate(holder.username, passcode).accepted

    def primary(self) -> LocalNode:
        """Return the primary, once there is one: an election may be under way."""
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while True:
            for member in self.admin.get_status().members:
                if member.role is MemberRole.PRIMARY:
                    return self.cluster.node(member.node_id)
            assert time.monotonic() < deadline, "no member leads"

    def until_backed_up(self, index: int) -> None:
        """Return once a backup up to this entry of the log is recorded."""
        until(
            lambda: self.admin.get_status().last_backup_index == index,
            f"a backup up to entry {index} is recorded",
        )

    def replicas(self) -> list[LocalNode]:
        """Return the other two."""
        primary = self.primary()
        return [node for node in self.cluster.nodes if node is not primary]


@contextlib.contextmanager
def running_estate(folder: Path) -> Iterator[Estate]:
    """Start three nodes, and sign in."""
    free = iter(free_ports(12))
    ports = [
        # A host for each: cookies are a host's, whatever the port.
        Ports(
            host=f"127.0.0.{number}",
            agents=next(free),
            peers=next(free),
            admin=next(free),
            console=next(free),
        )
        for number in (1, 2, 3)
    ]
    cluster = set_up(folder, testing=True, ports=ports)
    try:
        cluster.start()
        with Admin(
            [node.admin_address for node in cluster.nodes],
            ca=cluster.members_ca,
            timeout=PATIENCE,
        ) as admin:
            admin.login(ADMINISTRATOR, cluster.password)
            admin.confirm_with(lambda _: cluster.password)
            admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
            yield Estate(cluster, admin)
    finally:
        cluster.kill()


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Root has no sandbox. Only pages of the console are opened.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            browser.close()


def new_window(browser: Browser, **options: object) -> BrowserContext:
    """Return a window without cookies."""
    context = browser.new_context(
        ignore_https_errors=True,  # The certificate is of the cluster's own authority.
        timezone_id="Europe/Berlin",
        locale="en-GB",
        **options,  # type: ignore[arg-type]
    )
    context.set_default_timeout(PATIENCE.total_seconds() * 1000)
    return context


class Presence:
    """An administrator at a page who signs in again before a confirmation is needed."""

    def __init__(self, page: Page, url: str, name: str, password: str) -> None:
        self._page, self._url = page, url
        self._name, self._password = name, password
        self._signed_in_s = -CONFIRMED_S

    def show(self) -> None:
        """Sign in, unless the last time is recent enough to change power (P7)."""
        if time.monotonic() - self._signed_in_s >= CONFIRMED_S:
            self._signed_in_s = time.monotonic()
            sign_in(self._page, self._url, self._name, self._password)


def sign_in(page: Page, url: str, name: str, password: str) -> None:
    """Sign in at an address."""
    page.goto(f"{url}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", level=1).filter(
        has_not_text="Security Console"
    ).wait_for()
