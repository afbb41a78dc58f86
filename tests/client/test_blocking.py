# SPDX-License-Identifier: Apache-2.0
"""`Agent` and `Admin` for programs without an event loop, over real TLS."""

import inspect
import pydoc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from sparecode_client import (
    Admin,
    Agent,
    AsyncAdmin,
    AsyncAgent,
    Decision,
    NotFound,
    Unavailable,
)
from sparecode_client.connection.channels import ADMIN_PORT, addresses
from tests.client import answers
from tests.client.conftest import Pki
from tests.client.fakes import Failure, FakeNode

AUTHENTICATE = "AuthenticationService/Authenticate"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Agent, AsyncAgent), (Admin, AsyncAdmin)]
)
def test_blocking_classes_have_every_method(blocking: type, asynchronous: type) -> None:
    coroutines = {
        name
        for name, value in inspect.getmembers(asynchronous, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }

    assert {name for name in coroutines if hasattr(blocking, name)} == coroutines
    assert len(coroutines) > 1


def test_help_shows_blocking_methods() -> None:
    """A reader of `help(Agent.authenticate)` would await what is no coroutine."""
    # Python 3.13 puts each argument of a long signature into a line of its own.
    text = "".join(pydoc.plain(pydoc.render_doc(Agent)).replace("|", "").split())
    assert "authenticate(self,username:str,passcode:str" in text
    assert "asyncdef" not in text

    text = "".join(pydoc.plain(pydoc.render_doc(Admin.get_user)).split())
    assert "get_user(self,username:str" in text
    assert "async" not in text
    assert Admin.get_user.__qualname__ == "Admin.get_user"
    assert not inspect.iscoroutinefunction(Admin.get_user)


def test_method_is_called_on_the_class_too(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    node = start_node(pki.credentials())
    node.answer("UserService/GetUser", answers.USER)

    with Admin(node.address, ca=pki.ca, session="bearer") as admin:
        assert Admin.get_user(admin, "alice").username == "alice"


def test_agent_authenticates_over_mutual_tls(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    node = start_node(pki.credentials(mutual=True))
    node.answer(AUTHENTICATE, answers.ACCEPTED, answers.REFUSED)

    with Agent(
        node.address, ca=pki.ca, certificate=pki.agent.certificate, key=pki.agent.key
    ) as agent:
        first = agent.authenticate("alice", "2718K7PM-4XQ2", resource="intranet")
        second = agent.authenticate("alice", "2718K7PM-4XQ2")

    assert first.accepted
    assert first.authentication_id == "a-1"
    assert second.decision is Decision.REFUSED
    assert not second.accepted
    (request, _) = node.requests(AUTHENTICATE)
    assert request.passcode == "2718K7PM-4XQ2"
    assert request.resource == "intranet"
    assert request.request_id


def test_node_of_another_authority_is_refused(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    node = start_node(pki.credentials())
    node.answer("UserService/GetUser", answers.USER)

    with (
        Admin(node.address, ca=pki.foreign_ca, session="bearer") as admin,
        pytest.raises(Unavailable, match="certificate"),
    ):
        admin.get_user("alice", within=timedelta(seconds=2))

    assert node.calls == []


def test_agent_without_a_certificate_is_not_served(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    """A certificate that is not an agent's fails in the handshake or right after it."""
    node = start_node(pki.credentials(mutual=True))

    with Admin(node.address, ca=pki.ca) as stranger, pytest.raises(Unavailable):
        stranger.get_user("alice", within=timedelta(seconds=2))

    assert node.calls == []


def test_errors_come_through_the_thread(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    node = start_node(pki.credentials())
    node.answer(
        "UserService/GetUser",
        Failure(grpc.StatusCode.NOT_FOUND, "USER_UNKNOWN", "no user alice"),
    )

    with (
        Admin(node.address, ca=pki.ca, session="bearer") as admin,
        pytest.raises(NotFound, match="no user alice"),
    ):
        admin.get_user("alice")


def test_threads_share_one_agent(pki: Pki, start_node: Callable[..., FakeNode]) -> None:
    node = start_node(pki.credentials())
    node.answer("UserService/GetUser", answers.USER)

    with (
        Admin([node.address], ca=pki.ca, session="bearer") as admin,
        ThreadPoolExecutor(8) as pool,
    ):
        users = list(pool.map(admin.get_user, ["alice"] * 40))

    assert {user.username for user in users} == {"alice"}
    assert len(node.calls) == 40


def test_clients_share_one_thread_that_outlives_them(pki: Pki) -> None:
    """
    A closed loop would lose the late ends of its calls, and those of other loops.

    grpc hands all events of the process to one loop, which passes them on. It stops at
    an event whose loop is closed ("Event loop is closed").
    """
    Admin("localhost", ca=pki.ca).close()
    for _ in range(3):
        with Admin("localhost", ca=pki.ca), Admin("localhost", ca=pki.ca) as admin:
            assert threads().count("sparecode-client") == 1
        admin.close()  # A second time, without an error.

    assert threads().count("sparecode-client") == 1


def test_threads_that_call_first_share_one_loop(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    """
    The first calls of a process may come from several threads at the same time.

    With a loop for each of them, the calls of a shared client would fail: it belongs to
    the loop that has opened its connections.
    """
    node = start_node(pki.credentials())
    node.answer("UserService/GetUser", answers.USER)
    program = """
        import sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from sparecode_client import Admin
        admin = Admin(sys.argv[1], ca=sys.argv[2], session="bearer")
        together = threading.Barrier(8)
        def call(_):
            together.wait()
            return admin.get_user("alice").username
        with ThreadPoolExecutor(8) as pool:
            users = list(pool.map(call, range(8)))
        names = [thread.name for thread in threading.enumerate()]
        admin.close()
        print(users.count("alice"), names.count("sparecode-client"))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), node.address, pki.ca]

    result = subprocess.run(command, capture_output=True, timeout=120, check=False)

    assert (result.stdout, result.stderr) == (b"8 1\n", b"")


def test_callback_that_calls_a_client_does_not_wait_for_itself(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    node = start_node(pki.credentials())
    node.answer("UserService/GetUser", answers.USER)

    with Admin(node.address, ca=pki.ca, session="bearer") as admin:

        async def call_back(_: AsyncAdmin) -> None:
            admin.get_user("alice")

        with pytest.raises(RuntimeError, match="a callback"):
            admin.run(call_back)

        assert admin.get_user("alice").username == "alice"


def test_forked_process_has_a_thread_of_its_own(
    pki: Pki, start_node: Callable[..., FakeNode]
) -> None:
    """The child of a process that used a client waits for no thread of its parent."""
    node = start_node(pki.credentials())
    program = """
        import os, sys
        from sparecode_client import Admin
        admin = Admin(sys.argv[1], ca=sys.argv[2])
        admin.close()
        child = os.fork()
        if child == 0:
            Admin(sys.argv[1], ca=sys.argv[2]).close()
            sys.exit(7)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    # Since Python 3.12 a warning says that a process with threads forks, as it should.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    command = [*python, "-c", textwrap.dedent(program), node.address, pki.ca]

    result = subprocess.run(command, capture_output=True, timeout=120, check=False)

    assert (result.returncode, result.stderr) == (7, b"")


@pytest.mark.parametrize(
    "node", ["", "a:0", "a:65536", "a:b", "a b", "a:1:2", "https://a:1"]
)
def test_wrong_address_is_reported_at_once(pki: Pki, node: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        Admin(node, ca=pki.ca)


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("n1.example.com", "n1.example.com:7304"),
        ("10.0.0.1:99", "10.0.0.1:99"),
        ("::1", "[::1]:7304"),
        ("[::1]:99", "[::1]:99"),
    ],
)
def test_address_has_the_port_of_its_listener(node: str, address: str) -> None:
    assert addresses(node, ADMIN_PORT) == [address]


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
def test_missing_file_is_named_with_its_purpose(pki: Pki, missing: str) -> None:
    files = {
        "ca": pki.ca,
        "certificate": pki.agent.certificate,
        "key": pki.agent.key,
        missing: Path("no-such.pem"),
    }
    with pytest.raises(
        FileNotFoundError, match=rf"{missing} must name the file .*no-such\.pem"
    ) as caught:
        Agent("n1", **files)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None  # One traceback, not two.


@pytest.mark.parametrize("nothing", [None, ""])
def test_missing_ca_is_named(pki: Pki, nothing: Any) -> None:
    """A variable of the environment that is not set, for example."""
    with pytest.raises(ValueError, match=r"ca is .*members-ca\.pem"):
        Admin("n1", ca=nothing)


def test_certificate_without_its_key_is_refused(pki: Pki) -> None:
    with pytest.raises(ValueError, match="belong together"):
        Admin("n1", ca=pki.ca, certificate=pki.agent.certificate)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("no-such-host.invalid:7304", "its name has no address"),
        ("foreign", "not from the authority in the CA file"),
        ("name", "not for this name or address"),
        ("plain", "no TLS: agents connect to port 7300"),
    ],
)
def test_cause_of_a_failed_connection_is_told_in_words(
    pki: Pki, start_node: Callable[..., FakeNode], address: str, cause: str
) -> None:
    """A change that was never sent is no unknown outcome (A7)."""
    ca = {"foreign": pki.foreign_ca, "name": pki.agents_ca}.get(address, pki.ca)
    if address == "plain":
        address = start_node().address
    elif address == "name":
        # The certificate of an agent has no address.
        pair = pki.agent.key.read_bytes(), pki.agent.certificate.read_bytes()
        address = start_node(grpc.ssl_server_credentials([pair])).address
    elif address == "foreign":
        address = start_node(pki.credentials()).address

    with (
        Admin(address, ca=ca, session="bearer") as admin,
        pytest.raises(Unavailable, match=cause) as caught,
    ):
        admin.create_user("alice", within=timedelta(seconds=2))
    assert caught.value.reason == "UNREACHABLE"


def test_one_node_at_least_is_needed(pki: Pki) -> None:
    with pytest.raises(ValueError, match="one node"):
        Admin([], ca=pki.ca)
