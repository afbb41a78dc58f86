# SPDX-License-Identifier: Apache-2.0
"""No command lets administrators act for themselves; its fields tell (I10)."""

from dataclasses import fields, replace
from typing import Any

import pytest

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.admission import NOT_ABOUT_USERS
from sparecode_node.statemachine.commands.permissions import PERMISSIONS
from sparecode_node.statemachine.tables import administrators as administrator_tables
from tests.replication.test_codec import example
from tests.statemachine.world import World

NAMES = {"serial": "1001", "replacement": "1001", "name_key": "dora"}
ABOUT_USERS = {
    command: set(NAMES) & {field.name for field in fields(command)}
    for command in PERMISSIONS
    if command not in NOT_ABOUT_USERS
}


@pytest.fixture
def world() -> World:
    """Give root a user: Dora, who has a token."""
    world = World()
    world.begin()
    for directive, arguments in (
        ("create-user", {"name": "dora"}),
        ("enroll", {"serial": "1001"}),
        ("assign", {"serial": "1001", "user": "dora"}),
        ("update-admin", {"name": "root", "user": "dora"}),
    ):
        result = world.apply(world.call(directive, arguments))
        assert not isinstance(result, Rejected)
    return world


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (command, name)
        for command, names in ABOUT_USERS.items()
        for name in sorted(names)
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_administrators_may_not_act_for_themselves(
    world: World, command: type[Any], field: str
) -> None:
    """(I10) By the user's name or the token's serial. Acting for others is allowed."""
    call = world.call("sign-out", {})
    about = replace(example(command, command.__name__), **{field: NAMES[field]})
    digest = world.db.execute("SELECT * FROM tokens, users").fetchall()

    refused = world.apply(replace(call, command=about))

    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.SELF_SERVICE_FORBIDDEN
    assert world.db.execute("SELECT * FROM tokens, users").fetchall() == digest
    root = administrator_tables.find_administrator(world.db, AdministratorName("root"))
    assert root is not None
    administrator_tables.save_administrator(world.db, replace(root, user_id=None))
    again = replace(call.request, request_id="another")
    other = world.apply(replace(call, command=about, request=again))
    assert getattr(other, "reason", None) is not Reason.SELF_SERVICE_FORBIDDEN


def test_commands_about_users_are_listed() -> None:
    """Checks the list: other commands have no field for a user or a token."""
    assert {
        command.__name__ for command, names in ABOUT_USERS.items() if not names
    } == {
        "CloseSession",
        "Reauthenticate",
        "EndSession",
        "UpdatePolicy",
        "CreateAdministrator",
        "UpdateAdministrator",
        "RemoveAdministrator",
        "ChangePassword",
        "DenyCertificate",
        "AllowCertificate",
        "TransferPrimary",
        "OpenCluster",
        "ActivateKey",
        "SetSecondFactor",
        "RemoveSecondFactor",
        "RegisterPasskey",
        "RemovePasskey",
        "ApproveBrowserLogin",
        "RefuseBrowserLogin",
        "CancelReset",
        "CreateBackup",
        "CreateJoinTicket",
        "AddMember",
        "RemoveMember",
        "KeepAuthorities",
        "ReplaceAuthorities",
        "FinishAuthorities",
        "DeclareSegmentsLost",
        "PrepareMove",
        "FreezeUsers",
        "ExportMovedUsers",
        "ImportMovedUsers",
        "ActivateMove",
        "CancelMove",
        "EndMove",
        "ReclaimMove",
        "DeleteMovedUsers",
        "ConfirmArchive",
        "WithdrawArchive",
        "RequestBulkIssue",  # Its rows are.
        "Approve",  # Apply checks its tokens.
        "Reject",
        "SaveChannel",
        "RemoveChannel",
        "SendNoticesAgain",
    }
