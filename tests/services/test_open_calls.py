# SPDX-License-Identifier: Apache-2.0
"""Open calls: the limits of sessions and addresses, the streams' pool, the reserve (Q3)."""

import contextlib
from collections.abc import Iterator

import pytest

from sparecode_node.replication.errors import OverloadedError
from sparecode_node.rpc.server import ADMIN_CALLS, AGENT_CALLS
from sparecode_node.services.access.authorization import (
    _COMMANDS,
    _UNDER_OTHER_NAMES,
    CONSOLE_ONLY,
)
from sparecode_node.services.errors import OpenCallsError
from sparecode_node.services.load.open_calls import (
    RESERVED_METHODS,
    CallKind,
    OpenCalls,
    Opener,
)
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.shares import is_reserved

LIST = CallKind(method="UserService/ListUsers")
WATCH = CallKind(method="ClusterService/WatchStatus", streams=True)
DENY = CallKind(method="AgentService/DenyCertificate")
LOGIN = CallKind(method="SessionService/Login")


@contextlib.contextmanager
def held(
    calls: OpenCalls, kind: CallKind, number: int, *, addresses: int = 1
) -> Iterator[list[str]]:
    """Open calls, each in a session of its own; yield what refused the others."""
    refused = []
    with contextlib.ExitStack() as stack:
        for n in range(number):
            opener = Opener(session=f"s{n}", address=f"a{n % addresses}")
            try:
                stack.enter_context(calls.one(kind, opener))
            except OverloadedError as error:
                refused.append(str(error))
        yield refused


def test_streams_leave_room_for_other_calls() -> None:
    calls = OpenCalls(ADMIN_CALLS)
    with (
        held(calls, WATCH, 500, addresses=500) as refused_streams,
        held(calls, LIST, 500, addresses=500) as refused,
    ):
        assert len(refused_streams) == 500 - 32
        assert len(refused) == 500 - (104 - 32)
    with held(calls, LIST, 500, addresses=500) as refused:
        assert len(refused) == 500 - 104


def test_calls_that_stop_an_attack_have_a_reserve() -> None:
    calls = OpenCalls(ADMIN_CALLS)
    with held(calls, LIST, 500, addresses=500):
        calls.check_room(LOGIN)
        with held(calls, DENY, 20, addresses=20) as refused:
            assert not refused
            with calls.one(LOGIN, Opener(address="elsewhere")):
                pass
        with held(calls, DENY, 500, addresses=500) as refused:
            assert len(refused) == 500 - 24
            with pytest.raises(OverloadedError):
                calls.check_room(LOGIN)


def test_address_that_uses_up_its_calls_still_signs_in() -> None:
    """Its administrators share it with an attacker, behind a proxy for example."""
    calls = OpenCalls(ADMIN_CALLS)
    with (
        held(calls, LIST, 100) as refused,
        held(calls, LOGIN, 100) as refused_sign_ins,
    ):
        words = "this address has too many calls open on this node; nothing was changed"
        assert len(refused) == 100 - 64
        assert all(each.startswith(words) for each in refused)
        assert len(refused_sign_ins) == 100 - 16


def test_session_has_a_limit_in_the_reserve() -> None:
    calls, opener = OpenCalls(ADMIN_CALLS), Opener(session="s", address="a")
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(calls.one(LIST, opener))
        with pytest.raises(OpenCallsError, match="this session"):
            stack.enter_context(calls.one(LIST, opener))
        for _ in range(8):
            stack.enter_context(calls.one(DENY, opener))
        with pytest.raises(OpenCallsError, match="this session"):
            stack.enter_context(calls.one(DENY, opener))
    with calls.one(LIST, opener):  # All places are free again.
        pass


def test_an_agent_leaves_places_to_other_agents() -> None:
    calls, attempt = OpenCalls(AGENT_CALLS), CallKind(method="A/Authenticate")
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            stack.enter_context(calls.one(attempt, Opener(agent="vpn")))
        with pytest.raises(OpenCallsError, match="this agent has too many calls"):
            stack.enter_context(calls.one(attempt, Opener(agent="vpn")))
        for _ in range(256):
            stack.enter_context(calls.one(attempt, Opener(agent="mail")))
        with pytest.raises(OverloadedError):
            calls.check_room(attempt)


def test_reserve_has_the_methods_of_the_reserved_commands() -> None:
    """(Q3) Both reserves are for the same: to sign in, and to stop an attack."""
    methods = {
        each: f"{service}/{each.__name__}"
        for service, proposed in _COMMANDS.items()
        for each in proposed
    } | {command: name for name, command in _UNDER_OTHER_NAMES.items()}
    disabling = {
        commands.UpdateAdministrator,
        commands.UpdateUser,
        commands.UpdateAgent,
    }
    for command, method in methods.items():
        if method in CONSOLE_ONLY:
            continue
        if command in disabling or is_reserved(object.__new__(command)):
            assert method in RESERVED_METHODS, method
