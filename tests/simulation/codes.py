# SPDX-License-Identifier: Apache-2.0
"""The real state machine in the simulated cluster, and users who use their codes."""

import contextlib
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine import audit
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.keys import RetireKey
from sparecode_node.statemachine.results import Authenticated
from tests.simulation import sealed
from tests.simulation.agreement import Agreement
from tests.simulation.archives import Archives, short_retention
from tests.simulation.cluster import SimCluster
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.machines import Node
from tests.simulation.people import FEW_CODES, REISSUED, Try
from tests.simulation.rotations import (
    END_S,
    EngineClock,
    EngineReplicator,
    Rotations,
)
from tests.simulation.rules import CodeRules
from tests.simulation.scenarios import Scenario
from tests.simulation.sealed import SealedFile
from tests.simulation.sqlite_store import SqliteStore
from tests.simulation.work import PeopleAtWork

KEEP_EACH = 20
"""Steps between two looks at the sealed segments."""
TRY_S = 10.0
"""For a decision about a code at the end; a new primary has no quorum for a moment."""
RETAINING = 3
"""One seed in this number has archives and a retention."""
AGREEING = 2
"""And one in it has nodes that agree by the log on what they discard, as in the product."""
ARCHIVE_EACH = 8
"""Steps between two looks at the archives."""
READ_AGAIN, ROT = 0.3, 0.1
"""How often stored segments are read again, and how often a file is damaged."""


class CodesCluster(SimCluster, PeopleAtWork):
    """Agents and administrators on all nodes."""

    rules: CodeRules
    rotates = True
    """Whether keys are rotated, in some of the runs."""
    has_archives = True
    """Whether segments are archived and removed, in some of the runs."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        PeopleAtWork.__init__(self)
        SimCluster.__init__(self, seed, scenario)
        self._steps = 0
        keys = random.Random(f"{seed} {scenario.nodes} keys")
        self.rotations = Rotations.drawn(self, keys) if self.rotates else None
        self._dice = random.Random(f"{seed} segments")

        def forward(
            leader: str, request_id: str, make: Callable[[], UnstampedCall]
        ) -> Submission:
            return self.propose(self.nodes[leader], request_id, make)

        self._agreement: Agreement | None = None
        if self.has_archives and seed % RETAINING == AGREEING:
            self._agreement = Agreement(
                random.Random(f"{seed} forger"), self.rules, self.leader, forward
            )
        self._archives: Archives | None = None
        if self.has_archives and seed % RETAINING == 1:
            self._archives = Archives(
                random.Random(f"{seed} archives"), self.rules, self.leader, forward
            )
            self.rules.check_archives = self._archives.check

    def _invariants(self) -> Invariants:
        self.rules = CodeRules()
        return self.rules

    # --- The beginning

    def set_up(self) -> None:
        """Create a leader, users and codes before anything goes wrong."""
        super().set_up()
        for each in self.beginnings():
            self._insist(each)

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
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            patch.setattr(audit, "SEGMENT_EVENTS", sealed.EVENTS)
            if self.rotations:
                stack.enter_context(self.rotations.at_work())
            if self._archives is not None:
                short_retention(patch)
            with super().world(risk=risk):
                yield

    def step(self, *, faulty: bool) -> None:
        super().step(faulty=faulty)
        if self.rotations:
            self.rotations.look()
            if faulty:
                self.rotations.act()
        self._steps += 1
        if self._steps % KEEP_EACH == 0:
            self._keep_segments(faulty=faulty)
        if self._archives is not None and self._steps % ARCHIVE_EACH == 0:
            up = [each for each in self.live() if not each.is_paused()]
            stores = [(n.store, n) for n in up if isinstance(n.store, SqliteStore)]
            self._archives.look(stores, faulty=faulty)

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
        agreed: object = None
        if self._agreement is None:
            agreed = _agreed(stores[0][0], [each.sealed for each in files.values()])
        for store, node in stores:
            if self._agreement is not None:
                agreed = self._agreement.look(node, store, faulty=faulty) or agreed
            else:
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

    def close(self) -> None:
        super().close()
        if self._archives is not None:
            self._archives.close()

    def _read_again(self, store: SqliteStore) -> None:
        rotten = store.sealed.read_again(store.db)
        self.rules.comparisons[Comparison.ROTTEN] += rotten

    def _fetch(self, store: SqliteStore, others: Sequence[SqliteStore]) -> None:
        """Fetch what a machine lacks."""
        for segment in store.sealed.lacks(store.db):
            if self._agreement and self._agreement.forge(segment, store, others):
                continue
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
        if self.rotations:
            self._end_rotations(self.rotations)
        super().check()
        if self.rotations:
            belonging = self.memberships.belonging()
            self.rotations.check([self.nodes[i] for i in belonging])

    # --- Rotations of keys

    def _end_rotations(self, rotations: Rotations) -> None:
        """Let keys be retired; see that a code which no one has tried works then."""
        end = self.now + END_S
        while self.now < end:
            self.step(faulty=False)
            members = [self.nodes[i] for i in self.memberships.belonging()]
            if all(map(rotations.all_retired, members)):
                break
        if (wanted := self.untried()) is not None:
            self.rules.check_works(wanted.what, self._tried(wanted))

    def _tried(self, wanted: Try) -> Submission | None:
        """Try a code until there is a decision; return the last try."""
        tried: Submission | None = None
        end = self.now + TRY_S
        while self.now < end:
            self.step(faulty=False)
            if (leader := self.leader()) is None:
                continue
            node = self.nodes[leader]
            if tried is None:
                tried = self.try_once(node, wanted)
            else:  # The same call: the code may be spent, and the caller was not told.
                tried = self._request(node, self._client_requests[-1])
            while not (tried.outcomes or tried.node_died):
                self.step(faulty=False)
            if any(isinstance(each, Authenticated) for each in tried.outcomes):
                break
        return tried

    def spawn_on(self, node: Node, work: Coroutine[Any, Any, None]) -> None:
        """Run background work in the process of a node."""
        self.keepers.process_of(node).spawn(work)

    def clock_of(self, node: Node) -> EngineClock:
        return EngineClock(node, self.keepers.process_of(node).loop.time)

    def replicator_of(self, node: Node) -> EngineReplicator:
        def submit(proposal: Proposal) -> Submission:
            command, rotations = proposal.call.command, self.rotations
            if isinstance(command, RetireKey) and rotations and rotations.races():
                # The resealer has looked at all values just before.
                self._issue(node, REISSUED, FEW_CODES, command.key_id)
            request_id = proposal.call.request.request_id
            return self.propose(node, request_id, lambda: proposal.call)

        return EngineReplicator(node, submit)

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
            self.ask_something(node)

    def probe(self, node: Node, name: str) -> Submission:
        made = self.guess_of(node, name)
        return self.propose(node, name, lambda: made)


def _agreed(store: SqliteStore, files: Sequence[SealedFile]) -> int:
    """Return the newest segment up to which every file has all of them."""
    agreed = removed = store.db.removed().through
    stored = [each.stored() for each in files]
    for segment in store.db.all_sealed():
        if segment.number <= removed:
            continue
        if any(each.get(segment.number) != segment.hash_after for each in stored):
            break
        agreed = segment.number
    return agreed


def scenario(nodes: int) -> Scenario:
    """Return the scenario of `make sim`."""
    return Scenario(nodes=nodes, store=SqliteStore)
