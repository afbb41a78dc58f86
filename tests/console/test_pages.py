# SPDX-License-Identifier: Apache-2.0
"""Every page opens for the roles that may see it, and offers only allowed actions (P1)."""

import uuid

import pytest
from starlette.routing import compile_path

from sparecode_node.console.app import POST_ONLY, VIEWS
from sparecode_node.console.kit.token_menu import ACTIONS, TURN_OFF
from sparecode_node.domain.administrators import Role
from sparecode_node.services.access.authorization import (
    APPROVE_BROWSER_LOGIN,
    REGISTER_PASSKEY,
    permitted,
)
from sparecode_node.services.people.administrators import Link
from tests.console.desk import GATE, SIEM, Desk
from tests.console.estate import Holder
from tests.console.gallery import Exhibition, exhibits, in_parts
from tests.console.paper import Paper
from tests.services.one_node import PASSWORD, ROOT, SERIAL, VPN

pytestmark = pytest.mark.asyncio

OWN = "chosen by herself"

PAGES = {
    "/": "SessionService/WhoAmI",
    "/account": "SessionService/WhoAmI",
    "/account/command-line": APPROVE_BROWSER_LOGIN,
    "/account/passkeys": REGISTER_PASSKEY,
    "/account/password": "AdministratorService/ChangePassword",
    "/account/second-factor": "AdministratorService/EnrollSecondFactor",
    "/administrators": "AdministratorService/ListAdministrators",
    f"/administrators/{ROOT}": "AdministratorService/ListAdministrators",
    "/agents": "AgentService/ListAgents",
    f"/agents/{VPN}": "AgentService/GetAgent",
    "/approvals": "AdministratorService/ListApprovals",
    "/audit": "AuditService/ListAuditEvents",
    "/audit?outcome=applied&start=2023-01-01&end=2030-12-31": (
        "AuditService/ListAuditEvents"
    ),
    "/audit/export?format=csv": "AuditService/ExportAuditEvents",
    "/backups": "ClusterService/GetStatus",
    "/channels": "NoticeService/ListChannels",
    f"/channels/{SIEM}": "NoticeService/UpdateChannel",
    "/cluster": "ClusterService/GetStatus",
    "/cluster/add": "ClusterService/AddMember",
    "/cluster/authorities/n3/keep": "ClusterService/KeepAuthorities",
    "/cluster/authorities/n3/replace": "ClusterService/ReplaceAuthorities",
    "/cluster/members/n3/remove": "ClusterService/RemoveMember",
    "/cluster/members/n3/lead": "ClusterService/TransferPrimary",
    "/cluster/primary": "ClusterService/TransferPrimary",
    "/cluster/review": "ClusterService/GetReview",
    "/cluster/ticket": "ClusterService/CreateJoinTicket",
    "/denied-certificates": "AgentService/ListDeniedCertificates",
    "/find?q=nothing": "UserService/ListUsers",
    "/import/tokens": "TokenService/ImportTokenFile",
    "/import/users": "UserService/ImportUsers",
    "/keys": "ClusterService/GetStatus",
    "/new/administrator": "AdministratorService/CreateAdministrator",
    "/new/agent": "AgentService/RegisterAgent",
    "/new/channel": "NoticeService/CreateChannel",
    "/new/radius-client": "AgentService/RegisterRadiusClient",
    "/new/user": "UserService/CreateUser",
    "/notices": "NoticeService/PreviewNotices",
    "/policy": "PolicyService/GetPolicy",
    f"/agent-keys/{VPN}": "AgentService/CreateAgentKey",
    f"/radius-clients/{GATE}": "AgentService/UpdateRadiusClient",
    f"/radius-secrets/{GATE}": "AgentService/RotateRadiusSecret",
    "/sessions": "SessionService/ListSessions",
    "/tokens": "TokenService/ListTokens",
    "/tokens?state=emergency&kind=totp&q=a": "TokenService/ListTokens",
    f"/tokens/{SERIAL}": "TokenService/GetToken",
    f"/tokens/{SERIAL}/emergency-access": "EmergencyAccessService/GetEmergencyAccess",
    f"/tokens/{SERIAL}/enable": "TokenService/EnableToken",
    f"/tokens/{SERIAL}/disable": "TokenService/DisableToken",
    f"/tokens/{SERIAL}/assign": "TokenService/AssignToken",
    f"/tokens/{SERIAL}/replace": "TokenService/ReplaceToken",
    f"/tokens/{SERIAL}/unassign": "TokenService/UnassignToken",
    f"/tokens/{SERIAL}/set-pin": "TokenService/SetPin",
    f"/tokens/{SERIAL}/clear-pin": "TokenService/ClearPin",
    f"/tokens/{SERIAL}/resynchronize": "TokenService/ResynchronizeToken",
    f"/tokens/{SERIAL}/reinstate": TURN_OFF,
    f"/tokens/{SERIAL}/turn-off-codes": TURN_OFF,
    f"/tokens/{SERIAL}/expiration": "TokenService/UpdateToken",
    f"/tokens/{SERIAL}/delete": "TokenService/DeleteToken",
    "/users": "UserService/ListUsers",
    "/users?state=locked&q=alice": "UserService/ListUsers",
    "/users/alice": "UserService/GetUser",
}
"""Every page, and the method that the role must be permitted to call."""

FOR_SCRIPTS = {
    "/account/passkeys/confirmation",
    "/account/passkeys/options",
    "/notices/letter",
}
"""Not pages: the script or the frame of a page reads them."""

FORMS = (
    (
        "/import/tokens",
        {"action": "preview", "token_file": "serial,seed\n1,GE"},
        "TokenService/ImportTokenFile",
    ),
    (
        "/import/users",
        {"action": "import", "content": "username\neve"},
        "UserService/ImportUsers",
    ),
    *(
        ("/selection", {"action": action, "user": "alice", "sure": "on"}, method)
        for action, method in (
            ("unlock", "UserService/UnlockUser"),
            ("enable", "UserService/UpdateUser"),
            ("disable", "UserService/UpdateUser"),
        )
    ),
    (
        "/issue-codes",
        {"user": "alice", "action": "issue", "count": "1"},
        "EmergencyAccessService/BulkIssueTokencodes",
    ),
    ("/new/user", {"username": "eve"}, "UserService/CreateUser"),
    ("/users/alice", {"action": "unlock"}, "UserService/UnlockUser"),
    ("/users/alice", {"action": "disable"}, "UserService/UpdateUser"),
    ("/users/alice", {"action": "delete"}, "UserService/DeleteUser"),
    ("/users/alice", {"action": "change"}, "UserService/UpdateUser"),
    ("/new/agent", {"name": "e", "identity": "e"}, "AgentService/RegisterAgent"),
    (
        "/new/radius-client",
        {"name": "e", "networks": "192.0.2.9"},
        "AgentService/RegisterRadiusClient",
    ),
    (
        f"/radius-clients/{GATE}",
        {"networks": "192.0.2.9"},
        "AgentService/UpdateRadiusClient",
    ),
    (
        f"/radius-secrets/{GATE}",
        {"overlap_hours": "24"},
        "AgentService/RotateRadiusSecret",
    ),
    (f"/agent-keys/{VPN}", {"overlap_hours": "24"}, "AgentService/CreateAgentKey"),
    (f"/agents/{VPN}", {"action": "disable"}, "AgentService/UpdateAgent"),
    (f"/agents/{VPN}", {"action": "end-keys"}, "AgentService/UpdateAgent"),
    (f"/agents/{VPN}", {"action": "change"}, "AgentService/UpdateAgent"),
    (f"/agents/{VPN}", {"action": "remove"}, "AgentService/RemoveAgent"),
    (
        f"/agents/{VPN}",
        {"action": "admit", "username": "alice"},
        "AgentService/UpdateAgent",
    ),
    (
        "/denied-certificates",
        {"action": "deny", "value": "ab" * 32},
        "AgentService/DenyCertificate",
    ),
    (
        "/denied-certificates",
        {"action": "allow", "value": "ab" * 32},
        "AgentService/AllowCertificate",
    ),
    (
        "/new/administrator",
        {"name": "e", "role": "auditor", "password": OWN, "password_again": OWN},
        "AdministratorService/CreateAdministrator",
    ),
    (
        f"/administrators/{ROOT}",
        {"action": "role", "role": "auditor"},
        "AdministratorService/UpdateAdministrator",
    ),
    (
        f"/administrators/{ROOT}",
        {"action": "remove-second-factor"},
        "AdministratorService/RemoveSecondFactor",
    ),
    (
        f"/administrators/{ROOT}",
        {"action": "remove"},
        "AdministratorService/RemoveAdministrator",
    ),
    (
        "/approvals",
        {"action": "approve", "approval_id": "1"},
        "AdministratorService/Approve",
    ),
    ("/policy", {"action": "save", "version": "1"}, "PolicyService/UpdatePolicy"),
    ("/sessions", {"session_id": "0123456789abcdef"}, "SessionService/EndSession"),
    ("/cluster/review", {"review": "ab" * 32}, "ClusterService/OpenCluster"),
    ("/cluster/primary", {"target": ""}, "ClusterService/TransferPrimary"),
    (
        "/cluster/ticket",
        {"node_id": "n8", "address": "n8:7301"},
        "ClusterService/CreateJoinTicket",
    ),
    (
        "/cluster/add",
        {"node_id": "n7", "address": "n7:7301"},
        "ClusterService/AddMember",
    ),
    ("/cluster/members/n3/remove", {"confirm": "n3"}, "ClusterService/RemoveMember"),
    (
        "/cluster/authorities/n3/keep",
        {"reason": "destroyed"},
        "ClusterService/KeepAuthorities",
    ),
    ("/cluster/authorities/n3/replace", {}, "ClusterService/ReplaceAuthorities"),
    ("/backups", {}, "ClusterService/CreateBackup"),
    (
        "/channels",
        {"action": "test", "channel": "siem"},
        "NoticeService/TestChannel",
    ),
    (
        "/channels",
        {"action": "again", "channel": "siem"},
        "NoticeService/SendNoticesAgain",
    ),
    (
        "/new/channel",
        {"name": "e", "kind": "file"},
        "NoticeService/CreateChannel",
    ),
    (f"/channels/{SIEM}", {"enabled": "on"}, "NoticeService/UpdateChannel"),
    (
        f"/channels/{SIEM}",
        {"action": "remove", "sure": "on"},
        "NoticeService/RemoveChannel",
    ),
    ("/keys", {}, "ClusterService/RotateKeys"),
    (f"/tokens/{SERIAL}/reinstate", {}, TURN_OFF),
    (f"/tokens/{SERIAL}/turn-off-codes", {}, TURN_OFF),
    *(
        (f"/tokens/{SERIAL}/{name}", fields, f"TokenService/{method}")
        for name, fields, method in (
            ("enable", {}, "EnableToken"),
            ("disable", {}, "DisableToken"),
            ("assign", {"username": "alice"}, "AssignToken"),
            ("replace", {"replacement": "777"}, "ReplaceToken"),
            ("unassign", {}, "UnassignToken"),
            ("set-pin", {"pin": "3682", "pin_again": "3682"}, "SetPin"),
            ("clear-pin", {}, "ClearPin"),
            (
                "resynchronize",
                {"first_tokencode": "123456", "second_tokencode": "654321"},
                "ResynchronizeToken",
            ),
            ("expiration", {"lifetime": "never"}, "UpdateToken"),
            ("delete", {}, "DeleteToken"),
        )
    ),
    (
        f"/tokens/{SERIAL}/emergency-access",
        {"action": "generate", "online": "on", "count": "2"},
        "EmergencyAccessService/GenerateTokencodes",
    ),
    (
        f"/tokens/{SERIAL}/emergency-access",
        {"action": "save"},
        "EmergencyAccessService/DisableEmergencyAccess",
    ),
)
"""Every form: its address, its fields, and the method that it calls."""


async def create_administrator(desk: Desk, name: str, role: Role) -> None:
    """Create an administrator, who must change `PASSWORD` at the first sign-in."""
    await desk.node.administrators.create(
        desk.node.admin("AdministratorService/CreateAdministrator"),
        name=name,
        role=role,
        link=Link(""),
        password=PASSWORD,
    )


async def with_role(desk: Desk, role: Role) -> Paper:
    """Return a browser with an administrator of a role, after the password change."""
    if role is Role.SUPER_ADMIN:
        return await desk.administrator()
    await create_administrator(desk, role.value, role)
    browser = await desk.browser()
    page = await browser.sign_in(role.value, PASSWORD)
    assert page.path == "/account/password"
    page = await browser.send(
        "Change password",
        old_password=PASSWORD,
        new_password=OWN,
        new_password_again=OWN,
    )
    assert "Your password is changed. You are signed in" in page.text
    page = await browser.open("/")
    assert page.path == "/", page.text
    return browser


async def test_every_page_is_in_the_list() -> None:
    opened = {path.partition("?")[0] for path in PAGES}
    for path in VIEWS.keys() - POST_ONLY - FOR_SCRIPTS:
        shape = path.partition("{")[0]
        assert any(each == path or each.startswith(shape) for each in opened), path


@pytest.mark.parametrize("role", list(Role))
async def test_a_page_opens_for_the_roles_that_may_see_it(
    desk: Desk, role: Role
) -> None:
    """(P1) Other roles see only that the page is not permitted."""
    browser = await with_role(desk, role)
    for path, method in PAGES.items():
        page = await browser.open(path)
        expected = 200 if permitted(role, method) else 403
        assert page.status == expected, f"{path}: {page.text}"
        if expected == 403:
            assert "Not permitted" in page.text
            assert SERIAL not in page.text


@pytest.mark.parametrize("role", [Role.HELP_DESK, Role.AUDITOR, Role.OPERATOR])
async def test_a_forged_form_is_refused(desk: Desk, role: Role) -> None:
    """(P1) A form that the page did not offer changes nothing."""
    browser = await with_role(desk, role)
    token = (
        (await browser.open("/account")).form("/account/sign-out").value("form_token")
    )
    for path, fields, method in FORMS:
        answer = await browser.client.post(
            path,
            data={**fields, "form_token": token, "request_id": str(uuid.uuid4())},
            headers={"sec-fetch-site": "same-origin"},
        )
        if permitted(role, method):
            assert answer.status_code != 403, f"{path} {fields}"
        else:
            assert answer.status_code == 403, f"{path} {fields}"
            applied = desk.node.primary_db.execute(
                "SELECT count(*) FROM audit_events WHERE outcome = 'applied' "
                "AND action = ? AND actor = ?",
                (method.partition("/")[2], f"administrator:{role.value}"),
            ).fetchone()
            assert applied == (0,), f"{path} {fields}"


OFFERS = {
    Role.SUPER_ADMIN: {
        "/tokens": {"Disable", "Set PIN", "Clear PIN", "Replace With Another Token"},
        "/users/alice": {"Save", "Disable"},
        "/policy": {"Save"},
        "/cluster": {"Add a node", "Make primary", "Remove"},
        "/keys": {"Replace the key"},
        "/agents": {"Register agent", "Register RADIUS client"},
        f"/agents/{GATE}": {"Change settings", "Replace the secret"},
    },
    Role.HELP_DESK: {
        "/tokens": {"Emergency Access Tokencodes", "View", "Clear PIN"},
        "/users/alice": set(),
        "/policy": set(),
    },
    Role.AUDITOR: {
        "/tokens": {"Emergency Access Tokencodes", "View"},
        "/users/alice": set(),
        "/policy": set(),
        "/cluster": set(),
        "/backups": set(),
        "/keys": set(),
        "/agents/" + VPN: set(),
        "/agents/" + GATE: set(),
        "/denied-certificates": set(),
        f"/administrators/{ROOT}": set(),
    },
    Role.OPERATOR: {
        "/cluster": {"Make primary"},
        "/backups": {"Take and download"},
        "/keys": set(),
    },
}
NOT_OFFERED = {
    Role.HELP_DESK: {"Disable", "Set PIN", "Replace With Another Token", "Delete"},
    Role.AUDITOR: {
        "Clear PIN",
        "Disable",
        "Set PIN",
        "Unlock",
        "Deny",
        "Add a node",
        "Make primary",
        "Remove",
        "Remove second factor",
        "Take and download",
        "Replace the key",
        "Change settings",
        "Replace the secret",
        "Register RADIUS client",
    },
    Role.OPERATOR: {
        "SecurID Tokens",
        "Users",
        "Policy",
        "Audit log",
        "Add a node",
        "Remove",
        "Replace the key",
    },
}


@pytest.mark.parametrize("role", list(Role))
async def test_a_page_offers_only_what_the_role_may_do(desk: Desk, role: Role) -> None:
    """(P1) Neither links nor buttons."""
    await desk.node.issue()
    browser = await with_role(desk, role)
    for path, wanted in OFFERS[role].items():
        page = await browser.open(path)
        offered = set(page.links) | page.buttons
        assert wanted <= offered, path
        assert not NOT_OFFERED.get(role, set()) & offered, path


async def test_parts_of_the_gallery_need_no_other_part() -> None:
    """Each can be looked at alone: a page that needs the one before it follows it."""
    alice = Holder("alice", "1")
    every = list(exhibits(Exhibition(alice=alice, bela=alice, carol=alice, spare="3")))
    needy = [exhibit.name for exhibit in every if exhibit.needs_former]
    assert needy == ["emergency-stranding", "emergency-turned-off"]
    for count in range(1, len(every) + 1):
        parts = in_parts(every, count)
        assert [exhibit for part in parts for exhibit in part] == every
        assert not any(part and part[0].needs_former for part in parts)


async def test_every_page_is_in_the_gallery() -> None:
    """A new page must be in the gallery too."""
    alice, spare = Holder("alice", "1"), "3"
    shown = Exhibition(alice=alice, bela=alice, carol=alice, spare=spare)
    hung = {exhibit.path.partition("?")[0] for exhibit in exhibits(shown)}
    patterns = {route: compile_path(route)[0] for route in VIEWS}
    opened = {
        next(route for route, pattern in patterns.items() if pattern.match(path))
        for path in hung
    }
    assert (
        VIEWS.keys() - opened - POST_ONLY == {"/audit/export"} | FOR_SCRIPTS
    )  # It is a file.
    for action in ACTIONS:
        assert any(path.endswith(f"/{action.name}") for path in hung), action.name


async def test_the_menu_fits_the_state_of_the_token(desk: Desk) -> None:
    """The menu has exactly the actions that make sense now."""
    browser = await desk.administrator()
    await browser.open("/tokens")
    assert {
        "Emergency Access Tokencodes",
        "View",
        "Disable",
        "Replace With Another Token",
        "Unassign From User",
        "Set PIN",
        "Clear PIN",
        "Resynchronize",
    } <= browser.page.links.keys()
    links = (await browser.open(f"/tokens/{SERIAL}")).links
    assert {"Disable", "Unassign From User", "Clear PIN", "Set PIN"} <= links.keys()
    assert not {"Enable", "Token Is Back", "Assign to User"} & links.keys()
    await desk.node.issue()
    assert "Token Is Back" in (await browser.open(f"/tokens/{SERIAL}")).links
    node = desk.node
    await node.enroll("777")
    links = (await browser.open("/tokens/777")).links
    assert "Assign to User" in links
    assert not {"Unassign From User", "Set PIN", "Clear PIN"} & links.keys()
