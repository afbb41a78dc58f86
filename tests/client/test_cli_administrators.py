# SPDX-License-Identifier: Apache-2.0
"""`sparecode admins`: output and requests."""

from pathlib import Path

import grpc
import pytest

from sparecode.v1 import administrators_pb2 as pb
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

SERVICE = "AdministratorService"
Code = grpc.StatusCode


@pytest.fixture
def admins(cli: Cli) -> Cli:
    for name in (
        "CreateAdministrator",
        "UpdateAdministrator",
        "RemoveAdministrator",
        "ChangePassword",
    ):
        answer = getattr(pb, f"{name}Response")(commit=answers.COMMIT)
        cli.node.answer(f"{SERVICE}/{name}", answer)
    cli.node.answer(f"{SERVICE}/ListAdministrators", answers.ADMINISTRATORS)
    return cli


def test_administrators_as_a_table(admins: Cli) -> None:
    lines = admins("admins", "list").stdout.splitlines()

    assert [line.split() for line in lines] == [
        ["Name", "Role", "User", "Second", "factor", "State"],
        ["dora", "help-desk", "Dora", "-", "temporary", "password"],
        ["eve", "auditor", "-", "-", "disabled"],
        ["root", "super-admin", "-", "set", "enabled"],
    ]


def test_administrators_as_json(admins: Cli) -> None:
    answer = admins.json("admins", "list")

    assert answer["complete"] is True
    assert answer["administrators"][0] == {
        "name": "dora",
        "role": "help_desk",
        "enabled": True,
        "username": "Dora",
        "password_temporary": True,
        "second_factor": False,
    }


@pytest.mark.parametrize(
    ("options", "link"),
    [(["--user", "dora"], {"username": "dora"}), (["--no-user"], {"no_user": True})],
)
def test_an_administrator_is_added(
    admins: Cli, options: list[str], link: dict[str, object]
) -> None:
    """(I10) --user or --no-user is required; the password is typed twice."""
    result = admins(
        *("admins", "create", "dora", "--role", "help-desk", *options),
        text="a temporary one\na temporary one\n",
    )

    assert "Administrator dora added (node n2, log index 1042)." in result.stdout
    assert "a temporary one" not in result.output
    (request,) = admins.node.requests(f"{SERVICE}/CreateAdministrator")
    assert request == pb.CreateAdministratorRequest(
        request_id=request.request_id,
        name="dora",
        role=pb.ADMINISTRATOR_ROLE_HELP_DESK,
        password="a temporary one",
        **link,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "dora", "--role", "help-desk"],
        ["create", "dora", "--role", "help-desk", "--user", "dora", "--no-user"],
        ["create", "dora", "--role", "king", "--no-user"],
        ["update", "dora"],
        ["update", "dora", "--user", "dora", "--no-user"],
    ],
)
def test_wrong_usage_calls_no_node(admins: Cli, arguments: list[str]) -> None:
    assert admins("admins", *arguments).exit_code == 2
    assert not admins.node.calls


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--role", "auditor"], {"role": pb.ADMINISTRATOR_ROLE_AUDITOR}),
        (["--disable"], {"enabled": False}),
        (["--enable"], {"enabled": True}),
        (["--no-user"], {"no_user": True}),
        (["--user", "Dora"], {"username": "Dora"}),
    ],
)
def test_given_options_are_sent(
    admins: Cli, options: list[str], fields: dict[str, object]
) -> None:
    answer = admins.json("admins", "update", "dora", *options)

    assert answer == {"name": "dora", "node_id": "n2", "index": 1042}
    (request,) = admins.node.requests(f"{SERVICE}/UpdateAdministrator")
    assert request == pb.UpdateAdministratorRequest(
        request_id=request.request_id, name="dora", **fields
    )


def test_an_administrator_is_removed(admins: Cli) -> None:
    assert "dora removed" in admins("admins", "remove", "dora").stdout
    (request,) = admins.node.requests(f"{SERVICE}/RemoveAdministrator")
    assert request.name == "dora"


def test_changing_your_own_password_ends_the_session(admins: Cli) -> None:
    """(P2) The next command asks to sign in without calling a node."""
    result = admins(
        *("admins", "change-password"), text="the old one\nthe new one\nthe new one\n"
    )

    assert "sign in again" in result.stdout
    (request,) = admins.node.requests(f"{SERVICE}/ChangePassword")
    assert (request.name, request.old_password, request.new_password) == (
        "",
        "the old one",
        "the new one",
    )
    assert not admins.session_file.exists()
    assert admins("admins", "list").exit_code == 4


def test_passwords_come_from_files(admins: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("the old one\n")
    new.write_text("the new one\n")

    admins(
        *("admins", "change-password", "--old-password-file", str(old)),
        *("--new-password-file", str(new)),
    )

    (request,) = admins.node.requests(f"{SERVICE}/ChangePassword")
    assert (request.old_password, request.new_password) == (
        "the old one",
        "the new one",
    )


def test_another_administrator_gets_a_temporary_password(admins: Cli) -> None:
    result = admins(
        *("admins", "change-password", "dora"), text="for a day\nfor a day\n"
    )

    assert "dora has a temporary password" in result.stdout
    (request,) = admins.node.requests(f"{SERVICE}/ChangePassword")
    assert (request.name, request.old_password) == ("dora", "")
    assert admins.session_file.exists()


def test_a_refusal_names_the_next_step(admins: Cli) -> None:
    admins.node.answer(
        f"{SERVICE}/ListAdministrators",
        Failure(
            Code.PERMISSION_DENIED,
            "PASSWORD_CHANGE_NEEDED",
            "the password is temporary",
        ),
    )

    result = admins("admins", "list")

    assert result.exit_code == 4
    assert "sparecode admins change-password" in result.stderr
