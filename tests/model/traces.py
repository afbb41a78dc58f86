# SPDX-License-Identifier: Apache-2.0
"""
Record what the nodes of a simulation become, step by step, for `Trace.tla`.

The engine and the journal are the real ones. What the specification does not have is
left out of these runs: compaction, disks that go back in time or fail for longer than
one operation, and insiders that claim what is not so.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from sparecode_node.replication.log.journal import CONFIGURATION, NO_OP, Journal
from sparecode_node.replication.members import Configuration, MemberRole
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import RaftSettings
from tests.model import checker
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.machines import Node
from tests.simulation.network import STEP_S
from tests.simulation.rollbacks import Copy
from tests.simulation.scenarios import Scenario

WHOLE_LOG: Final = RaftSettings(log_entries_max=100_000, log_entries_kept=50_000)
"""Nothing is compacted."""

STEPS_MAX: Final = 400
"""A run ends after about this many steps. Twice as many take the checker minutes."""

ROLES: Final = ("follower", "candidate", "leader")
"""By PySyncObj's numbers."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members, as an entry of the log has them."""

    voters: frozenset[str]
    learners: frozenset[str]
    removed: frozenset[str]
    names: tuple[tuple[str, int], ...]
    """The members whose journals have names, each with the number of its journal."""

    def __str__(self) -> str:
        """Return them in TLA+. A learner is any machine that is neither voter nor removed."""
        named = "".join(f"{node} :> {life} @@ " for node, life in self.names)
        return (
            f"[voters |-> {_set(sorted(self.voters))},"
            f" names |-> {named}[n \\in Nodes |-> None],"
            f" removed |-> {_set(sorted(self.removed))}]"
        )


Entry = tuple[int, str | Members]
"""The term, and what it is: "no-op", "call", or the members."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A node at a moment. Indices are one less than the journal's, which begins at 1."""

    term: int
    vote: str
    log: tuple[Entry, ...]
    role: str
    commit: int
    held: frozenset[tuple[int, int]]
    """Acknowledgements that wait for a sync, each with its term and index."""
    acked: int
    """How far it has ever acknowledged the log of its term."""
    disk: "Disk"


@dataclass(frozen=True, slots=True)
class Disk:
    """What a node would find after a crash."""

    term: int
    vote: str
    log: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What a node has become."""

    kind: str
    """ "change", "restart" or "wiped"."""
    node: str
    seen: Seen
    most: int = 0
    """The most actions that may explain it."""


@dataclass(slots=True)
class Recorder:
    """Collects the steps of a cluster."""

    steps: list[Step] = field(default_factory=list)
    _last: dict[str, Seen] = field(default_factory=dict)
    _disks: dict[str, Disk] = field(default_factory=dict)
    _deaths: dict[str, int] = field(default_factory=dict)
    """Nodes that are down, each with the place of its restart in the steps."""
    _wiped: set[str] = field(default_factory=set)
    """Nodes that are down, and will be back without what was on their disks."""
    _journals: dict[str, list[str]] = field(default_factory=dict)
    """The names of the journals of each node, one after the other."""
    _acks: dict[tuple[str, int], int] = field(default_factory=dict)

    def watch(self, journal: Journal, node: str) -> None:
        """Learn what is on the disk of a node from now on."""
        journals = self._journals.setdefault(node, [])
        if journal.journal_id not in journals:
            journals.append(journal.journal_id)
        sync = journal.sync

        def synced() -> None:
            sync()
            self._disks[node] = self._content(journal)

        journal.sync = synced  # type: ignore[method-assign]
        self._disks[node] = self._content(journal)

    def stopped(self, node: str) -> None:
        """
        Keep a place for the restart of a node that dies now.

        A node may die inside a step. What it wrote before that is known when it restarts,
        and must be explained by what the other nodes had sent when it died.
        """
        if node not in self._last:
            return  # It has never been up.
        if node not in self._deaths:  # A node may also die while it starts.
            self._deaths[node] = len(self.steps)
            # If the node never restarts, this step stays, and needs no action.
            self.steps.append(Step("change", node, self._last[node]))

    def wiped(self, node: str) -> None:
        """Record that a node, which dies now, loses its disk."""
        self._wiped.add(node)
        self._acks = {key: index for key, index in self._acks.items() if key[0] != node}

    def look(self, node: Node) -> None:
        """Record what the node has become, if that is news."""
        name = node.node_id
        seen = self._seen(node)
        last = self._last.get(name)
        self._last[name] = seen
        if last is None:
            return
        news = sum(a != b for a, b in zip(last.log, seen.log, strict=False))
        news += max(0, len(seen.log) - len(last.log))
        if name in self._deaths:
            kind = "wiped" if name in self._wiped else "restart"
            self._wiped.discard(name)
            step = Step(kind, name, seen, most=news + 6)
            self.steps[self._deaths.pop(name)] = step
        elif seen != last:
            self.steps.append(Step("change", name, seen, most=news + 6))

    def _seen(self, node: Node) -> Seen:
        engine, journal = node.running.engine, node.journal
        return Seen(
            term=engine.raftCurrentTerm,
            vote=journal.getVotedForNodeId() or "None",
            log=self._log(journal),
            role=ROLES[engine._SyncObj__raftState],
            commit=max(0, engine.raftCommitIndex - 1),
            held=frozenset(
                (ack["term"], ack["next_node_idx"] - 2)
                for _, ack in engine.guard._held
                if ack["success"] and ack["next_node_idx"] > 2
            ),
            acked=self._acked(node),
            disk=self._disks[node.node_id],
        )

    def _acked(self, node: Node) -> int:
        engine = node.running.engine
        term, _, index = engine.guard._own_promise
        name = node.node_id
        self._acks[name, term] = max(self._acks.get((name, term), 0), index - 1)
        return self._acks.get((name, engine.raftCurrentTerm), 0)

    def _content(self, journal: Journal) -> Disk:
        vote = journal.getVotedForNodeId() or "None"
        return Disk(journal.getCurrentTerm(), vote, self._log(journal))

    def _log(self, journal: Journal) -> tuple[Entry, ...]:
        return tuple(
            (term, self._kind(command)) for command, index, term in journal if index > 1
        )

    def _kind(self, command: bytes) -> str | Members:
        if command == NO_OP:
            return "no-op"
        if command[:1] != CONFIGURATION:
            return "call"
        configuration = Configuration.from_bytes(command[1:])
        # By their roles: a test may let the code count others.
        roles = {each.node_id: each.role for each in configuration.members}
        voters = frozenset(n for n, role in roles.items() if role is MemberRole.VOTER)
        return Members(
            voters=voters,
            learners=frozenset(roles) - voters,
            removed=frozenset(configuration.removed),
            names=tuple(
                (each.node_id, 1 + self._journals[each.node_id].index(each.journal_id))
                for each in configuration.members
                if each.journal_id
            ),
        )


class RecordedCluster(SimCluster):
    """A simulated cluster whose nodes are recorded."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed, scenario)
        self.recorder = Recorder()
        # Rogues claim terms and logs that no node has, so no action explains the answers.
        self.rogues.rate = 0.0
        send = self.network.send

        def sent(source: str, target: str, message: Message) -> None:
            self.recorder.look(self.nodes[source])
            send(source, target, message)

        self.network.send = sent  # type: ignore[method-assign]

    def run_on(
        self, node: Node, act: Callable[[Any], object], *, starting: bool = False
    ) -> bool:
        """Do something in a node's process, and record what the node has become."""
        if not super().run_on(node, act, starting=starting):
            return False
        if starting:
            self.recorder.watch(node.journal, node.node_id)
        self.recorder.look(node)
        return True

    def _die(self, node: Node, *, power: bool, cause: str) -> None:
        super()._die(node, power=power, cause=cause)
        self.recorder.stopped(node.node_id)

    def wipe(self, node: Node) -> None:
        """Take a machine's disk from it."""
        super().wipe(node)
        self.recorder.wiped(node.node_id)

    def recording(self) -> "Recording":
        """Return what was recorded."""
        # The simulation takes any exception for a death, the recorder's own too.
        violations = self.invariants.violations
        assert "no exception" not in violations, violations
        return Recording(tuple(self.ids), self.scenario.nodes, self.recorder.steps)

    def fail_disk(self, node: str) -> None:
        """Leave the disk as it is."""

    def fill_disk(self, node: str, seconds: float) -> None:
        """Leave the disk as it is."""

    def put_back(self, node: Node, copy: Copy) -> None:
        """Leave the disk as it is."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What the nodes of a cluster have become, one step after the other."""

    nodes: tuple[str, ...]
    """All machines, the founders first."""
    founders: int
    steps: list[Step]

    def counts(self) -> Counter[str]:
        """Return how much there is of what distinguishes one recording from another."""
        counts = Counter(
            steps=len(self.steps),
            restarts=sum(step.kind == "restart" for step in self.steps),
            wiped=sum(step.kind == "wiped" for step in self.steps),
            terms=max((step.seen.term for step in self.steps), default=0),
        )
        for before, after in self._changes():
            counts["learners"] += len(after.learners - before.learners)
            counts["joined"] += len(after.voters - before.voters)
            counts["left"] += len(after.removed - before.removed)
        return counts

    def _changes(self) -> set[tuple[Members, Members]]:
        """Return the members before and after each entry with members, but the first."""
        logs = {step.seen.log for step in self.steps}
        members = (
            [kind for _, kind in log if isinstance(kind, Members)] for log in logs
        )
        return {pair for each in members for pair in itertools.pairwise(each)}


PROFILES: Final = tuple(
    profile for profile in Profile if profile not in (Profile.DISKS, Profile.MEMBERS)
)
"""The kinds of faults that runs take turns with. In some of them members change, too."""


def record(seed: int, *, seconds: float, profile: Profile | None = None) -> Recording:
    """
    Return the steps of a run of three nodes with faults, in *seconds* of its time at most.

    Without *profile*, the seeds take turns with `PROFILES`.
    """
    profile = profile or PROFILES[seed % len(PROFILES)]
    scenario = Scenario(profile=profile, seconds=seconds, raft=WHOLE_LOG)
    sim = RecordedCluster(seed, scenario)
    with sim.world():
        sim.set_up()
        for _ in range(round(seconds / STEP_S)):
            if len(sim.recorder.steps) >= STEPS_MAX:
                break
            sim.step(faulty=True)
    sim.close()
    return sim.recording()


@dataclass(frozen=True, slots=True)
class Explanation:
    """How far the specification allows what was recorded."""

    steps: int
    explained: int
    states: int
    """That the checker has visited."""
    first_refused: Step | None
    news: frozenset[str] = frozenset()
    """What is new about the node in the refused step, by the fields of `Seen`."""


def explain(recording: Recording, *, timeout_s: float = 3600) -> Explanation:
    """Look for actions of the specification that explain the steps. Raises `CheckerError`."""
    steps = recording.steps
    outcome = checker.run(
        module(recording), _configuration(recording), timeout_s=timeout_s
    )
    numbers = [int(each) for each in _EXPLAINED.findall(outcome.story)]
    explained = max(numbers, default=0)
    if outcome.violated is not None:
        return Explanation(len(steps), explained, outcome.states, None)
    refused = steps[explained]
    news = _news(refused, steps[:explained])
    return Explanation(len(steps), explained, outcome.states, refused, news)


def _news(step: Step, earlier: list[Step]) -> frozenset[str]:
    before = [each.seen for each in earlier if each.node == step.node]
    return frozenset(
        each.name
        for each in fields(Seen)
        if not before or getattr(before[-1], each.name) != getattr(step.seen, each.name)
    )


_EXPLAINED: Final = re.compile(r'<<"explained", (\d+)>>')


def _configuration(recording: Recording) -> str:
    nodes, steps = recording.nodes, recording.steps
    seen = [step.seen for step in steps]
    values = {
        **{node: node for node in nodes},
        "Nodes": _set(nodes),
        "Founders": _set(nodes[: recording.founders]),
        "Named": "FALSE",
        "MaxTerm": max(each.term for each in seen) + 1,
        "MaxLog": max(len(each.log) for each in seen) + 1,
        "MaxCrashes": len(steps),
        "MaxWipes": sum(step.kind == "wiped" for step in steps),
        "MaxChanges": len(steps),
        "MaxReads": 0,
        "Broken": "{}",
        "Last": len(steps),
    }
    return "\n".join(
        [
            "SPECIFICATION TraceSpec",
            "VIEW Known",
            "CONSTANTS",
            *(f"  {name} = {value}" for name, value in values.items()),
            "  Steps <- Recording",
            # Violated when all steps are explained.
            "INVARIANTS NotExplained",
            "",
        ]
    )


def module(recording: Recording) -> str:
    """Return the module that gives the steps to `Trace.tla`."""
    steps = recording.steps
    entries = {entry: number for number, entry in enumerate(_entries(steps), 1)}
    return "\n".join(
        [
            "---- MODULE Recorded ----",
            "EXTENDS Trace",
            f"CONSTANTS {', '.join(recording.nodes)}",
            f"Entry == <<{', '.join(map(_entry, entries))}>>",
            "Log(numbers) == [i \\in DOMAIN numbers |-> Entry[numbers[i]]]",
            "Ack(t, i) == [term |-> t, index |-> i]",
            (
                "Is(k, n, t, v, l, r, c, h, a, dt, dv, d, m) == [kind |-> k, node |-> n, term |-> t,"
                " vote |-> v, log |-> Log(l), role |-> r, commit |-> c, held |-> h,"
                " acked |-> a, diskTerm |-> dt, diskVote |-> dv, disk |-> Log(d), most |-> m]"
            ),
            "Recording == <<",
            ",\n".join(_step(step, entries) for step in steps),
            ">>",
            "====",
            "",
        ]
    )


def _entries(steps: list[Step]) -> dict[Entry, None]:
    seen = [step.seen for step in steps]
    return dict.fromkeys(
        entry for each in seen for entry in (*each.log, *each.disk.log)
    )


def _entry(entry: Entry) -> str:
    term, kind = entry
    if isinstance(kind, Members):
        return f'[term |-> {term}, kind |-> "members", members |-> {kind}]'
    return f'[term |-> {term}, kind |-> "{kind}"]'


def _step(step: Step, entries: dict[Entry, int]) -> str:
    seen = step.seen

    def log(of: tuple[Entry, ...]) -> str:
        return f"<<{', '.join(str(entries[each]) for each in of)}>>"

    held = _set(f"Ack({term}, {index})" for term, index in sorted(seen.held))
    return (
        f'Is("{step.kind}", {step.node}, {seen.term}, {seen.vote}, {log(seen.log)},'
        f' "{seen.role}", {seen.commit}, {held}, {seen.acked},'
        f" {seen.disk.term}, {seen.disk.vote}, {log(seen.disk.log)}, {step.most})"
    )


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(values) + "}"
