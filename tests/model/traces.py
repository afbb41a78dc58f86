# SPDX-License-Identifier: Apache-2.0
"""
Record what the nodes of a simulation become, step by step, for `Trace.tla`.

The engine and the journal are the real ones. What the specification does not have is
left out of these runs: compaction, changes of members but for their journals' names,
and disks that fail for longer than one operation.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sparecode_node.replication.log.journal import CONFIGURATION, NO_OP, Journal
from sparecode_node.replication.members import Configuration
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

ROLES: Final = ("follower", "candidate", "leader")
"""By PySyncObj's numbers."""

Entry = tuple[int, str]
"""The term, and what it is: "no-op", "call", or a configuration in TLA+."""


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
    """ "change" or "restart"."""
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
    _acks: dict[tuple[str, int], int] = field(default_factory=dict)

    def watch(self, journal: Journal, node: str) -> None:
        """Learn what is on the disk of a node from now on."""
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
        if node not in self._deaths:  # A node may also die while it starts.
            self._deaths[node] = len(self.steps)
            # If the node never restarts, this step stays, and needs no action.
            self.steps.append(Step("change", node, self._last[node]))

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
            step = Step("restart", name, seen, most=news + 6)
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

    def _kind(self, command: bytes) -> str:
        if command == NO_OP:
            return "no-op"
        if command[:1] != CONFIGURATION:
            return "call"
        members = Configuration.from_bytes(command[1:])
        names = {
            member.node_id: 1 if member.journal_id else 0 for member in members.members
        }
        nodes = " @@ ".join(f"{node} :> {names[node]}" for node in sorted(names))
        return (
            f"[voters |-> {_set(sorted(members.voters))}, names |-> {nodes},"
            f" removed |-> {_set(members.removed)}]"
        )


class RecordedCluster(SimCluster):
    """A simulated cluster whose nodes are recorded."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed, scenario)
        self.recorder = Recorder()
        self.memberships.rate = 0.0
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

    def fail_disk(self, node: str) -> None:
        """Leave the disk as it is."""

    def fill_disk(self, node: str, seconds: float) -> None:
        """Leave the disk as it is."""

    def put_back(self, node: Node, copy: Copy) -> None:
        """Leave the disk as it is."""


PROFILES: Final = tuple(
    profile for profile in Profile if profile not in (Profile.DISKS, Profile.MEMBERS)
)


def record(seed: int, *, seconds: float, profile: Profile | None = None) -> list[Step]:
    """
    Return the steps of a run of three nodes with faults, in *seconds* of its time.

    Without *profile*, the seeds take turns with all kinds of faults.
    """
    profile = profile or PROFILES[seed % len(PROFILES)]
    scenario = Scenario(profile=profile, seconds=seconds, raft=WHOLE_LOG)
    sim = RecordedCluster(seed, scenario)
    with sim.world():
        sim.set_up()
        for _ in range(round(seconds / STEP_S)):
            sim.step(faulty=True)
    sim.close()
    # The simulation takes any exception for a death, the recorder's own too.
    assert "no exception" not in sim.invariants.violations, sim.invariants.violations
    return sim.recorder.steps


@dataclass(frozen=True, slots=True)
class Explanation:
    """How far the specification allows what was recorded."""

    steps: int
    explained: int
    states: int
    """That the checker has visited."""
    first_refused: Step | None


def explain(steps: list[Step], *, timeout_s: float = 3600) -> Explanation:
    """Look for actions of the specification that explain the steps. Raises `CheckerError`."""
    outcome = checker.run(module(steps), _configuration(steps), timeout_s=timeout_s)
    numbers = [int(each) for each in _EXPLAINED.findall(outcome.story)]
    explained = max(numbers, default=0)
    refused = steps[explained] if outcome.violated is None else None
    return Explanation(len(steps), explained, outcome.states, refused)


_EXPLAINED: Final = re.compile(r'<<"explained", (\d+)>>')


def _configuration(steps: list[Step]) -> str:
    seen = [step.seen for step in steps]
    nodes = sorted({step.node for step in steps})
    values = {
        **{node: node for node in nodes},
        "Nodes": _set(nodes),
        "Founders": _set(nodes),
        "Named": "FALSE",
        "MaxTerm": max(each.term for each in seen) + 1,
        "MaxLog": max(len(each.log) for each in seen) + 1,
        "MaxCrashes": len(steps),
        "MaxWipes": 0,
        "MaxChanges": 0,
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


def module(steps: list[Step]) -> str:
    """Return the module that gives the steps to `Trace.tla`."""
    entries = {entry: number for number, entry in enumerate(_entries(steps), 1)}
    nodes = sorted({step.node for step in steps})
    return "\n".join(
        [
            "---- MODULE Recorded ----",
            "EXTENDS Trace",
            f"CONSTANTS {', '.join(nodes)}",
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
    if kind.startswith("["):
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
