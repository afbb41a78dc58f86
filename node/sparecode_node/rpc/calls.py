# SPDX-License-Identifier: Apache-2.0
"""The context of a call for a use case: the caller, the request id, the time left."""

from dataclasses import replace
from typing import cast
from urllib.parse import unquote

from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.rpc.identity import (
    Context,
    agent_certificate,
    agent_identity,
    client_certificate,
    session_caller,
)
from sparecode_node.services.context import AgentCaller, Anonymous, CallContext, Caller

DEADLINE_DEFAULT_S = 10.0
"""The time for a call that has no deadline."""
DEADLINE_MAX_S = 300.0
"""The longest time for any call, whatever its deadline."""

_MARGIN_S = 0.1
_MARGIN_PART = 0.1


def time_left_s(context: Context) -> float:
    """Return the seconds until the caller's deadline, or until our own limit."""
    # By the type stubs, every call has a deadline; in fact it may be None.
    left_s = cast("float | None", context.time_remaining())
    return DEADLINE_DEFAULT_S if left_s is None else min(left_s, DEADLINE_MAX_S)


def agent_call(context: Context, method: str, request_id: str) -> CallContext:
    """Return the call of an agent. Raises `UnidentifiedError`."""
    return _call(context, agent_caller(context), method, request_id)


def agent_caller(context: Context) -> AgentCaller:
    """Return the agent that calls. Raises `UnidentifiedError`."""
    auth = context.auth_context()
    return AgentCaller(
        identity=agent_identity(auth), certificate=agent_certificate(auth)
    )


def session_call(
    context: Context, method: str, request_id: str = "", etag: str = ""
) -> CallContext:
    """Return the call of an administrator. Raises `NotSignedInError`."""
    caller = session_caller(context)
    return replace(_call(context, caller, method, request_id), etag=etag)


def anonymous_call(context: Context, method: str, request_id: str) -> CallContext:
    """Return the call of a caller who is about to sign in."""
    return _call(context, Anonymous(), method, request_id)


def _call(
    context: Context, caller: Caller, method: str, request_id: str
) -> CallContext:
    left_s = time_left_s(context)
    # End the use case shortly before the caller's deadline. The caller then learns the
    # outcome, and not only that the time is up.
    return CallContext(
        caller=caller,
        request_id=request_id,
        method=method,
        deadline_s=left_s - min(_MARGIN_S, _MARGIN_PART * left_s),
        peer=peer_address(context),
        client_certificate=client_certificate(context.auth_context()),
    )


def peer_address(context: Context) -> str:
    """Return the address of the peer without its port, spelled as at every door."""
    # gRPC percent-encodes characters, for example the brackets of IPv6 addresses.
    return canonical(unquote(str(context.peer() or "")).rpartition(":")[0])
