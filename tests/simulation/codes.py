# SPDX-License-Identifier: Apache-2.0
"""The real state machine in the simulated cluster, and users who use their codes."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from sparecode_node.statemachine import audit
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.tables import segments
from tests.simulation import sealed
from tests.simulation.cluster import SimCluster
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.machines import Node
from tests.simulation.people import (
    CODES,
    FEW_CODES,
    FOUNDING,
    GUESSED,
    HURRIED,
    REISSUED,
    SPENDERS,
    TOKEN_USER,
    IssuedSet,
    Try,
    beginning,
    call_of,
    open_session,
)
from tests.simulation.rules import CodeRules
from tests.simulation.scenarios import Scenario
from tests.simulation.sealed import SealedFile
from tests.simulation.sqlite_store import MachineStore, SqliteStore

KEEP_EACH = 20
"""Steps between two looks at the sealed segments."""
READ_AGAIN, ROT = 0.3, 0.1
"""How often stored segments are read again, and how often a file is damaged."""
RECENT = 12
"""The number of requests that are retried, and of codes tried at one time."""


@dataclass(frozen=True)
class ClientRequest:
    """A request that a client may repeat, here or elsewhere."""

    request_id: str
    wanted: Try


class CodesCluster(SimCluster):
    """Agents and administrators on all nodes."""

    rules: CodeRules

    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed, scenario)
        self._client_requests: list[ClientRequest] = []
        self._issued: dict[str, int] = {}
        self._names = 0
        self._steps = 0
        self._dice = random.Random(f"{seed} segments")

    def _invariants(self) -> Invariants:
        self.rules = CodeRules()
        return self.rules

    def _name(self, what: str) -> str:
        self._names += 1
        return f"{what}{self._names}"

    # --- The beginning

    def set_up(self) -> None:
        """Create a leader, users and codes before anything goes wrong."""
        super().set_up()
        self._insist(lambda node: [self._admin(node, FOUNDING, "founding")])
        self._insist(
            lambda node: [
                self._sign_in(node, "open.first"),
                *(
                    self._admin(node, command, f"beginning{k}", "open.first")
                    for k, command in enumerate(beginning())
                ),
            ]
        )
        for user in (*SPENDERS, GUESSED):
            self._insist(lambda node, user=user: self._issue(node, user, CODES))
        for user in (REISSUED, HURRIED):
            self._insist(lambda node, user=user: self._issue(node, user, FEW_CODES))

    def _insist(self, ask: Callable[[Node], list[Submission]]) -> None:
        """Ask until everything is done."""
        deadline = self.now + 60
        while self.now < deadline:
            self.step(faulty=False)
            if (leader := self.leader()) is None:
                continue
            calls = ask(self.nodes[leader])
            for _ in range(200):
                self.step(faulty=False)
                if all(s.outcomes or s.node_died for s in calls):
                    break
            if all(self.acked(submission) for submission in calls):
                return
        raise AssertionError("a cluster in good health does not begin")

    # --- Sealed segments of the audit log

    @contextlib.contextmanager
    def world(self, *, risk: float = 0.0) -> Iterator[None]:
        """Seal after a few events: a run has not many."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audit, "SEGMENT_EVENTS", sealed.EVENTS)
            with super().world(risk=risk):
                yield

    def step(self, *, faulty: bool) -> None:
        super().step(faulty=faulty)
        self._steps += 1
        if self._steps % KEEP_EACH == 0:
            self._keep_segments(faulty=faulty)

    def _keep_segments(self, *, faulty: bool) -> None:
        """Let machines store, fetch, read again and discard; some lose their files."""
        files = {
            node.node_id: node.store
            for node in (self.nodes[i] for i in self.memberships.belonging())
            if isinstance(node.store, SqliteStore)
        }
        up = [each for each in self.live() if not each.is_paused()]
        stores = [(n.store, n) for n in up if isinstance(n.store, SqliteStore)]
        self._dice.shuffle(stores)
        for store, _ in stores:
            store.sealed.keep(store.db)
            self._fetch(store, [each for each, _ in stores])
        if not stores:
            return
        agreed = _agreed(stores[0][0], [each.sealed for each in files.values()])
        for store, _ in stores:
            store.machine.stored = sealed.discardable(store.db, agreed)
            if self._dice.random() < READ_AGAIN or not faulty:
                self._read_again(store)
        if not (faulty and agreed and self._dice.random() < ROT):
            return
        # Of all copies, one at a time is damaged: the others are enough.
        for store, _ in stores:
            self._read_again(store)
        if len(stores) == len(files) and not any(
            store.sealed.lacks(store.db) for store, _ in stores
        ):
            self._dice.choice(stores)[0].sealed.rot(self._dice)

    def _read_again(self, store: SqliteStore) -> None:
        rotten = store.sealed.read_again(store.db)
        self.rules.comparisons[Comparison.ROTTEN] += rotten

    def _fetch(self, store: SqliteStore, others: Sequence[SqliteStore]) -> None:
        """Fetch what a machine lacks."""
        for segment in store.sealed.lacks(store.db):
            if any(
                store.sealed.fetch(segment, other.sealed)
                for other in others
                if other is not store
            ):
                self.rules.comparisons[Comparison.FETCHED] += 1

    def check(self) -> None:
        """Let machines fetch what they lack before everything is compared."""
        for _ in range(4 * KEEP_EACH):
            self.step(faulty=False)
        super().check()

    # --- Clients

    def client(self) -> None:
        """Do what people do, mostly where the leader is."""
        leader = self.leader()
        for _ in range(self.rng.choice([1, 2, 2, 4])):
            up = [n for n in self.live() if not n.is_paused()]
            if not up:
                return
            node = self.nodes[leader] if leader else self.rng.choice(up)
            if not node.is_up() or self.rng.random() < 0.1:
                node = self.rng.choice(up)
            self._act(node)

    def _act(self, node: Node) -> None:
        acts: list[tuple[float, Callable[[Node], object]]] = [
            (0.50, self._spend),
            (0.22, self._repeat),
            (0.03, self._reuse_id),
            (0.05, self._guess),
            (0.07, self._use_token),
            (0.05, self._reissue),
        ]
        weights = [weight for weight, _ in acts]
        [(_, act)] = self.rng.choices(acts, weights)
        act(node)

    def _ask(self, node: Node, request: ClientRequest) -> None:
        version = _store(node).auth_version(request.wanted.user)
        wanted = request.wanted
        made = call_of(
            wanted.command(version),
            request.request_id,
            content=f"{wanted.user} {wanted.what}",
        )
        self.propose(node, request.request_id, lambda: made)

    def _try(self, node: Node, wanted: Try) -> None:
        request = ClientRequest(self._name("try"), wanted)
        self._client_requests.append(request)
        self._ask(node, request)

    def _spend(self, node: Node) -> None:
        """Try a code that others try at the same time."""
        user = self.rng.choice([*SPENDERS, *SPENDERS, REISSUED, HURRIED])
        number = self._issued[user]
        if user in SPENDERS:
            place = len(self._client_requests) // 5 + self.rng.randrange(3)
            ordinal = 1 + place % CODES
        else:
            number = max(1, number - self.rng.choice([0, 0, 1]))
            ordinal = self.rng.randint(1, FEW_CODES)
        set_id = IssuedSet(user, number, 0).set_id
        self._try(node, Try(user, set_id, ordinal))

    def _repeat(self, node: Node) -> None:
        """Retry, like a caller that got no answer, or not the wanted one."""
        if self._client_requests:
            self._ask(node, self.rng.choice(self._client_requests[-RECENT:]))

    def _reuse_id(self, node: Node) -> None:
        """Ask something else under a request id that is taken."""
        if len(self._client_requests) >= 2:
            one, other = self.rng.sample(self._client_requests[-RECENT:], 2)
            self._ask(node, ClientRequest(one.request_id, other.wanted))

    def _guess(self, node: Node) -> None:
        set_id = IssuedSet(GUESSED, 1, 0).set_id
        self._try(node, Try(GUESSED, set_id, 1000 + self.rng.randrange(9)))

    def _use_token(self, node: Node) -> None:
        step = int(node.wall_s()) // 30 + self.rng.randint(-1, 1)
        self._try(node, Try(TOKEN_USER, moment=step))

    def _reissue(self, node: Node) -> None:
        self._issue(node, self.rng.choice([REISSUED, HURRIED]), FEW_CODES)

    def _issue(self, node: Node, user: str, codes: int) -> list[Submission]:
        number = self._issued[user] = self._issued.get(user, 0) + 1
        lifetime_ms = self.rng.randint(200, 3000) if user == HURRIED else None
        issued = IssuedSet(user, number, codes, lifetime_ms)
        self.rules.sets[issued.set_id] = issued
        session = self._name("open.")
        signed_in = self._sign_in(node, session)
        if not node.is_up():
            return [signed_in]
        command = issued.command(_store(node).auth_version(user))
        saved = self._admin(node, command, f"save.{issued.set_id}", session)
        return [signed_in, saved]

    def _sign_in(self, node: Node, session: str) -> Submission:
        return self._admin(node, open_session(session), f"sign-in.{session}")

    def _admin(
        self, node: Node, command: Command, request: str, session: str = ""
    ) -> Submission:
        made = call_of(command, request, content=request, session=session)
        return self.propose(node, request, lambda: made)

    def probe(self, node: Node, name: str) -> Submission:
        """Try to guess: being refused is an answer too."""
        wanted = Try(GUESSED, IssuedSet(GUESSED, 1, 0).set_id, 9999)
        version = _store(node).auth_version(GUESSED)
        made = call_of(wanted.command(version), name, content=name)
        return self.propose(node, name, lambda: made)


def _agreed(store: SqliteStore, files: Sequence[SealedFile]) -> int:
    """Return the newest segment up to which every file has all of them."""
    agreed = 0
    stored = [each.stored() for each in files]
    for segment in segments.all_sealed(store.db):
        if any(each.get(segment.number) != segment.hash_after for each in stored):
            break
        agreed = segment.number
    return agreed


def _store(node: Node) -> MachineStore:
    assert isinstance(node.store, MachineStore)
    return node.store


def scenario(nodes: int) -> Scenario:
    """Return the scenario of `make sim`."""
    return Scenario(nodes=nodes, store=SqliteStore)
