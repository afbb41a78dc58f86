# SPDX-License-Identifier: Apache-2.0
"""The real state machine in the simulated cluster, and people who use their codes."""

import random
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    KeyId,
    NameKey,
    NodeId,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.passcodes import CodeCandidate, Reading
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.replication.proposals import Outcome
from sparecode_node.statemachine.commands import (
    AssignToken,
    Authenticate,
    Call,
    Command,
    CreateUser,
    EnrollToken,
    InitializeCluster,
    OpenSession,
    RegisterAgent,
    RequestKey,
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Authenticated, Decision
from tests.simulation.cluster import Scenario, SimCluster
from tests.simulation.machines import Node

CODES = 20
KEY = KeyId(1)
SESSION = SessionId("open")
USER = UserId("ada")
SERIAL = TokenSerial("1001")
SET = SetId("set")
AGENT = AgentIdentity("vpn")
SETUP: tuple[Command, ...] = (
    InitializeCluster(
        cluster_id="simulated",
        administrator=AdministratorName("root"),
        password_salt=b"salt",
        password_verifier=b"right",
        key_id=KEY,
    ),
    OpenSession(
        administrator=AdministratorName("root"),
        candidate=b"right",
        administrator_version=1,
        key_id=KEY,
        session_id=SESSION,
    ),
    RegisterAgent(
        name="VPN",
        name_key=NameKey("vpn"),
        identity=AGENT,
        protects=Protects.AUTHENTICATION_MANAGER,
    ),
    CreateUser(
        user_id=USER,
        username="ada",
        name_key=NameKey("ada"),
        name_tag=b"ada",
        display_name="Ada",
        email="",
        pin_salt=b"p",
        code_salt=b"c",
    ),
    EnrollToken(
        serial=SERIAL,
        algorithm=Algorithm.TOTP,
        hash_name=HashName.SHA1,
        digits=6,
        period_s=30,
        counter=0,
        sealed_seed=b"seed",
        key_id=KEY,
        pin_rule=PinRule.NONE,
        expires_at_ms=None,
    ),
    AssignToken(serial=SERIAL, name_key=NameKey("ada")),
)


class SqliteStore:
    """The real state; a power cut takes the database back to an earlier moment."""

    KEPT_EVERY = 8

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._open(None)

    def _open(self, image: bytes | None) -> None:
        self.db = sqlite3.connect(":memory:")
        if image is not None:
            self.db.deserialize(image)
        self.machine = StateMachine(self.db)

    @property
    def state(self) -> "SqliteStore":
        return self

    @property
    def applied_index(self) -> int:
        return self.machine.applied_index

    @property
    def now_ms(self) -> int:
        return self.machine.now_ms

    def apply(self, index: int, calls: tuple[Call, ...]) -> tuple[object, ...]:
        results = self.machine.apply(index, calls)
        if index % self.KEPT_EVERY == 0:
            self._kept = [*self._kept[-3:], self.db.serialize()]
        return results

    def lose_power(self, rng: random.Random) -> None:
        """Go back to one of the last states that may have reached the disk."""
        if self._kept:
            self._open(rng.choice(self._kept))

    def applied(self) -> dict[str, int]:
        """Return request id -> index of what is remembered."""
        rows = self.db.execute("SELECT request_id, result ->> 'index' FROM requests")
        return {request: int(index) for request, index in rows if index is not None}

    def digest(self) -> str:
        return self.machine.digest()

    def auth_version(self) -> int:
        """Return the version that candidates are computed with."""
        row = self.db.execute("SELECT auth_version FROM users").fetchone()
        return int(row[0]) if row else 0


@dataclass
class Spending:
    """Who was let in with which code."""

    accepted: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


class CodesCluster(SimCluster):
    """Agents on all nodes try the codes of one set, again and again."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed, scenario)
        self.spending = Spending()
        self._setup = 0
        self._tries = 0

    def client(self) -> None:
        """Set up, one step after the other; then try codes."""
        leader = self.leader()
        if leader is None:
            return
        node = self.nodes[leader]
        if self._setup < len(SETUP) + 1:
            self._set_up(node)
            return
        for _ in range(self.rng.choice([1, 2, 4])):
            if self._tries and self.rng.random() < 0.25:
                number = self.rng.randint(max(1, self._tries - 10), self._tries)
            else:
                self._tries = number = self._tries + 1
            code = 1 + random.Random(f"{number}").randrange(CODES)
            if node.is_up():
                self._try_code(node, f"try{number}", code)

    def _set_up(self, node: Node) -> None:
        store = node.store
        assert isinstance(store, SqliteStore)
        command: Command
        if self._setup < len(SETUP):
            command = SETUP[self._setup]
        else:
            command = self._save(store.auth_version())
        name = f"setup{self._setup}.{self.rng.randrange(10**9)}"
        submission = self.propose(
            node, name, lambda: self.call_of(command, "administrator:root", name)
        )
        step = self._setup
        deadline = self.now + 3
        while self.now < deadline and not submission.outcomes:
            if submission.node_died:
                return
            self.step(faulty=False)
        refused = "Rejected" in repr(submission.outcomes)
        done = submission.outcomes and not isinstance(submission.outcomes[0], Exception)
        # Refused as done already is done too: the first answer was lost.
        if done and (not refused or step < len(SETUP)):
            self._setup = step + 1

    def _save(self, auth_version: int) -> SaveEmergencyAccess:
        codes = (SealedCode(ordinal=n, verifier=b"%d" % n) for n in range(1, CODES + 1))
        return SaveEmergencyAccess(
            serial=SERIAL,
            user_id=USER,
            auth_version=auth_version,
            policy_version=1,
            key_id=KEY,
            set_id=SET,
            code_length=8,
            codes=tuple(codes),
            ends_at_ms=None,
            lifetime_ms=None,
            recovery=RecoveryPolicy.DENY,
            keep_unused_codes=False,
            weaken_recovery_policy=False,
            draft_id="",
            draft_ends_at_ms=0,
        )

    def _try_code(self, node: Node, request: str, code: int) -> None:
        store = node.store
        assert isinstance(store, SqliteStore)
        reading = Reading(
            length=8,
            emergency=True,
            bare=True,
            pins=(),
            codes=(CodeCandidate(set_id=SET, verifier=b"%d" % code),),
            tokencodes=(),
        )
        command = Authenticate(
            authentication_id=request,
            agent=AGENT,
            name_tag=b"ada",
            user_id=USER,
            auth_version=store.auth_version(),
            policy_version=1,
            key_id=KEY,
            lettered=True,
            readings=(reading,),
            client_address="",
            resource="",
        )
        submission = self.propose(
            node, request, lambda: self.call_of(command, "agent:vpn", request)
        )
        submission.watch = lambda outcome: self._spent(code, request, outcome)

    def _spent(self, code: int, request: str, outcome: Outcome) -> None:
        if isinstance(outcome, Authenticated) and outcome.decision is Decision.ACCEPTED:
            who = self.spending.accepted[code]
            who.add(request)
            if len(who) > 1:
                self.invariants.violated("spent once", f"code {code} by {sorted(who)}")

    def call_of(self, command: Command, caller: str, request: str) -> Call:
        """Return a call as a node makes it."""
        return Call(
            command=command,
            request=RequestKey(
                caller=caller,
                method=type(command).__name__,
                request_id=RequestId(request),
                tag=1,
            ),
            node_id=NodeId("n1"),
            session_id=SESSION,
            at_ms=0,
        )
