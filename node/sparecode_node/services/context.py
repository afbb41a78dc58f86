# SPDX-License-Identifier: Apache-2.0
"""Who calls, under which request id, and for how long: what every use case is given."""

from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity, NodeId
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.ambient import Clock

NO_CERTIFICATE = Certificate(fingerprint="", serial_number="")
"""Of which nothing is known; the deny list cannot name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCaller:
    """An authentication agent, as its certificate names it."""

    identity: AgentIdentity
    certificate: Certificate = NO_CERTIFICATE


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCaller:
    """Whoever holds the bearer token of a session."""

    bearer: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Nobody has signed in."""


T = TypeVar("T")

Caller = AgentCaller | SessionCaller | Anonymous


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Who calls, under which request id, and how long they wait."""

    caller: Caller
    request_id: str
    """A UUID; empty for reads."""
    method: str
    """`UserService/CreateUser`, say."""
    deadline_s: float
    """The seconds that are left; services pass what is left of them downwards."""
    peer: str = ""
    """The address that the call comes from, without a port; empty: not known."""
    content: bytes | None = field(default=None, repr=False)
    """The arguments of an `idempotent` use case, for the request's tag (Q1). Secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[T]):
    """What a read found, where, and how current it is."""

    value: T
    node_id: NodeId
    applied_index: int
    """Everything committed up to here is in the value."""
    stale: bool
    """The value may miss what was committed after that index."""


class Deadline:
    """The moment until which a caller waits, on a clock that never steps."""

    def __init__(self, clock: Clock, at_s: float) -> None:
        self._clock = clock
        self._at_s = at_s

    @classmethod
    def of(cls, context: CallContext, clock: Clock) -> Self:
        """Begin to count down what the caller of *context* has left."""
        return cls(clock, clock.monotonic_s() + context.deadline_s)

    def allows(self, seconds: float) -> bool:
        """Say whether so much time is left."""
        return self._at_s - self._clock.monotonic_s() >= seconds

    def left_s(self) -> float:
        """Return the seconds that are left, more than 0. Raises `OverloadedError`."""
        left_s = self._at_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise OverloadedError("no time is left, and nothing was proposed")
        return left_s
