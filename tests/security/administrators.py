# SPDX-License-Identifier: Apache-2.0
"""Administrators who sign in to a node in this process, and call it over gRPC."""

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from sparecode.v1 import administrators_pb2, sessions_pb2
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from tests.rpc.edge import Failure, failure
from tests.rpc.loopback_node import LoopbackNode, new_id

TEMPORARY = "a temporary password for once"
OWN = "a password of one's own choice"

SUPER_ADMIN = administrators_pb2.ADMINISTRATOR_ROLE_SUPER_ADMIN
OPERATOR = administrators_pb2.ADMINISTRATOR_ROLE_OPERATOR


@dataclass(frozen=True)
class SignedIn:
    """An administrator with a session."""

    node: LoopbackNode
    bearer: tuple[tuple[str, str], ...]

    async def call(self, stub: Any, method: str, request: Any) -> Any:
        """Call a unary method."""
        async with self.node.admin() as channel:
            return await getattr(stub(channel), method)(
                request, timeout=60, metadata=self.bearer
            )

    async def stream(self, stub: Any, method: str, request: Any) -> list[Any]:
        """Call a method that streams its answer."""
        async with self.node.admin() as channel:
            answers = getattr(stub(channel), method)(
                request, timeout=60, metadata=self.bearer
            )
            return [each async for each in answers]

    async def refused(self, stub: Any, method: str, request: Any) -> Failure:
        """Call a method that must be refused; return the refusal."""
        streams = method in ("RotateKeys", "CreateBackup", "BulkIssueTokencodes")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (self.stream if streams else self.call)(stub, method, request)
        return failure(raised.value)

    async def needs_approval(self, stub: Any, method: str, request: Any) -> int:
        """Call a method that needs an approval; return the approval's number."""
        refusal = await self.refused(stub, method, request)
        assert refusal.reason == "APPROVAL_NEEDED", refusal
        return int(refusal.words.rpartition("approval ")[2].split()[0].rstrip(".:;,"))

    async def approve(self, approval_id: int) -> None:
        """Approve another administrator's request."""
        await self.call(
            AdministratorServiceStub,
            "Approve",
            administrators_pb2.ApproveRequest(
                request_id=new_id(), approval_id=approval_id
            ),
        )


def root(node: LoopbackNode) -> SignedIn:
    """Return the first administrator."""
    return SignedIn(node, node.bearer)


async def administrator(
    node: LoopbackNode, name: str, role: Any, *, approver: SignedIn | None = None
) -> SignedIn:
    """Create an administrator, who chooses a password and signs in."""
    request = administrators_pb2.CreateAdministratorRequest(
        request_id=new_id(), name=name, role=role, no_user=True, password=TEMPORARY
    )
    if approver is None:
        await root(node).call(AdministratorServiceStub, "CreateAdministrator", request)
    else:
        await approver.approve(
            await root(node).needs_approval(
                AdministratorServiceStub, "CreateAdministrator", request
            )
        )
    await (await sign_in(node, name, TEMPORARY)).call(
        AdministratorServiceStub,
        "ChangePassword",
        administrators_pb2.ChangePasswordRequest(
            request_id=new_id(), old_password=TEMPORARY, new_password=OWN
        ),
    )
    return await sign_in(node, name, OWN)


async def sign_in(node: LoopbackNode, name: str, password: str = OWN) -> SignedIn:
    """Open a session."""
    async with node.admin() as channel:
        answer = await SessionServiceStub(channel).Login(
            sessions_pb2.LoginRequest(
                request_id=new_id(), administrator=name, password=password
            ),
            timeout=60,
        )
    return SignedIn(node, (("authorization", f"Bearer {answer.session}"),))
