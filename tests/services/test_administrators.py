# SPDX-License-Identifier: Apache-2.0
"""Administrators are created, changed, removed and signed out."""

import dataclasses
import uuid

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.administrators import AdministratorView
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.people.administrators import Link
from tests.services.one_node import PASSWORD, OneNode

pytestmark = pytest.mark.asyncio

TEMPORARY, OWN = "a temporary password", "a password of my own"


async def create(
    node: OneNode, name: str = "dora", request_id: str = "", **wanted: object
) -> None:
    arguments = {
        "role": Role.HELP_DESK,
        "link": Link(""),
        "password": TEMPORARY,
        **wanted,
    }
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator", request_id),
        name=name,
        **arguments,
    )


async def change(
    node: OneNode,
    new: str = OWN,
    *,
    old: str = "",
    name: str = "",
    request_id: str = "",
) -> None:
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword", request_id),
        name=name,
        old_password=old,
        new_password=new,
    )


async def update(node: OneNode, name: str = "dora", **wanted: object) -> None:
    await node.administrators.update(
        node.admin("AdministratorService/UpdateAdministrator"), name=name, **wanted
    )


async def listed(node: OneNode, **paging: object) -> list[AdministratorView]:
    context = node.admin("AdministratorService/ListAdministrators")
    read = await node.administrators.list(
        dataclasses.replace(context, request_id=""), **paging
    )
    return list(read.value.items)


async def sign_in(node: OneNode, password: str = OWN, name: str = "dora") -> str:
    """Sign another administrator in; return the session, restore the previous one."""
    mine = node.bearer
    await node.login(name=name, password=password)
    theirs, node.bearer = node.bearer, mine
    return theirs


async def alive(node: OneNode, bearer: str) -> bool:
    mine, node.bearer = node.bearer, bearer
    try:
        await node.sessions.who_am_i(node.admin("SessionService/WhoAmI"))
    except NotSignedInError:
        return False
    finally:
        node.bearer = mine
    return True


async def settled(node: OneNode, role: Role = Role.HELP_DESK) -> str:
    """Return the session of a second administrator who has set her own password."""
    await create(node, role=role)
    mine, node.bearer = node.bearer, await sign_in(node, TEMPORARY)
    await change(node, old=TEMPORARY)
    node.bearer = mine
    return await sign_in(node)


async def test_administrators_are_listed_by_name_with_their_users(
    node: OneNode,
) -> None:
    await node.add_user("Alice")
    await create(node, "\uff24ora", link=Link("ALICE"), role=Role.AUDITOR)
    dora = AdministratorView(
        name="dora",
        role=Role.AUDITOR,
        enabled=True,
        username="Alice",
        temporary=True,
    )
    root = AdministratorView(
        name="root",
        role=Role.SUPER_ADMIN,
        enabled=True,
        username="",
        temporary=False,
    )
    assert await listed(node) == [dora, root]
    assert await listed(node, page_size=1) == [dora]


async def test_a_retry_makes_no_second_one(node: OneNode) -> None:
    """(Q1) Although the retry drew another salt."""
    request_id = str(uuid.uuid4())
    await create(node, request_id=request_id)
    await create(node, request_id=request_id)
    with pytest.raises(Refused) as raised:
        await create(node, request_id=request_id, password="another password")
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED
    with pytest.raises(Refused) as raised:
        await create(node)
    assert raised.value.rejected.reason is Reason.ADMINISTRATOR_EXISTS


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"password": "elevenchars"}, "password"),
        ({"link": Link("x" * 129)}, "username"),
    ],
)
async def test_fields_have_bounds(
    node: OneNode, wanted: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await create(node, **wanted)
    assert raised.value.field == field


async def test_a_temporary_password_is_changed_first(node: OneNode) -> None:
    """(P4) The new password works, and the temporary one does not any more."""
    await create(node)
    node.bearer = temporary = await sign_in(node, TEMPORARY)
    with pytest.raises(Refused) as raised:
        await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert raised.value.rejected.reason is Reason.PASSWORD_CHANGE_NEEDED
    await change(node, old=TEMPORARY)
    assert not await alive(node, temporary)
    with pytest.raises(Refused):
        await sign_in(node, TEMPORARY)
    node.clock.pass_s(60)
    assert await alive(node, await sign_in(node))


async def test_changing_the_own_password_needs_the_old_one(node: OneNode) -> None:
    """(L7) A wrong one makes the caller wait, as at sign-in."""
    with pytest.raises(InvalidFieldError, match="old_password"):
        await change(node)
    with pytest.raises(Refused) as raised:
        await change(node, old="not the old password", name="ROOT")
    assert raised.value.rejected.reason is Reason.WRONG_PASSWORD
    with pytest.raises(Refused) as raised:
        await change(node, old=PASSWORD)
    assert raised.value.rejected.reason is Reason.LOCKED
    node.clock.pass_s(1)
    await change(node, old=PASSWORD)
    await node.login(password=OWN)


async def test_a_super_administrator_gives_others_a_temporary_one(
    node: OneNode,
) -> None:
    """(P2) The sessions of the other administrator end; the caller's do not."""
    session = await settled(node)
    await change(node, TEMPORARY, name="dora")
    assert not await alive(node, session)
    assert await alive(node, node.bearer)
    assert [each.temporary for each in await listed(node)] == [True, False]
    node.bearer = await sign_in(node, TEMPORARY)
    with pytest.raises(NotPermittedError):
        await change(node, name="root")


@pytest.mark.parametrize("what", ["role", "disabled", "removed", "password"])
async def test_sessions_end_on_every_node_with_the_commit(
    node: OneNode, what: str
) -> None:
    """(P2) Also where the called node has not applied it yet."""
    session = await settled(node)
    node.replicator.lags = True
    match what:
        case "role":
            await update(node, role=Role.SUPER_ADMIN)
        case "disabled":
            await update(node, enabled=False)
        case "removed":
            await node.administrators.remove(
                node.admin("AdministratorService/RemoveAdministrator"), name="Dora"
            )
        case "password":
            await change(node, TEMPORARY, name="dora")
    node.bearer = session
    with pytest.raises(NotSignedInError):
        await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")


async def test_a_link_alone_ends_no_session(node: OneNode) -> None:
    session = await settled(node)
    await node.add_user("alice")
    await update(node, link=Link("alice"))
    assert await alive(node, session)


async def test_administrators_may_not_act_on_their_own_user_or_tokens(
    node: OneNode,
) -> None:
    """(I10) On any node; the link to a user takes effect at once."""
    await node.add_user("alice")
    session = await settled(node, Role.SUPER_ADMIN)
    with pytest.raises(ApprovalNeededError) as needed:
        await update(node, link=Link("alice"))
    root, node.bearer = node.bearer, session
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"),
        approval_id=needed.value.approval_id,
    )
    with pytest.raises(Refused) as raised:
        await node.issue()
    assert raised.value.rejected.reason is Reason.SELF_SERVICE_FORBIDDEN
    with pytest.raises(Refused) as raised:
        await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")
    assert raised.value.rejected.reason is Reason.SELF_SERVICE_FORBIDDEN
    node.bearer = root
    with pytest.raises(ApprovalNeededError):  # Allowed, but root has seen the seed.
        await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")


async def test_two_administrators_cannot_remove_each_other(node: OneNode) -> None:
    """(P1) One who can create others always stays, whatever policy says."""
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"second_approver": False},
    )
    session = await settled(node, Role.SUPER_ADMIN)
    await node.administrators.remove(
        node.admin("AdministratorService/RemoveAdministrator"), name="dora"
    )
    node.bearer, root = session, node.bearer
    with pytest.raises(NotSignedInError):
        await node.administrators.remove(
            node.admin("AdministratorService/RemoveAdministrator"), name="root"
        )
    node.bearer = root
    with pytest.raises(Refused) as raised:
        await update(node, "root", enabled=False)
    assert raised.value.rejected.reason is Reason.LAST_SUPER_ADMIN


async def test_no_password_is_in_the_log_or_the_state(node: OneNode) -> None:
    """(T3) Neither as typed nor normalized, in any entry or row."""
    await settled(node)
    everything = b"".join(node.replicator.entries)
    everything += "\n".join(node.primary_db.iterdump()).encode()
    for password in (TEMPORARY, OWN, PASSWORD):
        assert password.encode() not in everything
        assert password.encode().hex().encode() not in everything.lower()
