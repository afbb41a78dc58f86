# SPDX-License-Identifier: Apache-2.0
"""`sparecode login --browser`: the code on the screen, the wait, and its end (P9)."""

import csv
import json
import os
import signal
import subprocess
import sys
import webbrowser
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import sessions_pb2
from sparecode_client.cli.commands import browser_login
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import NO_QUORUM, OUTCOME_UNKNOWN, Failure

START, COLLECT = (
    "SessionService/StartBrowserLogin",
    "SessionService/CollectBrowserLogin",
)
PAGE = "https://console.example.com:7302/account/command-line"
STARTED = sessions_pb2.StartBrowserLoginResponse(
    device_code="device-code",
    user_code="WDJB-MJHT",
    verification_uri=PAGE,
    end_time=answers.at(answers.END),
    interval=answers.lasting(timedelta(seconds=5)),
)
WAITING = sessions_pb2.CollectBrowserLoginResponse()
APPROVED = sessions_pb2.CollectBrowserLoginResponse(
    session="bearer-of-root",
    end_time=answers.at(answers.END),
    role="SUPER_ADMIN",
    device_cookie="cookie",
)
TOO_FAST = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE", "too many calls")


@pytest.fixture(name="naps")
def _naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the waits between two polls take no time; return them."""
    naps: list[float] = []
    monkeypatch.setattr(browser_login, "sleep", naps.append)
    return naps


def test_login_shows_the_code_and_waits(stranger: Cli, naps: list[float]) -> None:
    """The page and the code fit a terminal of 80 columns, and stdout has no secret."""
    stranger.node.answer(START, STARTED)
    stranger.node.answer(COLLECT, WAITING, WAITING, APPROVED)
    result = stranger("login", "--browser", "root")
    assert result.exit_code == 0, result.stderr
    assert f"  {PAGE}\n" in result.stdout
    assert "  WDJB-MJHT\n" in result.stdout
    assert "Signed in as root (super-admin) until 2026-12-01 12:00 UTC" in result.stdout
    shown = result.output.partition("The session is stored")[0]
    assert max(map(len, shown.splitlines())) <= 80
    for secret in ("device-code", "bearer-of-root", "cookie"):
        assert secret not in result.output
    assert naps == [5, 5, 5]
    (request,) = stranger.node.requests(START)
    assert request.administrator == "root"
    assert 0 < len(request.client_name) <= browser_login.CLIENT_NAME_MAX
    polls = stranger.node.requests(COLLECT)
    assert {each.device_code for each in polls} == {"device-code"}
    assert len({each.request_id for each in polls}) == 3
    # The session and the device cookie are kept, as after a password.
    stranger.node.answer("SessionService/WhoAmI", answers.WHO)
    assert stranger("whoami").exit_code == 0
    assert stranger("login", "--browser", "root").exit_code == 0
    assert stranger.node.requests(START)[-1].device_cookie == "cookie"


@pytest.mark.parametrize("form", ["json", "csv"])
def test_programs_get_the_code_on_stderr(
    stranger: Cli, naps: list[float], form: str
) -> None:
    """Stdout has the session alone, in the requested form."""
    stranger.node.answer(START, STARTED)
    stranger.node.answer(COLLECT, APPROVED)
    result = stranger("login", "--browser", "root", "--output", form)
    assert json.loads(result.stderr) == {
        "administrator": "root",
        "user_code": "WDJB-MJHT",
        "page": PAGE,
        "end_time": "2026-12-01T12:00:00Z",
        "interval": 5.0,
    }
    session = {
        "administrator": "root",
        "role": "SUPER_ADMIN",
        "end_time": "2026-12-01T12:00:00Z",
    }
    if form == "json":
        assert json.loads(result.stdout) == session
    else:
        assert list(csv.DictReader(result.stdout.splitlines())) == [session]
    assert naps == [5]


def test_the_browser_is_opened_only_if_asked(
    stranger: Cli, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_page(page: str) -> bool:
        opened.append(page)
        return False

    monkeypatch.setattr(webbrowser, "open", open_page)
    stranger.node.answer(START, STARTED)
    stranger.node.answer(COLLECT, APPROVED)
    assert stranger("login", "--browser", "root").exit_code == 0
    assert opened == []
    result = stranger("login", "--browser", "--open", "root")
    assert result.exit_code == 0
    assert opened == [PAGE]
    assert "No browser could be opened here." in result.stderr
    assert naps


def test_a_node_without_the_address_of_a_console(
    stranger: Cli, naps: list[float]
) -> None:
    started = sessions_pb2.StartBrowserLoginResponse()
    started.CopyFrom(STARTED)
    started.verification_uri = ""
    stranger.node.answer(START, started)
    stranger.node.answer(COLLECT, APPROVED)
    result = stranger("login", "--browser", "root")
    assert "  the Security Console, Your account > Command line\n" in result.stdout
    assert naps


def test_polls_slow_down(
    stranger: Cli, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """(RFC 8628, 3.5) After `slow_down`, while no node answers, and if one is too late."""
    stranger.node.answer(START, STARTED)
    stranger.node.answer(COLLECT, TOO_FAST)
    refused = [TOO_FAST, NO_QUORUM, OUTCOME_UNKNOWN]

    def nap(seconds: float) -> None:
        naps.append(seconds)
        stranger.node.answer(COLLECT, *(refused[:1] or [APPROVED]))
        del refused[:1]

    monkeypatch.setattr(browser_login, "sleep", nap)
    result = stranger("--timeout", "5", "login", "--browser", "root")
    assert result.exit_code == 0, result.stderr
    assert naps == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("failure", "code", "advice"),
    [
        (
            Failure(
                grpc.StatusCode.PERMISSION_DENIED,
                "BROWSER_LOGIN_REFUSED",
                "the sign-in was refused",
            ),
            4,
            "If it was not you, change your password.",
        ),
        (
            Failure(
                grpc.StatusCode.UNAUTHENTICATED,
                "BROWSER_LOGIN_UNKNOWN",
                "this sign-in has ended",
            ),
            4,
            "Start again: sparecode login --browser NAME",
        ),
    ],
)
def test_the_end_without_a_session(
    stranger: Cli, naps: list[float], failure: Failure, code: int, advice: str
) -> None:
    stranger.node.answer(START, STARTED)
    stranger.node.answer(COLLECT, failure)
    result = stranger("login", "--browser", "root")
    assert result.exit_code == code
    assert advice in result.stderr
    assert not stranger.session_file.exists()
    assert naps == [5]


def test_a_password_with_passkeys_points_to_the_browser(stranger: Cli) -> None:
    """(P8, P9) Under a policy that requires passkeys there is no other way."""
    stranger.node.answer(
        "SessionService/Login",
        Failure(
            grpc.StatusCode.UNAUTHENTICATED, "PASSKEY_NEEDED", "a passkey is needed"
        ),
    )
    result = stranger("login", "root", text="correct horse\n")
    assert result.exit_code == 4
    assert "sparecode login --browser NAME" in result.stderr


@pytest.mark.parametrize(
    "options",
    [("--browser", "--code", "1"), ("--browser", "--password-file", "-"), ("--open",)],
)
def test_options_that_do_not_go_together(
    stranger: Cli, options: tuple[str, ...]
) -> None:
    result = stranger("login", "root", *options)
    assert result.exit_code == 2
    assert "--browser" in result.stderr
    assert stranger.node.calls == []


def test_interrupting_it_is_clean(stranger: Cli, tmp_path: Path) -> None:
    """Ctrl-C leaves no session and no traceback."""
    stranger.node.answer(START, STARTED)
    command = Path(sys.executable).with_name("sparecode")
    # A child ignores the signal if its parent does, as in a shell's background job.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [command, "login", "--browser", "root"],
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "SPARECODE_NODES": stranger.node.address,
            "SPARECODE_CA": str(stranger.ca),
            "SPARECODE_SESSION_FILE": str(tmp_path / "session.json"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stderr is not None
        assert "Press Ctrl-C to stop" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert "WDJB-MJHT" in output
    assert "Not signed in: approving the code does nothing now." in errors
    assert "Traceback" not in errors
    assert process.returncode == browser_login.INTERRUPTED
    assert not (tmp_path / "session.json").exists()


def test_the_list_of_sessions_tells_what_was_approved(cli: Cli) -> None:
    """(P9, P2) And it fits a terminal of 80 columns."""
    session = sessions_pb2.OpenSession(
        session_id="5d41402abc4b2a76",
        administrator="root",
        use_time=answers.at(answers.END),
        node_id="n1",
        address="192.0.2.7",
        door="browser",
    )
    cli.node.answer(
        "SessionService/ListSessions",
        sessions_pb2.ListSessionsResponse(sessions=[session]),
    )
    head, *lines = cli("sessions", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    column = slice(head.index("From"), head.index("Used"))
    origin = " ".join(line[column].strip() for line in lines)
    assert origin == "api on n1, 192.0.2.7, approved in the console by root"
