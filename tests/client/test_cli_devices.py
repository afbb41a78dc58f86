# SPDX-License-Identifier: Apache-2.0
"""The device cookie between sign-ins: kept beside the session, sent to its cluster alone."""

import stat

import pytest

from sparecode.v1 import administrators_pb2, sessions_pb2
from tests.client import answers
from tests.client.conftest import Cli, Pki

LOGIN = "SessionService/Login"


@pytest.fixture
def known(stranger: Cli) -> Cli:
    """Return a profile from which root has signed in."""
    stranger.node.answer(LOGIN, *(_signed_in(f"cookie-{n}") for n in range(3)))
    assert stranger("login", "root", text="correct horse\n").exit_code == 0
    return stranger


def _signed_in(cookie: str) -> sessions_pb2.LoginResponse:
    answer = sessions_pb2.LoginResponse()
    answer.CopyFrom(answers.LOGIN)
    answer.device_cookie = cookie
    return answer


def sent(cli: Cli) -> list[str]:
    """Return the device cookies of all sign-ins."""
    return [each.device_cookie for each in cli.node.requests(LOGIN)]


def test_each_sign_in_sends_the_cookie_of_the_one_before(known: Cli) -> None:
    """Also after signing out, and however the name is typed."""
    known.node.answer("SessionService/Logout", sessions_pb2.LogoutResponse())
    assert known("logout").exit_code == 0
    assert known("login", "ROOT", text="correct horse\n").exit_code == 0
    assert known("login", "root", text="correct horse\n").exit_code == 0
    assert sent(known) == ["", "cookie-0", "cookie-1"]


def test_the_cookie_is_private(known: Cli) -> None:
    file = known.session_file.with_name("session.devices.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "cookie-0" in file.read_text()
    result = known("login", "root", "--output", "json", text="correct horse\n")
    assert "cookie" not in result.stdout
    file.chmod(0o644)
    result = known("login", "root", text="correct horse\n")
    assert "can be read by other users" in result.stderr


def test_another_administrator_sends_no_cookie(known: Cli) -> None:
    known("login", "dora", text="correct horse\n")
    assert sent(known) == ["", ""]


def test_another_cluster_gets_no_cookie(known: Cli, pki: Pki) -> None:
    """Its node cannot be reached with that CA; the cookie is not even read."""
    elsewhere = ("--timeout", "1", "--ca", str(pki.foreign_ca))
    known(*elsewhere, "login", "root", text="correct horse\n")
    assert sent(known) == [""]


def test_a_changed_password_renews_the_cookie(known: Cli) -> None:
    known.node.answer(
        "AdministratorService/ChangePassword",
        administrators_pb2.ChangePasswordResponse(device_cookie="renewed"),
    )
    changed = known(
        "admins", "change-password", text="correct horse\na new one\na new one\n"
    )
    assert changed.exit_code == 0, changed.output
    known("login", "root", text="a new one\n")
    assert sent(known) == ["", "renewed"]
