# SPDX-License-Identifier: Apache-2.0
"""A node of an initialized cluster: every use case over two replicas, and shortcuts."""

import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    Moment,
    NodeId,
    RequestId,
)
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
    tokencode_at,
)
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.queries.state import LocalState
from sparecode_node.queries.views import UserView
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.cluster.backups import BackupSource
from sparecode_node.services.context import (
    AgentCaller,
    Anonymous,
    CallContext,
    SessionCaller,
)
from sparecode_node.services.emergency.emergency_access import (
    IssuedCodes,
    Lifetime,
    SetTerms,
)
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.load.rates import RateLimits
from sparecode_node.services.secrets.kdf import TESTING, Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.sealing import Sealing, session_id
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.services.use_cases import Services, build_services
from sparecode_node.statemachine.commands import Command, RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.cluster import InitializeCluster
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Decision
from sparecode_node.statemachine.snapshots import write_state_alone, write_whole
from sparecode_node.statemachine.tables.authorities import successors
from tests.services.two_replicas import NODE, FakeClock, TwoReplicas

ROOT = "root"
PASSWORD = "correct horse battery"
SEED = b"a seed of twenty byt"
PIN = "4719"
SERIAL = "000131415926"
CONSOLES = (
    "https://n1.sparecode.test:7302",
    "https://n2.sparecode.test:7302",
    "https://elsewhere.test",
)

PROOF = b"proof"
"""What stands for a right proof in the announcement of an authority's successor."""


def seed_of(serial: str) -> bytes:
    """Return the seed of a token: no two have the same (K5)."""
    return SEED if serial == SERIAL else serial.encode().ljust(20, b".")


VPN = AgentIdentity("spiffe://example/vpn")
UNLIMITED = RateLimits(
    agent=10**6,
    client_address=10**6,
    user=10**6,
    sign_in=10**6,
    peer=10**6,
    codes=10**6,
    session=10**6,
)
TOTP = TokencodeParameters(
    algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
)


@dataclass
class OneNode:
    """The called node: its use cases, the objects they use, and shortcuts to call them."""

    clock: FakeClock
    kdf: Kdf
    ring: KeyRing
    sealing: Sealing
    seeds: SeedReader
    state: LocalState
    primary_db: sqlite3.Connection
    local_db: sqlite3.Connection
    replicator: TwoReplicas
    key_holder: KeyHolder
    refusals: Refusals
    services: Services
    bearer: str = ""

    def __getattr__(self, name: str) -> Any:
        """Return the use case that `Services` has under this name."""
        return getattr(self.services, name)

    def admin(self, method: str = "", request_id: str = "") -> CallContext:
        """Return the context of a call by the signed-in administrator."""
        return CallContext(
            caller=SessionCaller(bearer=self.bearer),
            request_id=request_id or str(uuid.uuid4()),
            method=method,
            deadline_s=10,
        )

    def agent(self, identity: AgentIdentity = VPN, request_id: str = "") -> CallContext:
        """Return the context of a call by an agent."""
        return CallContext(
            caller=AgentCaller(identity=identity),
            request_id=request_id or str(uuid.uuid4()),
            method="AuthenticationService/Authenticate",
            deadline_s=10,
        )

    async def login(
        self, *, name: str = ROOT, password: str = PASSWORD, request_id: str = ""
    ) -> None:
        """Sign in and keep the session for later calls."""
        signed_in = await self.sessions.login(
            CallContext(
                caller=Anonymous(),
                request_id=request_id or str(uuid.uuid4()),
                method="SessionService/Login",
                deadline_s=10,
            ),
            administrator=name,
            password=password,
        )
        self.bearer = signed_in.bearer

    async def register_agent(
        self,
        identity: AgentIdentity = VPN,
        protects: Protects = Protects.AUTHENTICATION_MANAGER,
    ) -> None:
        """Register an agent."""
        await self.agents.register(
            self.admin("AgentService/RegisterAgent"),
            name=identity,
            identity=identity,
            protects=protects,
        )

    async def create_user(self, username: str, **fields: str) -> None:
        """Create a user, without a token."""
        values = {"display_name": "", "email": "", **fields}
        await self.users.create(
            self.admin("UserService/CreateUser"), username=username, **values
        )

    async def user(self, username: str) -> UserView:
        """Return a user as an administrator reads it."""
        read = await self.users.get(self.admin("UserService/GetUser"), username)
        found: UserView = read.value
        return found

    async def add_user(
        self,
        username: str = "alice",
        *,
        serial: str = SERIAL,
        pin: str = PIN,
        seed: bytes = b"",
        digits: int = 6,
        expires_at_ms: int | None = None,
    ) -> None:
        """Add a user with a TOTP token. With an empty *pin* the token needs no PIN."""
        await self.create_user(username)
        await self.enroll(
            serial,
            pin_rule=PinRule.PREPENDED if pin else PinRule.NONE,
            seed=seed,
            digits=digits,
            expires_at_ms=expires_at_ms,
        )
        await self.tokens.assign(
            self.admin("TokenService/AssignToken"), serial=serial, username=username
        )
        if pin:
            await self.tokens.set_pin(
                self.admin("TokenService/SetPin"), serial=serial, pin=pin
            )

    async def enroll(
        self,
        serial: str = SERIAL,
        *,
        pin_rule: PinRule = PinRule.PREPENDED,
        seed: bytes = b"",
        digits: int = 6,
        expires_at_ms: int | None = None,
    ) -> None:
        """Enroll a TOTP token."""
        await self.tokens.enroll(
            self.admin("TokenService/EnrollToken"),
            serial=serial,
            algorithm=Algorithm.TOTP,
            hash_name=HashName.SHA1,
            digits=digits,
            period_s=30,
            counter=0,
            seed=seed or seed_of(serial),
            pin_rule=pin_rule,
            expires_at_ms=expires_at_ms,
        )

    async def issue(
        self,
        serial: str = SERIAL,
        *,
        count: int | None = 3,
        request_id: str = "",
        lifetime: Lifetime | None = None,
        recovery: RecoveryPolicy = RecoveryPolicy.ALLOW_AND_DISABLE,
        keep_unused_codes: bool = False,
    ) -> IssuedCodes:
        """Issue emergency codes."""
        return await self.emergency.issue(
            self.admin("EmergencyAccessService/IssueTokencodes", request_id),
            serial=serial,
            count=count,
            terms=SetTerms(
                lifetime=lifetime or Lifetime(duration_ms=3_600_000),
                recovery=recovery,
                keep_unused_codes=keep_unused_codes,
            ),
        )

    async def accepts(
        self,
        passcode: str,
        *,
        username: str = "alice",
        identity: AgentIdentity = VPN,
        request_id: str = "",
    ) -> bool:
        """Return whether the node accepts a passcode."""
        answer = await self.authenticate(
            passcode, username=username, identity=identity, request_id=request_id
        )
        return answer.decision is Decision.ACCEPTED

    async def accepts_two(self, *, step: int = 0) -> bool:
        """Return whether it takes two tokencodes in a row to sign alice in (E1)."""
        asked = await self.authenticate(PIN + self.tokencode(step=step))
        if asked.decision is not Decision.NEXT_TOKENCODE_REQUIRED:
            return False
        self.clock.pass_s(30)
        answer = await self.answer_challenge(asked.challenge, self.tokencode(step=step))
        return answer.decision is Decision.ACCEPTED

    async def authenticate(
        self,
        passcode: str,
        *,
        username: str = "alice",
        identity: AgentIdentity = VPN,
        request_id: str = "",
    ) -> AgentAnswer:
        """Return the answer to a passcode."""
        return await self.authentication.authenticate(
            self.agent(identity, request_id),
            username=username,
            passcode=passcode,
            client_address="192.0.2.1",
            resource="mail",
        )

    async def answer_challenge(
        self,
        challenge: bytes,
        tokencode: str,
        *,
        new_pin: str = "",
        identity: AgentIdentity = VPN,
        request_id: str = "",
    ) -> AgentAnswer:
        """Return the answer to the second step of an authentication."""
        context = replace(
            self.agent(identity, request_id),
            method="AuthenticationService/ContinueAuthentication",
        )
        return await self.continuation.continue_authentication(
            context, challenge=challenge, next_tokencode=tokencode, new_pin=new_pin
        )

    def tokencode(self, *, step: int = 0, seed: bytes = SEED, digits: int = 6) -> str:
        """
        Return the tokencode that the token shows, *step* time steps from now.

        Use eight digits to search a whole state for a tokencode: among its
        hexadecimal digits, six digits occur by chance.
        """
        shown = replace(TOTP, digits=digits)
        return tokencode_at(seed, shown, Moment(self.clock.now // 30_000 + step))

    def reasons(self) -> list[str]:
        """Return the reasons of refused attempts from the audit log."""
        rows = self.primary_db.execute(
            "SELECT reason FROM audit_events "
            "WHERE action IN ('Authenticate', 'ContinueAuthentication') ORDER BY sequence"
        )
        return [row[0] for row in rows]


@contextlib.asynccontextmanager
async def one_node(
    folder: Path, limits: RateLimits | None = None, *, founded: bool = True
) -> AsyncIterator[OneNode]:
    """Start a node of an initialized cluster, with a signed-in administrator."""
    clock, entropy = FakeClock(), SystemEntropy()
    ring = KeyRing.draw(entropy)
    sealing, kdf = Sealing(ring), Kdf(TESTING, workers=1)
    primary_db = sqlite3.connect(folder / "primary.db", check_same_thread=False)
    local_db = sqlite3.connect(folder / "local.db", check_same_thread=False)
    primary, local = StateMachine(primary_db), StateMachine(local_db)
    seeds = SeedReader(folder / "primary.db")
    stamper = PrimaryStamper(seeds=seeds, sealing=sealing, clock=clock)
    replicator = TwoReplicas(primary, local, stamper, clock)
    state = await LocalState.open(folder / "local.db", connections=2)
    key_holder = KeyHolder(ring, RingFile(path=folder / "key.ring"))
    refusals = Refusals(clock=clock, entropy=entropy)
    node = OneNode(
        clock=clock,
        kdf=kdf,
        ring=ring,
        sealing=sealing,
        seeds=seeds,
        state=state,
        primary_db=primary_db,
        local_db=local_db,
        replicator=replicator,
        key_holder=key_holder,
        refusals=refusals,
        services=build_services(
            replicator,
            state,
            key_holder=key_holder,
            kdf=kdf,
            clock=clock,
            entropy=entropy,
            refusals=refusals,
            backup_source=BackupSource(
                write_whole=lambda target: write_whole(folder / "local.db", target),
                write_state_alone=lambda target: write_state_alone(
                    folder / "local.db", target
                ),
                directory=folder,
                version="1",
            ),
            consoles=dict(zip(("n1", "n2", "n3"), CONSOLES, strict=True)),
            limits=limits or UNLIMITED,
            authorities=lambda: (b"authority",),
            successors=lambda: tuple(
                each for each in successors(primary_db) if each.proof == PROOF
            ),
        ),
    )
    try:
        if founded:
            await initialize(node)
            await node.login()
        yield node
    finally:
        await state.close()
        kdf.close()
        seeds.close()
        primary_db.close()
        local_db.close()


async def initialize(node: OneNode) -> None:
    """Initialize the cluster with its first administrator."""
    name, salt = AdministratorName(ROOT), bytes(16)
    (hashed,) = await node.kdf.derive(
        [KdfInput(secret=Secret.PASSWORD, salt=salt, text=PASSWORD)],
        lane=Lane.ISSUING,
        share=administrators_share(name),
        timeout_s=60,
    )
    call = UnstampedCall(
        command=InitializeCluster(
            cluster_id=node.ring.cluster_id,
            administrator=name,
            password_salt=salt,
            password_verifier=node.sealing.password_verifier(
                hashed, name, node.sealing.active_key
            ),
            key_id=node.sealing.active_key,
            feature_level=NEWEST,
        ),
        request=RequestKey(
            caller="node:n1", method="init", request_id=RequestId("1"), tag=0
        ),
        node_id=NODE,
    )
    node.replicator.commit([Proposal(call=call)])


def call_of(node: OneNode, command: Command) -> UnstampedCall:
    """Return a call by the signed-in administrator that comes from another node."""
    return UnstampedCall(
        command=command,
        request=RequestKey(
            caller=f"administrator:{ROOT}",
            method="elsewhere",
            request_id=RequestId(str(uuid.uuid4())),
            tag=0,
        ),
        node_id=NodeId("n2"),
        session_id=session_id(node.bearer),
    )
