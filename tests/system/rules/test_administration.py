# SPDX-License-Identifier: Apache-2.0
"""Administrators, sessions, audit and keys (P, U), over three nodes."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sparecode_client import (
    AdministratorRole,
    AsyncAdmin,
    NotPermitted,
    NotSignedIn,
    SparecodeError,
)
from sparecode_client.audit.checkpoints import read_public_keys
from sparecode_client.audit.verification import verify
from tests.system.estate import PIN
from tests.system.rules.stage import OWN, TEMPORARY, Stage

RESET_DELAY_S = 3600
"""A requested reset of an administrator is announced for this long."""

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

MAY: dict[AdministratorRole, set[str]] = {
    AdministratorRole.HELP_DESK: {"list_users", "issue", "unlock", "clear_pin"},
    AdministratorRole.AUDITOR: {"list_users", "audit"},
    AdministratorRole.OPERATOR: {"status_of_all"},
}


@pytest.mark.parametrize("role", list(MAY))
async def test_a_role_may_do_the_same_at_every_node(
    stage: Stage, role: AdministratorRole
) -> None:
    """(P1) What its column says at each of three nodes, and nothing else at any."""
    person, other_person = await stage.person(), await stage.person()
    policy = await stage.admins[0].get_policy()

    async def outcome(admin: AsyncAdmin, what: str) -> str:
        calls = {
            "list_users": admin.list_users,
            # Not for the user who is unlocked: with codes, that needs an approval (I10).
            "issue": lambda: admin.issue_tokencodes(other_person.serial, count=1),
            "unlock": lambda: admin.unlock_user(person.name),
            "audit": lambda: admin.list_audit_events(page_size=1),
            "status_of_all": admin.list_members,
            "policy": lambda: admin.update_policy(policy),
            "create_user": lambda: admin.create_user("never-there"),
            "set_pin": lambda: admin.set_pin(person.serial, "3682"),
            "clear_pin": lambda: admin.clear_pin(person.serial),
        }
        try:
            await calls[what]()
        except NotPermitted as refused:
            return refused.reason
        return "done"

    wanted = ["list_users", "issue", "unlock", "audit", "policy", "create_user"]
    wanted += ["set_pin", "clear_pin", "status_of_all"]
    name = f"role-{role.value.replace('_', '-')}"
    async with stage.administrator(name, role) as own:
        for what in wanted:
            if what == "status_of_all" and role is AdministratorRole.AUDITOR:
                continue  # Reads all: the cluster too.
            expected = "done" if what in MAY[role] else "ROLE"
            nodes = own if what != "clear_pin" else own[:1]
            results = [await outcome(admin, what) for admin in nodes]
            assert results == [expected] * len(nodes), what
        # Another role, said at one node, ends what the old one has opened elsewhere.
        (other, *_) = set(MAY) - {role}
        await stage.admins[0].update_administrator(name, role=other)
        for admin in own:
            with pytest.raises(NotSignedIn):
                await admin.list_users()


async def test_a_session_lives_and_dies_on_every_node(stage: Stage) -> None:
    """(P2) Opened at node 3, ended at node 1, dead at node 2; by time and removal too."""
    async with stage.administrator("visitor", AdministratorRole.AUDITOR) as own:
        for admin in own:
            assert (await admin.who_am_i()).administrator == "visitor"
        bearer = own[0]._client.session
        await own[0].logout()
        for admin in own:
            admin._client.session = bearer
            with pytest.raises(NotSignedIn):
                await admin.who_am_i()
            with pytest.raises(NotSignedIn):
                await admin.list_users()
        for end in ("everywhere", "password", "time", "removal"):
            session = await own[2].login("visitor", OWN)
            for admin in own:
                admin._client.session = session.session
                await admin.list_users()
            match end:
                case "everywhere":
                    await own[1].logout_everywhere()
                case "password":
                    await own[1].change_password(OWN, old_password=OWN)
                case "time":
                    await stage.later(12 * 3600 + 1)
                case "removal":
                    await stage.admins[0].remove_administrator("visitor")
            for admin in own:
                admin._client.session = session.session
                with pytest.raises(NotSignedIn):
                    await admin.list_users()
        # What `administrator` removes in the end.
        await stage.admins[1].create_administrator(
            "visitor", AdministratorRole.AUDITOR, TEMPORARY, username=None
        )


async def test_who_is_root_on_a_node_gives_a_password_for_one_sign_in(
    stage: Stage, tmp_path: Path
) -> None:
    """
    (P4) No cluster begins twice; a temporary password is changed first, at every node.

    Root resets a lost password at node 2. It is announced at node 3, and in force after
    an hour; at node 1 and 3 nothing else can be done with it than to change it.
    """
    node = stage.cluster.nodes[1]
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(TEMPORARY)

    def as_root(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "sparecode_node"),
                *("--config", node.config, *arguments),
            ],
            env=node.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    again = as_root("init", "--administrator=other", f"--password-file={file}")
    assert again.returncode != 0
    async with stage.administrator("forgetful", AdministratorRole.AUDITOR) as own:
        done = as_root("reset-administrator", "forgetful", f"--password-file={file}")
        assert done.returncode == 0, done.stderr
        (reset,) = (await stage.admins[2].get_status()).pending_resets
        assert (reset.administrator, reset.node_id) == ("forgetful", node.node_id)
        await own[0].list_users()
        await stage.later(RESET_DELAY_S)
        session = await own[0].login("forgetful", TEMPORARY)
        with pytest.raises(NotSignedIn):
            await own[1].list_users()  # Its sessions are gone, too.
        for admin in own:
            admin._client.session = session.session
            with pytest.raises(NotPermitted) as refused:
                await admin.list_users()
            assert refused.value.reason == "PASSWORD_CHANGE_NEEDED"
        await own[2].change_password(OWN, old_password=TEMPORARY)
        await own[0].login("forgetful", OWN)
        await own[0].list_users()
        for at in range(3):
            (event,) = await stage.events(at, action="ResetAdministrator")
            assert event.node_id == node.node_id
            (event,) = await stage.events(at, action="RESET_IN_FORCE")
            assert event.target == "forgetful"


async def test_every_node_has_written_down_the_same(
    stage: Stage, tmp_path: Path
) -> None:
    """
    (U1, U2) Each step at another node: one chain, proved offline against a checkpoint.

    Exports of three nodes are one text; a checkpoint that node 1 has signed proves
    the export of node 3, and finds an edit in it.
    """
    person = await stage.person()
    codes = await stage.issued(person, at=1, count=2)
    assert await stage.accepts(2, person, PIN + codes[0])
    assert not await stage.accepts(0, person, "9999" + codes[1])
    with suppress(SparecodeError):
        await stage.admins[1].unassign_token("nobody-has-it")
    checkpoint = await stage.admins[0].get_checkpoint()
    exports = []
    for admin in stage.admins:
        pieces: list[bytes] = []
        await admin.export_audit_events(pieces.append)
        lines = b"".join(pieces).splitlines(keepends=True)
        exports.append(b"".join(lines[: checkpoint.sequence]))
    assert exports == [exports[0]] * 3
    events = [json.loads(line) for line in exports[0].splitlines()]
    reports = [
        (event["node"], event["action"], event["outcome"], event["reason"])
        for event in events
        if event["target"] in (person.name, person.serial)
    ]
    assert ("n2", "SaveEmergencyAccess", "applied", "") in reports
    assert ("n3", "Authenticate", "accepted", "") in reports
    assert ("n1", "Authenticate", "refused", "wrong_pin") in reports
    trusted = read_public_keys(stage.cluster.certificates / "audit.pem")
    assert checkpoint.public_key in trusted
    file = tmp_path / "export.jsonl"
    file.write_bytes(exports[2])
    verdict = verify(file, [checkpoint])
    assert (verdict.problem, verdict.proved_up_to) == (None, checkpoint.sequence)
    cut = b"".join(exports[2].splitlines(keepends=True)[:-2])
    for wrong in (exports[2].replace(b"wrong_pin", b"wrong_pun"), cut):
        file.write_bytes(wrong)
        assert verify(file, [checkpoint]).problem is not None
