# SPDX-License-Identifier: Apache-2.0
"""A node without Raft: the edge, the real use cases and a loopback replicator."""

import asyncio
import contextlib
import dataclasses
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sparecode.v1 import (
    agents_pb2,
    agents_pb2_grpc,
    authentication_pb2,
    authentication_pb2_grpc,
    emergency_access_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.membership.certificates import Issued
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.loopback import LoopbackReplicator
from sparecode_node.rpc.server import Listeners
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, SystemClock, SystemEntropy
from sparecode_node.services.cluster.backups import BackupSource
from sparecode_node.services.keys.due_rotation import DueRotation
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.load.rates import DEFAULT_LIMITS, RateLimits
from sparecode_node.services.people.founding import Founder, prepare_founding
from sparecode_node.services.people.resets import Resets
from sparecode_node.services.secrets.kdf import TESTING, Argon2Parameters, Kdf
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_file import StateFile
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.services.use_cases import build_services
from sparecode_node.statemachine.snapshots import write_state_alone, write_whole
from tests.rpc.edge import NODE, Edge, settings

PASSWORD = "correct horse battery"
PIN = "3682"


class RestlessClock(SystemClock):
    """A clock that advances by one minute with every reading."""

    def __init__(self) -> None:
        self._minutes = 0

    def monotonic_s(self) -> float:
        self._minutes += 1
        return 60.0 * self._minutes


def new_id() -> str:
    """Return a new request ID."""
    return str(uuid.uuid4())


@dataclasses.dataclass
class LoopbackNode(Edge):
    """A running node without Raft, with the first administrator signed in."""

    state: StateFile
    path: Path
    replicator: LoopbackReplicator
    due_rotation: DueRotation
    resets: Resets
    bearer: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """The hash of the state."""
        return self.state.read_digest()[1]

    def rows(self) -> dict[str, list[Any]]:
        """Return every row of the state except the time, which each barrier changes."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            tables = db.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' "
                "AND name != 'meta' "
                "AND name NOT LIKE 'request_counts%'"  # They are no state.
            ).fetchall()
            return {
                table: sorted(
                    db.execute(f"SELECT * FROM {table}"),  # noqa: S608 - our own names.
                    key=repr,
                )
                for (table,) in tables
            }

    def facts(self) -> dict[str, list[Any]]:
        """Return every row except records of calls and ended sessions."""
        rows = self.rows()
        now_ms = SystemClock().now_ms()
        rows["sessions"] = [each for each in rows["sessions"] if each[3] > now_ms]
        return {
            table: rows[table] for table in rows.keys() - {"audit_events", "requests"}
        }

    @contextlib.contextmanager
    def state_written(self) -> Iterator[sqlite3.Connection]:
        """Open the state for writing, bypassing the use cases."""
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            yield db

    async def recorded_events(self) -> list[tuple[str, ...]]:
        """Record refused calls; return each event's actor, action, target, outcome, reason."""
        while not await self.refusals.flush(self.replicator):
            pass
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute(
                "SELECT actor, action, target, outcome, reason FROM audit_events "
                "ORDER BY sequence"
            ).fetchall()

    async def sign_in(self) -> str:
        """Open a session; return its bearer token."""
        async with self.admin() as channel:
            answer = await sessions_pb2_grpc.SessionServiceStub(channel).Login(
                sessions_pb2.LoginRequest(
                    request_id=new_id(), administrator="root", password=PASSWORD
                ),
                timeout=60,
            )
        return str(answer.session)

    async def call(self, stub: Any, method: str, request: Any) -> Any:
        """Call a method as the administrator."""
        async with self.admin() as channel:
            return await getattr(stub(channel), method)(
                request, timeout=60, metadata=self.bearer
            )

    async def emergency(self, method: str, request: Any) -> Any:
        """Call the emergency access service as the administrator."""
        stub = emergency_access_pb2_grpc.EmergencyAccessServiceStub
        return await self.call(stub, method, request)

    async def authenticate(
        self, passcode: str, request_id: str = "", username: str = "ALICE"
    ) -> int:
        """Authenticate as an agent; return the decision."""
        async with self.agents() as channel:
            stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
            answer = await stub.Authenticate(
                authentication_pb2.AuthenticateRequest(
                    request_id=request_id or new_id(),
                    username=username,
                    passcode=passcode,
                ),
                timeout=60,
            )
        return int(answer.decision)

    async def populate(self) -> None:
        """Register the agent; add Alice, who has token 1 with a PIN."""
        tokens, users = tokens_pb2_grpc.TokenServiceStub, users_pb2_grpc.UserServiceStub
        for stub, method, request in (
            (
                agents_pb2_grpc.AgentServiceStub,
                "RegisterAgent",
                agents_pb2.RegisterAgentRequest(
                    request_id=new_id(),
                    name="vpn",
                    certificate_identity="sparecode://agent/vpn",
                ),
            ),
            (
                users,
                "CreateUser",
                users_pb2.CreateUserRequest(request_id=new_id(), username="Alice"),
            ),
            (
                tokens,
                "EnrollToken",
                tokens_pb2.EnrollTokenRequest(
                    request_id=new_id(),
                    serial="1",
                    algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
                    digits=6,
                    period_seconds=30,
                    seed=b"12345678901234567890",
                    pin_rule=types_pb2.PIN_RULE_PREPENDED,
                ),
            ),
            (
                tokens,
                "AssignToken",
                tokens_pb2.AssignTokenRequest(
                    request_id=new_id(), serial="1", username="alice"
                ),
            ),
            (
                tokens,
                "SetPin",
                tokens_pb2.SetPinRequest(request_id=new_id(), serial="1", pin=PIN),
            ),
        ):
            await self.call(stub, method, request)


@contextlib.asynccontextmanager
async def running_node(
    directory: Path,
    limits: RateLimits = DEFAULT_LIMITS,
    *,
    client: Issued | None = None,
    hashing: Argon2Parameters = TESTING,
    clock: Clock | None = None,
) -> AsyncIterator[LoopbackNode]:
    """
    Start a node without Raft, begin its cluster, and sign in.

    With *client*, administrators' clients must show a certificate of its authority.
    *hashing*: what a hash costs. *clock*: None: the machine's.
    """
    clock, entropy = clock or SystemClock(), SystemEntropy()
    key_holder = KeyHolder(
        KeyRing.draw(entropy), RingFile(path=directory / "keys.json")
    )
    sealing = Sealing(key_holder.ring)
    processes = StateProcesses()
    file = StateFile(
        directory / "state.db",
        sealing=sealing,
        clock=clock,
        processes=processes,
        on_keys=key_holder.follow,
    )
    with (
        contextlib.closing(processes),
        file.open() as (machine, stamper),
        contextlib.closing(Kdf(hashing, workers=1)) as kdf,
    ):
        replicator = LoopbackReplicator(machine, stamper, clock=clock)
        state = await LocalState.open(directory / "state.db")
        # For them a minute passes whenever they look at the clock.
        refusals = Refusals(clock=RestlessClock(), entropy=entropy)
        services = build_services(
            replicator,
            state,
            key_holder=key_holder,
            kdf=kdf,
            clock=clock,
            entropy=entropy,
            refusals=refusals,
            backup_source=BackupSource(
                write_whole=lambda target: write_whole(directory / "state.db", target),
                write_state_alone=lambda target: write_state_alone(
                    directory / "state.db", target
                ),
                directory=directory,
                version="1",
            ),
            limits=limits,
        )
        tasks = [
            asyncio.create_task(services.resealer.run()),
            asyncio.create_task(key_holder.run()),
        ]
        listeners = Listeners(
            node_id=NODE,
            agents=settings(mutual=True),
            admin=settings(mutual=client is not None),
            services=services,
            refusals=refusals,
            is_ready=lambda: replicator.ready,
            clock=clock,
        )
        await listeners.start()
        founding = directory / "bootstrap.json"
        await prepare_founding(
            founding,
            administrator="root",
            password=PASSWORD,
            sealing=sealing,
            kdf=kdf,
            entropy=entropy,
        )
        founder = Founder.load(founding, cluster_id=sealing.cluster_id)
        assert founder is not None
        await founder.run(replicator)
        node = LoopbackNode(
            listeners=listeners,
            refusals=refusals,
            replicator=replicator,
            due_rotation=services.due_rotation,
            resets=services.resets,
            services={},
            ready=[True],
            removed=[False],
            client=client,
            state=file,
            path=directory / "state.db",
        )
        node.bearer = (("authorization", f"Bearer {await node.sign_in()}"),)
        try:
            yield node
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await listeners.stop(grace_s=0)
            await state.close()
