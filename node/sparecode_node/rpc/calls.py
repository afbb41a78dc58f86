# SPDX-License-Identifier: Apache-2.0
"""What a servicer hands to a use case: who calls, which request, how much time."""

from typing import cast
from urllib.parse import unquote

from sparecode_node.rpc.identity import (
    Context,
    agent_certificate,
    agent_identity,
    session_caller,
)
from sparecode_node.services.context import AgentCaller, Anonymous, CallContext, Caller

DEADLINE_DEFAULT_S = 10.0
"""For a call without a deadline."""
DEADLINE_MAX_S = 300.0
"""Nobody keeps a call waiting for longer than that, whatever the deadline says."""

_MARGIN_S = 0.1
_MARGIN_PART = 0.1


def time_left_s(context: Context) -> float:
    """Return the seconds until the caller's deadline, or until ours."""
    # The stubs do not know that a call may have no deadline.
    left_s = cast("float | None", context.time_remaining())
    return DEADLINE_DEFAULT_S if left_s is None else min(left_s, DEADLINE_MAX_S)


def agent_call(context: Context, method: str, request_id: str) -> CallContext:
    """Return the call of an agent. Raises `UnidentifiedError`."""
    auth = context.auth_context()
    caller = AgentCaller(
        identity=agent_identity(auth), certificate=agent_certificate(auth)
    )
    return _call(context, caller, method, request_id)


def session_call(context: Context, method: str, request_id: str = "") -> CallContext:
    """Return the call of whoever holds a session. Raises `NotSignedInError`."""
    return _call(context, session_caller(context), method, request_id)


def anonymous_call(context: Context, method: str, request_id: str) -> CallContext:
    """Return the call of somebody who is about to sign in."""
    return _call(context, Anonymous(), method, request_id)


def _call(
    context: Context, caller: Caller, method: str, request_id: str
) -> CallContext:
    left_s = time_left_s(context)
    # A use case ends a little earlier than its caller gives up: then the caller
    # learns what happened, instead of only that the time is up.
    return CallContext(
        caller=caller,
        request_id=request_id,
        method=method,
        deadline_s=left_s - min(_MARGIN_S, _MARGIN_PART * left_s),
        peer=peer_address(context),
    )


def peer_address(context: Context) -> str:
    """Return where a call comes from, without the port: `ipv4:192.0.2.1`."""
    # gRPC quotes what is not plain in a URI, the brackets of IPv6 among it.
    return unquote(str(context.peer() or "")).rpartition(":")[0]
