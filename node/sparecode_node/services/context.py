# SPDX-License-Identifier: Apache-2.0
"""The context of a call: its caller, request id and deadline. Every use case gets it."""

from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity, NodeId
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.ambient import Clock

NO_CERTIFICATE = Certificate(fingerprint="", serial_number="")
"""Stands for an unknown certificate; the deny list cannot name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCaller:
    """An authentication agent, named by its certificate, its key or its secret."""

    identity: AgentIdentity
    certificate: Certificate = NO_CERTIFICATE
    radius_secret_id: str = ""
    """The secret that a RADIUS client has used; empty: another agent."""
    radius_signed: bool = False
    """It has signed the request, and need not sign before it has done so once."""
    bearer_id: str = ""
    """The bearer key that it has shown; empty: none."""

    @property
    def key(self) -> str:
        """
        The key of its rate: each certificate and each bearer key has a rate of its own.

        A stolen certificate must not use up the rate of the one that replaces it.
        """
        return f"{self.identity} {self.bearer_id or self.certificate.fingerprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCaller:
    """The holder of a session's bearer token."""

    bearer: str = field(repr=False)


RADIUS = "radius"
"""The door of RADIUS clients."""
HTTP = "http"
"""The door of agents that call by HTTP."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """A caller that has not signed in."""


T = TypeVar("T")

Caller = AgentCaller | SessionCaller | Anonymous


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The caller of a method, the request id and the deadline."""

    caller: Caller
    request_id: str
    """A UUID; empty for reads."""
    method: str
    """For example `UserService/CreateUser`."""
    deadline_s: float
    """The seconds left for the call; services pass the rest of them downwards."""
    peer: str = ""
    """The caller's address, as `domain.caller_addresses` spells it; empty: unknown."""
    client_certificate: str = ""
    """
    The fingerprint of the certificate that an administrator's client has shown.

    Empty: the door demands none. A session belongs to the one it was opened with (P2).
    """
    door: str = "api"
    """How the call came in: `api`, `console`, `radius` or `http`."""
    source: str = ""
    """
    The door's own words for where an agent's request came from, for the audit log.

    Unlike `resource`, this is no part of the request: a copy may come another way.
    """
    etag: str = ""
    """What the caller was shown of what the call changes; empty: it is all the same."""
    device_cookie: str = field(default="", repr=False)
    """What the caller has shown to be known as a device (L7). No part of the request."""
    visit: str = field(default="", repr=False)
    """The secret of a browser's visit before its sign-in; binds challenges to it (P8)."""
    content: bytes | None = field(default=None, repr=False)
    """The arguments of an `idempotent` use case, for the request's tag (Q1). Secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[T]):
    """The value that a read returned, the node that read it, and how current it is."""

    value: T
    node_id: NodeId
    applied_index: int
    """The value covers everything committed up to this index."""
    stale: bool
    """The value may miss later commits."""


class Deadline:
    """The moment at which a caller stops waiting, on a monotonic clock."""

    def __init__(self, clock: Clock, at_s: float) -> None:
        self._clock = clock
        self._at_s = at_s

    @classmethod
    def of(cls, context: CallContext, clock: Clock) -> Self:
        """Start counting down the time that the caller of *context* has left."""
        return cls(clock, clock.monotonic_s() + context.deadline_s)

    def allows(self, seconds: float) -> bool:
        """Return whether at least *seconds* are left."""
        return self._at_s - self._clock.monotonic_s() >= seconds

    def left_s(self) -> float:
        """Return the seconds left, more than 0. Raises `OverloadedError`."""
        left_s = self._at_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise OverloadedError("no time is left, and nothing was proposed")
        return left_s
