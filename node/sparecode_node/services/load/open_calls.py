# SPDX-License-Identifier: Apache-2.0
"""
How many calls may be open at the same time on one listener (Q3).

A call that streams stays open for as long as its caller likes. So streaming calls have a
pool of their own inside the listener's limit, and the open calls of each session, each
address and each agent are limited. The last places are a reserve: for signing in, and for calls that
stop an attack. A caller that has reached its own limit may use some of the reserve, too.
"""

import collections
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.errors import OpenCallsError

RESERVED_METHODS = frozenset(
    {
        "SessionService/CollectBrowserLogin",
        "SessionService/EndSession",
        "SessionService/ListSessions",
        "SessionService/Login",
        "SessionService/Logout",
        "SessionService/LogoutEverywhere",
        "SessionService/Reauthenticate",
        "SessionService/StartBrowserLogin",
        "SessionService/WhoAmI",
        "AdministratorService/Approve",
        "AdministratorService/CancelReset",
        "AdministratorService/ChangePassword",
        "AdministratorService/ListAdministrators",
        "AdministratorService/ListApprovals",
        "AdministratorService/Reject",
        "AdministratorService/RemoveAdministrator",
        "AdministratorService/RemoveSecondFactor",
        "AdministratorService/UpdateAdministrator",
        "AgentService/DenyCertificate",
        "AgentService/RemoveAgent",
        "AgentService/UpdateAgent",
        "ClusterService/RemoveMember",
        "EmergencyAccessService/DisableEmergencyAccess",
        "TokenService/DisableToken",
        "UserService/UpdateUser",
    }
)
"""
The methods that may use the reserve.

They are those of the reserve of the table of requests (`statemachine/shares.py`), and the
reads that tell an administrator what to approve, to deny or to disable.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Calls that may be open at the same time. None: no limit but that of the listener."""

    calls: int
    """On the listener, with the reserve."""
    reserved: int = 0
    """The reserve: these places are for reserved methods only."""
    reserved_of_session: int | None = None
    reserved_of_address: int | None = None
    streams: int | None = None
    """Calls that stream, on the listener. They are outside the reserve."""
    streams_of_session: int | None = None
    streams_of_address: int | None = None
    of_session: int | None = None
    """Calls of one session, outside the reserve."""
    of_address: int | None = None
    """Calls from one address, outside the reserve."""
    of_agent: int | None = None
    """Calls of one agent's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKind:
    """What decides which places a call may take."""

    method: str
    streams: bool = False
    """It streams its requests or its answers."""

    @property
    def is_reserved(self) -> bool:
        """Whether the call may use the reserve."""
        return self.method in RESERVED_METHODS


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """The caller of a call, as far as it is known before the call is judged."""

    session: str = ""
    """Of the session that the call names, whether or not it exists; empty: it names none."""
    address: str = ""
    """Empty: unknown."""
    agent: str = ""
    """The agent's certificate (`AgentCaller.key`); empty: it is no agent."""


class OpenCalls:
    """Counts the open calls of one listener. Runs in the event loop."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._ordinary = _Pool(limits.of_session, limits.of_address, limits.of_agent)
        self._streams = _Pool(limits.streams_of_session, limits.streams_of_address)
        self._reserve = _Pool(limits.reserved_of_session, limits.reserved_of_address)

    def check_room(self, kind: CallKind) -> None:
        """
        Raise `OverloadedError` if the listener has no place for one more call.

        Its caller is not known yet, so this says nothing about the caller's own limits.
        """
        limits = self._limits
        if kind.is_reserved:
            full = self._ordinary.total + self._reserve.total >= limits.calls
        else:
            full = self._ordinary_is_full(kind)
        if full:
            raise OverloadedError("too many calls at once")

    @contextlib.contextmanager
    def one(self, kind: CallKind, opener: Opener) -> Iterator[None]:
        """Count a call while it is open. Raises `OverloadedError`, `OpenCallsError`."""
        with contextlib.ExitStack() as places:
            for pool in self._pools(kind, opener):
                places.enter_context(pool.place(opener))
            yield

    def _pools(self, kind: CallKind, opener: Opener) -> tuple["_Pool", ...]:
        """Return the pools that the call takes a place of."""
        self.check_room(kind)
        pools = (self._ordinary, self._streams) if kind.streams else (self._ordinary,)
        excess = next(filter(None, (pool.excess(opener) for pool in pools)), "")
        if not excess and not self._ordinary_is_full(kind):
            return pools
        if kind.is_reserved:
            excess = self._reserve.excess(opener)
            pools = (self._reserve,)
        if excess:
            raise OpenCallsError(excess)
        return pools

    def _ordinary_is_full(self, kind: CallKind) -> bool:
        limits = self._limits
        room = limits.calls - limits.reserved - self._ordinary.total
        if kind.streams and limits.streams is not None:
            room = min(room, limits.streams - self._streams.total)
        return room <= 0


class _Pool:
    """Open calls, and how many of them each session, address and agent has."""

    def __init__(
        self,
        of_session: int | None,
        of_address: int | None,
        of_agent: int | None = None,
    ) -> None:
        self._of_session = of_session
        self._of_address = of_address
        self._of_agent = of_agent
        self._sessions: collections.Counter[str] = collections.Counter()
        self._addresses: collections.Counter[str] = collections.Counter()
        self._agents: collections.Counter[str] = collections.Counter()
        self.total = 0

    def excess(self, opener: Opener) -> str:
        """Return whose limit one more call would exceed; empty: none."""
        if _is_full(self._sessions, opener.session, self._of_session):
            return "this session"
        if _is_full(self._addresses, opener.address, self._of_address):
            return "this address"
        if _is_full(self._agents, opener.agent, self._of_agent):
            return "this agent"
        return ""

    @contextlib.contextmanager
    def place(self, opener: Opener) -> Iterator[None]:
        """Count a call."""
        self._add(opener, 1)
        try:
            yield
        finally:
            self._add(opener, -1)

    def _add(self, opener: Opener, number: int) -> None:
        self.total += number
        for counts, key in (
            (self._sessions, opener.session),
            (self._addresses, opener.address),
            (self._agents, opener.agent),
        ):
            counts[key] += number
            if not counts[key]:
                del counts[key]


def _is_full(counts: collections.Counter[str], key: str, most: int | None) -> bool:
    return most is not None and bool(key) and counts[key] >= most
