# SPDX-License-Identifier: Apache-2.0
"""A client of each kind for each of three nodes, and a time that can be moved on."""

import asyncio
import datetime as dt
import itertools
import time
from base64 import b32encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyotp
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode

from sparecode_client import (
    AdministratorRole,
    AlreadyExists,
    AsyncAdmin,
    AsyncAgent,
    AuditEvent,
    AuditFilter,
    NewToken,
    PinRule,
    TokenAlgorithm,
)
from sparecode_node.membership.certificates import Authority
from tests.faults.clocks import NodeClock
from tests.system.estate import PATIENCE, PIN


def seed_of(serial: str) -> bytes:
    """Return the seed of a token: no two have the same (K5)."""
    return serial.encode().ljust(20, b".")


TEMPORARY, OWN = "a temporary password", "a password of their own"
SESSION_S = 10 * 60
"""A session lasts this long for certain: policy allows 15 minutes without use."""

_names = (f"person-{number}" for number in itertools.count(1))


class Clocks:
    """The clocks of all nodes, always at one time; it only goes on."""

    def __init__(self, clocks: Sequence[NodeClock]) -> None:
        self._clocks = clocks
        self.ahead_s = self._passed_s = 0

    def later(self, seconds: int) -> None:
        """Let time pass: move all of them on at once."""
        self._passed_s += seconds
        self.jump(seconds)

    def jump(self, seconds: int) -> None:
        """Move all of them on at once, as a wrong time service does: no time passes."""
        self.ahead_s += seconds
        for clock in self._clocks:
            clock.set(self.ahead_s, self._passed_s)

    def now(self) -> dt.datetime:
        """Return what they show."""
        return dt.datetime.fromtimestamp(time.time() + self.ahead_s, tz=dt.UTC)


@dataclass(frozen=True)
class Person:
    """A user with one counter token, known to every node."""

    name: str
    serial: str
    pin: str

    def tokencode(self, counter: int) -> str:
        """Return what the token shows."""
        return str(pyotp.HOTP(b32encode(seed_of(self.serial)).decode()).at(counter))


class Stage:
    """
    Administrators and agents of nodes 1, 2 and 3. Use it as an async context.

    Administrators sign in at node 1; the session works on the others too (P2).
    """

    def __init__(self, cluster: LocalCluster, clocks: Clocks) -> None:
        self.cluster = cluster
        self.clocks = clocks
        self._open = AsyncExitStack()
        self._signed_in_s = 0
        self.admins: list[AsyncAdmin] = []
        self.agents: list[AsyncAgent] = []

    async def __aenter__(self) -> Self:
        self.admins = [await self._admin(node) for node in self.cluster.nodes]
        self.agents = await self.agents_of(AGENT)
        await self.sign_in()
        with suppress(AlreadyExists):  # By an earlier test of this cluster.
            await self.admins[0].register_agent(AGENT, f"sparecode://agent/{AGENT}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _admin(self, node: LocalNode) -> AsyncAdmin:
        return await self._open.enter_async_context(
            AsyncAdmin(
                [node.admin_address], ca=self.cluster.members_ca, timeout=PATIENCE
            )
        )

    async def visitor(self, node: int) -> AsyncAdmin:
        """Return a client of one node that has never signed in."""
        return await self._admin(self.cluster.nodes[node])

    async def sign_in(self) -> None:
        """Sign in at node 1, for all three."""
        first, *others = self.admins
        session = await first.login(ADMINISTRATOR, self.cluster.password)
        self._signed_in_s = self.clocks.ahead_s
        for other in others:
            other._client.session = session.session
        for each in self.admins:
            each.confirm_with(lambda _: self.cluster.password)

    async def agents_of(
        self, name: str, directory: Path | None = None
    ) -> list[AsyncAgent]:
        """Return an agent at each node; with a *directory*, of a new certificate."""
        folder = directory or self.cluster.certificates
        if directory is not None:
            issued = self.agents_authority.issue_agent(
                name, now=dt.datetime.now(dt.UTC)
            )
            (folder / f"{name}.pem").write_bytes(issued.certificate)
            (folder / f"{name}.key").write_bytes(issued.key)
        return [
            await self._open.enter_async_context(
                AsyncAgent(
                    [node.agents_address],
                    ca=self.cluster.members_ca,
                    certificate=folder / f"{name}.pem",
                    key=folder / f"{name}.key",
                    timeout=PATIENCE,
                )
            )
            for node in self.cluster.nodes
        ]

    @property
    def agents_authority(self) -> Authority:
        """The authority that signs agents' certificates."""
        path = self.cluster.certificates / "agents-ca"
        return Authority.from_pem(
            path.with_suffix(".pem").read_bytes(), path.with_suffix(".key").read_bytes()
        )

    async def later(self, seconds: int) -> None:
        """Let time pass on all nodes, and sign in again if the session has ended."""
        self.clocks.later(seconds)
        await self._stay_signed_in()

    async def jump(self, seconds: int) -> None:
        """Let the clocks of all nodes jump ahead, and sign in again if need be."""
        self.clocks.jump(seconds)
        await self._stay_signed_in()

    async def _stay_signed_in(self) -> None:
        if self.clocks.ahead_s - self._signed_in_s > SESSION_S:
            await self.sign_in()

    @asynccontextmanager
    async def administrator(
        self, name: str, role: AdministratorRole, *, username: str | None = None
    ) -> AsyncIterator[list[AsyncAdmin]]:
        """Lend another administrator at each node; they are removed in the end."""
        admins = [await self._admin(node) for node in self.cluster.nodes]
        first, second, third = admins
        await self.admins[0].create_administrator(
            name, role, TEMPORARY, username=username
        )
        try:
            await second.login(name, TEMPORARY)
            await second.change_password(OWN, old_password=TEMPORARY)
            session = await third.login(name, OWN)
            first._client.session = second._client.session = session.session
            yield admins
        finally:
            await self.admins[2].remove_administrator(name)

    # --- People and their tokens ----------------------------------------------

    async def person(
        self,
        *,
        pin: str = PIN,
        rule: PinRule = PinRule.PREPENDED,
        at: tuple[int, int, int] = (0, 1, 2),
    ) -> Person:
        """Add a user at one node, give them a token at another, and a PIN at a third."""
        first, second, third = (self.admins[node] for node in at)
        name = next(_names)
        serial = f"serial-{name}"
        await first.create_user(name)
        await second.enroll_token(
            NewToken(
                serial=serial,
                seed=seed_of(serial),
                algorithm=TokenAlgorithm.HOTP,
                pin_rule=rule,
            )
        )
        await third.assign_token(serial, name)
        if pin and rule is not PinRule.NONE:
            await first.set_pin(serial, pin)
        return Person(name, serial, pin if rule is not PinRule.NONE else "")

    async def issued(self, person: Person, *, at: int = 0, count: int = 3) -> list[str]:
        """Issue codes at a node."""
        issued = await self.admins[at].issue_tokencodes(person.serial, count=count)
        return [code.code for code in issued.codes]

    async def accepts(self, node: int, person: Person, passcode: str) -> bool:
        """Ask a node whether a passcode is right."""
        return (await self.agents[node].authenticate(person.name, passcode)).accepted

    async def everywhere(self, person: Person, passcode: str) -> list[bool]:
        """Ask one node after the other."""
        return [await self.accepts(node, person, passcode) for node in range(3)]

    async def failures(self, node: int, person: Person) -> tuple[int, int]:
        """Return what a node has counted: wrong tokencodes, wrong emergency codes."""
        user = await self.admins[node].get_user(person.name)
        return user.token_failures, user.emergency_failures

    async def live(self, node: int, person: Person) -> int:
        """Return how many codes live, as a node has it."""
        return (await self.admins[node].get_emergency_access(person.serial)).live_codes

    async def void_all_codes(self) -> None:
        """Turn every emergency access off: some of the policy cannot change before."""
        for access in (await self.admins[0].list_emergency_access()).items:
            if access.live_codes:
                await self.admins[0].disable_emergency_access(access.serial)

    # --- What is written down ---------------------------------------------------

    async def events(self, node: int, **wanted: str) -> list[AuditEvent]:
        """Return audit events as a node has them, oldest first."""
        page = await self.admins[node].list_audit_events(
            AuditFilter(**wanted), page_size=500
        )
        return list(reversed(page.items))

    async def why(self, node: int, person: Person) -> list[str]:
        """Return why passcodes were refused (empty: accepted), as a node has it."""
        events = await self.events(node, target=person.name)
        judged = ("Authenticate", "ContinueAuthentication")
        return [event.reason for event in events if event.action in judged]

    async def noted(self, node: int, person: Person) -> list[tuple[str, str]]:
        """Return action and cause of the token's other events."""
        events = await self.events(node, target=person.serial, outcome="noted")
        return [(event.action, event.detail) for event in events]

    async def primary(self) -> int:
        """Return which node is the primary, once there is one."""
        nodes = [node.node_id for node in self.cluster.nodes]
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not (name := (await self.admins[0].get_status()).primary):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return nodes.index(name)

    async def until_equal(self) -> None:
        """Return once all members have one state, and one head of the audit log (U1)."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                status = await self.admins[0].get_status(digest=True)
                events = {
                    (each.applied_index, each.digest, each.audit_head)
                    for each in status.members
                    if each.reachable
                }
                if len(events) == 1 and all(each.reachable for each in status.members):
                    return
