# SPDX-License-Identifier: Apache-2.0
"""Every kind of caller of a node, with the certificates and sessions that it shows."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from local_cluster.cluster import ADMINISTRATOR

from sparecode.v1 import (
    administrators_pb2,
    agents_pb2,
    emergency_access_pb2,
    sessions_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_node.console.kit.security import SESSION_COOKIE
from sparecode_node.domain.administrators import Role
from tests.rpc.edge import failure
from tests.security.whole_node import WholeNode

TEMPORARY = "a temporary password for once"
OWN = "a password of one's own choice"
ROOT = ADMINISTRATOR
TIMEOUT_S = 60
NO_APPROVAL = 10**6
"""No approval has this number."""
A_DAY_S = 24 * 3600
"""Longer than a session."""


ROLES = {
    "desk": Role.HELP_DESK,
    "auditor": Role.AUDITOR,
    "operator": Role.OPERATOR,
    "desk-self": Role.HELP_DESK,
    "super-self": Role.SUPER_ADMIN,
}
"""The roles of administrators, besides the first one, by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller, and what it shows."""

    name: str
    """The heading of its column."""
    certificate: str = ""
    """The file of the client certificate that it shows; empty: none."""
    bearer: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    """Of its browser."""
    administrator: str = ""
    """The administrator who signs in for new sessions; empty: no one can."""
    password: str = OWN
    approval_id: int = NO_APPROVAL
    """A request of another administrator that waits; if not set, there is none."""
    draft: bytes = b""
    """Codes that it generated for its own token; empty: none."""
    about_self: bool = False
    """Whether its calls are about its own user, token and name."""

    @property
    def about(self) -> str:
        """The user, the token and whatever else its calls are about."""
        return self.name if self.about_self else f"of-{self.name}"

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What it sends with a call by gRPC."""
        return (("authorization", f"Bearer {self.bearer}"),) if self.bearer else ()


class Administration:
    """Calls as the first administrator."""

    def __init__(self, node: WholeNode, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._password = node.password
        self._bearer = ""

    async def begin(self) -> None:
        """Sign in, perhaps again."""
        self._bearer = await self.sign_in(ROOT, self._password)

    async def sign_in(self, name: str, password: str) -> str:
        """Open a session."""
        answer = await SessionServiceStub(self._channel).Login(
            sessions_pb2.LoginRequest(
                request_id=new_id(), administrator=name, password=password
            ),
            timeout=TIMEOUT_S,
        )
        return str(answer.session)

    async def signed_in(self, caller: Caller) -> Caller:
        """Return the caller with a new session, if it can sign in."""
        if not caller.administrator:
            return caller
        bearer = await self.sign_in(caller.administrator, caller.password)
        return replace(caller, bearer=bearer)

    async def call(self, stub: Any, method: str, request: Any, bearer: str = "") -> Any:
        """Call a method, as the first administrator or with this session."""
        return await getattr(stub(self._channel), method)(
            request,
            timeout=TIMEOUT_S,
            metadata=(("authorization", f"Bearer {bearer or self._bearer}"),),
        )

    async def create(
        self, name: str, role: Role, *, password: str = OWN, about_self: bool = False
    ) -> None:
        """
        Create an administrator with this password, and the user that its calls are about.

        *about_self*: they are the same person.
        """
        await self.create_user(name if about_self else f"of-{name}")
        await self.call(
            AdministratorServiceStub,
            "CreateAdministrator",
            administrators_pb2.CreateAdministratorRequest(
                request_id=new_id(),
                name=name,
                role=administrators_pb2.AdministratorRole.Value(
                    f"ADMINISTRATOR_ROLE_{role.name}"
                ),
                password=TEMPORARY,
                **({"username": name} if about_self else {"no_user": True}),
            ),
        )
        if password != TEMPORARY:
            await self.call(
                AdministratorServiceStub,
                "ChangePassword",
                administrators_pb2.ChangePasswordRequest(
                    request_id=new_id(), old_password=TEMPORARY, new_password=password
                ),
                await self.sign_in(name, TEMPORARY),
            )

    async def create_user(self, name: str) -> None:
        """Create a user, and a token of the same name."""
        seed = name.encode().ljust(20, b".")
        for stub, method, request in (
            (UserServiceStub, "CreateUser", users_pb2.CreateUserRequest(username=name)),
            (
                TokenServiceStub,
                "EnrollToken",
                tokens_pb2.EnrollTokenRequest(
                    serial=name,
                    algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
                    digits=6,
                    period_seconds=30,
                    seed=seed,
                    pin_rule=types_pb2.PIN_RULE_NONE,
                ),
            ),
            (
                TokenServiceStub,
                "AssignToken",
                tokens_pb2.AssignTokenRequest(serial=name, username=name),
            ),
        ):
            request.request_id = new_id()
            await self.call(stub, method, request)

    async def open_session_of(self, caller: Caller) -> str:
        """Open a session for *caller* to end: another administrator's; return its id."""
        name = caller.name if caller.about_self else "victim"
        bearer = await self.sign_in(name, OWN)
        answer = await self.call(
            SessionServiceStub,
            "ListSessions",
            sessions_pb2.ListSessionsRequest(),
            bearer,
        )
        return str(next(each.session_id for each in answer.sessions if each.calling))

    async def waiting_approval(self) -> int:
        """Request what needs an approval; return the approval's number."""
        request = administrators_pb2.CreateAdministratorRequest(
            request_id=new_id(),
            name=new_id(),
            role=administrators_pb2.ADMINISTRATOR_ROLE_AUDITOR,
            password=TEMPORARY,
            no_user=True,
        )
        try:
            await self.call(AdministratorServiceStub, "CreateAdministrator", request)
        except grpc.aio.AioRpcError as error:
            return int(failure(error).words.partition("approval ")[2].split(";")[0])
        raise AssertionError("no approval was needed")

    async def draft_of(self, caller: Caller) -> bytes:
        """Generate codes for the caller's own token, as the caller; return the draft."""
        answer = await self.call(
            EmergencyAccessServiceStub,
            "GenerateTokencodes",
            emergency_access_pb2.GenerateTokencodesRequest(serial=caller.about),
            (await self.signed_in(caller)).bearer,
        )
        return bytes(answer.draft)

    async def create_agent(self) -> str:
        """Register the agent of the certificate; return its bearer key."""
        await self.call(
            AgentServiceStub,
            "RegisterAgent",
            agents_pb2.RegisterAgentRequest(
                request_id=new_id(),
                name="vpn",
                certificate_identity="sparecode://agent/vpn",
            ),
        )
        answer = await self.call(
            AgentServiceStub,
            "CreateAgentKey",
            agents_pb2.CreateAgentKeyRequest(request_id=new_id(), name="vpn"),
        )
        return str(answer.key)


def new_id() -> str:
    """Return a request id."""
    return str(uuid.uuid4())


@asynccontextmanager
async def administration(node: WholeNode) -> AsyncIterator[Administration]:
    """Sign in as the first administrator."""
    credentials = grpc.ssl_channel_credentials(node.file("members-ca.pem"))
    address = node.place.admin_address
    async with grpc.aio.secure_channel(address, credentials) as channel:
        root = Administration(node, channel)
        await root.begin()
        yield root


async def callers_of(node: WholeNode, root: Administration) -> Sequence[Caller]:
    """Make every caller, in the order of the table's columns."""
    await root.create("expired", Role.OPERATOR)
    expired = await _session(node, root, "expired")
    node.clock.passed_s += A_DAY_S
    await root.begin()
    gone = [await _gone(node, root, name) for name in ("disabled", "removed")]
    key = await root.create_agent()
    await root.create("victim", Role.AUDITOR)
    await root.create("temporary", Role.HELP_DESK, password=TEMPORARY)
    await root.create_user("of-super")
    roles = []
    for name, role in ROLES.items():
        # With a second super administrator, further ones would need an approval.
        about_self = name.endswith("-self")
        await root.create(name, role, about_self=about_self)
        roles.append(Caller(name=name, administrator=name, about_self=about_self))
    administrators = [
        replace(each, draft=await root.draft_of(each))
        if each.about_self
        else replace(each, approval_id=await root.waiting_approval())
        for each in (
            Caller(name="super", administrator=ROOT, password=node.password),
            *roles,
            Caller(name="temporary", administrator="temporary", password=TEMPORARY),
        )
    ]
    return (
        Caller(name="nobody"),
        Caller(name="agent", certificate="vpn"),
        Caller(name="node", certificate="n1"),
        Caller(name="key", bearer=key, cookies={SESSION_COOKIE: key}),
        *administrators,
        expired,
        *gone,
    )


async def _session(node: WholeNode, root: Administration, name: str) -> Caller:
    """Sign in by gRPC and in a browser; return a caller with these sessions."""
    async with node.browser() as browser:
        await node.sign_in(browser, name, OWN)
        bearer = await root.sign_in(name, OWN)
        return Caller(name=name, bearer=bearer, cookies=dict(browser.cookies))


async def _gone(node: WholeNode, root: Administration, name: str) -> Caller:
    """Return a caller with the sessions of an administrator who has gone since."""
    await root.create(name, Role.AUDITOR)
    caller = await _session(node, root, name)
    change = "RemoveAdministrator" if name == "removed" else "UpdateAdministrator"
    request = getattr(administrators_pb2, f"{change}Request")(
        request_id=new_id(),
        name=name,
        **({} if name == "removed" else {"enabled": False}),
    )
    await root.call(AdministratorServiceStub, change, request)
    return caller
