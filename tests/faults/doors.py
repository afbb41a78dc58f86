# SPDX-License-Identifier: Apache-2.0
"""
The clients of a campaign: one per node, and one that knows all nodes.

Each answer is recorded with its exact meaning: an error that means "nothing was
applied" is recorded as that, and the checker verifies it.
"""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar

from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode

from sparecode_client import (
    AsyncAdmin,
    AsyncAgent,
    EmergencyAccess,
    GeneratedTokencodes,
    NewToken,
    NodeFailed,
    OutcomeUnknown,
    Overloaded,
    PinRule,
    Refused,
    SavedTokencodes,
    SparecodeError,
    TokencodeState,
    Unavailable,
)
from tests.faults.history import History, Kind, Operation, Outcome, Result
from tests.faults.protocols import NoAnswerError, Protocols, goes_by_radius

T = TypeVar("T")

PIN = "4719"
ANY = "any"
"""In place of a node id: the client that knows all nodes and tries one after another."""
WITHIN = timedelta(seconds=2.5)
WITHIN_ANY = timedelta(seconds=6)
PATIENCE = timedelta(seconds=30)
HTTP_SHARE = 0.4
"""Of the requests that are not by RADIUS."""
REFUSED_TO_REVOKE = "NO_EMERGENCY_ACCESS"

_SEEN = {
    TokencodeState.LIVE: Result.LIVE,
    TokencodeState.USED: Result.SPENT,
    TokencodeState.VOID: Result.DEAD,
}


@dataclass(eq=False)
class Holder:
    """A user with one token, who has one code at a time."""

    username: str
    serial: str
    pin: str
    codes: "list[Code]" = field(default_factory=list)


@dataclass(eq=False)
class Code:
    """One code, alone in its set."""

    name: str
    """The name in the history, never the code itself."""
    holder: Holder
    passcode: str
    generated: GeneratedTokencodes
    set_id: str = ""
    """Known once the issue was acknowledged."""


def new_request() -> str:
    """Return the id of a new request."""
    return str(uuid.uuid4())


class Doors:
    """Clients of every node, as an async context manager."""

    def __init__(
        self, cluster: LocalCluster, history: History, chance: random.Random
    ) -> None:
        self._cluster = cluster
        self._history = history
        self._chance = chance
        self._open = AsyncExitStack()
        self._agents: dict[str, AsyncAgent] = {}
        self._admins: dict[str, AsyncAdmin] = {}
        self._numbers = itertools.count(1)
        self._protocols = Protocols(cluster)
        self.names = [node.directory.name for node in cluster.nodes]
        """
        The nodes, by their machines: a node that joins again has another id, and the
        same addresses.
        """
        self.holders: list[Holder] = []
        self.errors: Counter[str] = Counter()
        """The number of calls without an answer, by reason."""

    async def __aenter__(self) -> Self:
        nodes = self._cluster.nodes
        self.admin = await self._open.enter_async_context(self._admin(nodes, ""))
        session = await self.admin.login(
            ADMINISTRATOR, self._cluster.password, within=PATIENCE
        )
        await self.admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
        self.session = session.session
        await self._open.enter_async_context(self._protocols)
        await self._protocols.register(self.admin, within=PATIENCE)
        self._admins[ANY] = self.admin
        self._agents[ANY] = await self._open.enter_async_context(self._agent(nodes))
        for node in nodes:
            self._agents[node.directory.name] = await self._open.enter_async_context(
                self._agent([node])
            )
            self._admins[node.directory.name] = await self._open.enter_async_context(
                self._admin([node], session.session)
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def _agent(self, nodes: Sequence[LocalNode]) -> AsyncAgent:
        certificates = self._cluster.certificates
        return AsyncAgent(
            [node.agents_address for node in nodes],
            ca=self._cluster.members_ca,
            certificate=certificates / f"{AGENT}.pem",
            key=certificates / f"{AGENT}.key",
        )

    def _admin(self, nodes: Sequence[LocalNode], session: str) -> AsyncAdmin:
        return AsyncAdmin(
            [node.admin_address for node in nodes],
            ca=self._cluster.members_ca,
            session=session,
        )

    # --- Users and codes -----------------------------------------------------

    async def new_holder(self, *, within: timedelta = PATIENCE) -> Holder:
        """
        Create a user with a token; every second user gets a PIN.

        Raises:
            SparecodeError: It failed; do not use this user.
        """
        number = next(self._numbers)
        name, serial = f"user-{number:05}", f"serial-{number:05}"
        pin = PIN if number % 2 else ""
        token = NewToken(
            serial=serial,
            seed=name.ljust(20).encode(),
            pin_rule=PinRule.PREPENDED if pin else PinRule.NONE,
        )
        await self.admin.create_user(name, within=within)
        await self.admin.enroll_token(token, within=within)
        await self.admin.assign_token(serial, name, within=within)
        if pin:
            await self.admin.set_pin(serial, pin, within=within)
        holder = Holder(name, serial, pin)
        self.holders.append(holder)
        return holder

    async def draw(self, holder: Holder) -> Code:
        """
        Draw a code, which changes nothing.

        Raises:
            SparecodeError: No node answered.
        """
        generated = await self.admin.generate_tokencodes(
            holder.serial, count=1, within=WITHIN_ANY
        )
        code = Code(
            name=f"{holder.serial}/{len(holder.codes) + 1}",
            holder=holder,
            passcode=holder.pin + generated.codes[0].code,
            generated=generated,
        )
        holder.codes.append(code)
        return code

    # --- Operations ----------------------------------------------------------

    async def issue(self, code: Code, request_id: str, node: str) -> Operation:
        """Make a drawn code live, which revokes the holder's previous code (I8)."""
        operation = self._begin(Kind.ISSUE, code, request_id, node)
        position = code.holder.codes.index(code)
        before = None
        if position:
            before = self._begin(
                Kind.REVOKE, code.holder.codes[position - 1], request_id, node
            )

        async def save() -> tuple[Result, int, SavedTokencodes]:
            saved = await self._admins[node].save_emergency_access(
                code.generated, request_id=request_id, within=_within(node)
            )
            return Result.ISSUED, saved.commit.index, saved

        saved = await self._record(operation, save)
        if saved is not None:
            code.set_id = saved.set_id
        if before is not None:
            self._record_revocation(before, operation, saved)
        return operation

    def _record_revocation(
        self, revoke: Operation, issue: Operation, saved: SavedTokencodes | None
    ) -> None:
        """Record what an issue shows about the previous code."""
        if saved is not None:
            result = Result.REVOKED if saved.voided_codes else Result.NOT_LIVE
            self._history.answer(revoke, result, saved.commit.index)
        elif issue.outcome is Outcome.NOT_DONE:
            self._history.not_done(revoke, issue.words)
        else:
            self._history.unknown(revoke, issue.words)

    async def consume(self, code: Code, request_id: str, node: str) -> Operation:
        """Try to authenticate with a code."""
        operation = self._begin(Kind.CONSUME, code, request_id, node)

        async def authenticate() -> tuple[Result, int, None]:
            answer = await self._agents[node].authenticate(
                code.holder.username,
                code.passcode,
                request_id=request_id,
                within=_within(node),
            )
            return Result.ACCEPTED if answer.accepted else Result.REFUSED, 0, None

        await self._record(operation, authenticate)
        return operation

    async def consume_by_any_door(
        self, code: Code, request_id: str, node: str
    ) -> Operation:
        """Try to authenticate with a code, by gRPC, HTTP or RADIUS."""
        if goes_by_radius(request_id):
            ask, protocol = self._protocols.by_radius, "RADIUS"
        elif self._chance.random() < HTTP_SHARE:
            ask, protocol = self._protocols.by_http, "HTTP"
        else:
            return await self.consume(code, request_id, node)
        operation = self._begin(Kind.CONSUME, code, request_id, node)
        operation.protocol = protocol

        async def authenticate() -> tuple[Result, int, None]:
            accepted = await ask(
                code.holder.username,
                code.passcode,
                request_id=request_id,
                hosts=self._protocols.order(node, self._chance.randrange(8)),
                within=_within(node),
            )
            return Result.ACCEPTED if accepted else Result.REFUSED, 0, None

        await self._record(operation, authenticate)
        return operation

    async def revoke(self, code: Code, request_id: str, node: str) -> Operation:
        """Turn off the emergency access of a code's token."""
        operation = self._begin(Kind.REVOKE, code, request_id, node)

        async def disable() -> tuple[Result, int, None]:
            try:
                commit = await self._admins[node].disable_emergency_access(
                    code.holder.serial, request_id=request_id, within=_within(node)
                )
            except Refused as refused:
                if refused.reason != REFUSED_TO_REVOKE:
                    raise
                return Result.NOT_LIVE, 0, None
            return Result.REVOKED, commit.index, None

        await self._record(operation, disable)
        return operation

    async def read(self, code: Code, node: str) -> Operation:
        """Read the state of a code after a read barrier."""
        operation = self._begin(Kind.READ, code, "", node)

        async def get() -> tuple[Result, int, None]:
            access = await self._admins[node].get_emergency_access(
                code.holder.serial, within=_within(node)
            )
            return state_of(code, access), _index(access), None

        await self._record(operation, get)
        return operation

    async def read_all_at(self, holder: Holder, node: str) -> dict[str, Operation]:
        """Read a holder's codes from one node's own state, even if it lags."""
        operations = [self._begin(Kind.READ, code, "", node) for code in holder.codes]
        access = await self._admins[node].get_emergency_access(
            holder.serial, stale_ok=True, within=PATIENCE
        )
        for code, operation in zip(holder.codes, operations, strict=True):
            self._history.answer(operation, state_of(code, access), _index(access))
        return dict(zip((code.name for code in holder.codes), operations, strict=True))

    def _begin(self, kind: Kind, code: Code, request_id: str, node: str) -> Operation:
        return self._history.invoke(kind, code.name, request_id=request_id, node=node)

    async def _record(
        self, operation: Operation, ask: Callable[[], Awaitable[tuple[Result, int, T]]]
    ) -> T | None:
        """Make a call, and record its answer or the meaning of its error."""
        try:
            result, index, value = await ask()
        except (OutcomeUnknown, NodeFailed) as error:
            operation.unserved = True
            self._history.unknown(operation, error.reason)
        except SparecodeError as error:
            operation.unserved = isinstance(error, (Unavailable, Overloaded))
            self._history.not_done(operation, error.reason)
        except NoAnswerError as error:
            operation.unserved = True
            if error.unknown:
                self._history.unknown(operation, error.words)
            else:
                self._history.not_done(operation, error.words)
        except asyncio.CancelledError:
            self._history.unknown(operation, "canceled")
            raise
        else:
            self._history.answer(operation, result, index)
            return value
        self.errors[operation.words] += 1
        return None

    async def digests(self) -> dict[str, tuple[int, str]]:
        """Return the applied index and digest of every reachable member."""
        status = await self.admin.get_status(digest=True, within=PATIENCE)
        names = {node.node_id: node.directory.name for node in self._cluster.nodes}
        return {
            names.get(member.node_id, member.node_id): (
                member.applied_index,
                member.digest,
            )
            for member in status.members
            if member.reachable and member.digest
        }

    async def export_log(self, node: str, path: Path) -> str:
        """Write one node's own audit log to a file; return why that failed, if it did."""
        try:
            with path.open("wb") as file:
                await self._admins[node].export_audit_events(
                    file.write, stale_ok=True, within=PATIENCE
                )
        except SparecodeError as error:
            return str(error)
        return ""

    def any_node(self, *, but: str = "") -> str:
        """Return a random node other than *but*."""
        return self._chance.choice([name for name in self.names if name != but])


def state_of(code: Code, access: EmergencyAccess) -> Result:
    """Return the state of a code; a code of unknown issue is the one unknown set."""
    known = {each.set_id for each in code.holder.codes if each.set_id}
    for each in access.sets:
        if each.set_id == code.set_id or (not code.set_id and each.set_id not in known):
            state = each.codes[0].state
            assert state is not None
            return _SEEN[state]
    return Result.ABSENT


def _index(access: EmergencyAccess) -> int:
    return 0 if access.position is None else access.position.applied_index


def _within(node: str) -> timedelta:
    return WITHIN_ANY if node == ANY else WITHIN
