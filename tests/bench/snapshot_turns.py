# SPDX-License-Identifier: Apache-2.0
"""
When the nodes of an estate take snapshots, by their logs, and how far apart these are.

Members begin in turns: each has its own part of the log's indexes (`compaction`). A turn
is a number of entries, whatever a snapshot takes. So the beginnings are compared with the
turns in entries, and what a turn lasts with what a snapshot takes in seconds.
"""

import datetime as dt
import itertools
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import LocalNode

from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.state.state_process import StateProcesses
from tests.bench.estate import Estate
from tests.bench.harness import Bench

TAKEN = re.compile(
    r"^(\S+Z) .*\bsnapshot_taken\b.*\bindex=(\d+)\b.*\bseconds=([0-9.]+)", re.MULTILINE
)
QUARTERS = 4
"""A member's turn is within a quarter of the entries that may come and go."""
APART_MIN = 0.5
"""Of a turn: a member begins in the first half of its own one."""


@dataclass(frozen=True, kw_only=True, order=True)
class Snapshot:
    """When a node took a snapshot, in seconds since 1970, and of which entry."""

    began: float
    ended: float
    node: str
    index: int


def snapshots_in(node: str, log: str, since: float) -> list[Snapshot]:
    """Return the snapshots in a node's log that ended after *since*."""
    found = []
    for at, index, seconds in TAKEN.findall(log):
        ended = dt.datetime.fromisoformat(at).timestamp()
        if ended > since:
            began = ended - float(seconds)
            found.append(
                Snapshot(began=began, ended=ended, node=node, index=int(index))
            )
    return found


def overlaps(snapshots: Sequence[Snapshot]) -> int:
    """Return how many pairs of snapshots of two nodes overlapped."""
    return sum(
        one.node != other.node and one.began < other.ended and other.began < one.ended
        for one, other in itertools.combinations(snapshots, 2)
    )


def most_at_once(snapshots: Sequence[Snapshot]) -> int:
    """Return how many nodes took a snapshot at the same time, at most."""
    return max(
        (
            len(
                {each.node for each in snapshots if each.began <= at.began < each.ended}
            )
            for at in snapshots
        ),
        default=0,
    )


def entries_apart(snapshots: Sequence[Snapshot]) -> list[int]:
    """Return the entries between each snapshot and the next one of another node."""
    by_index = sorted(snapshots, key=lambda each: each.index)
    return [
        later.index - earlier.index
        for earlier, later in itertools.pairwise(by_index)
        if earlier.node != later.node
    ]


def turn_entries(settings: RaftSettings, members: int) -> int:
    """Return the entries of a member's turn."""
    span = settings.log_entries_max - settings.log_entries_kept
    return max(1, span // QUARTERS // members)


def alone_s(estate: Estate) -> float:
    """Return how long a process copies and checks the state while nothing else runs."""
    node = estate.replica()
    with tempfile.TemporaryDirectory(dir=node.directory) as folder:
        began = time.perf_counter()
        StateProcesses().write(node.directory / "data/state.db", Path(folder) / "copy")
        return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the snapshots during a load are compared with."""

    since: float
    """When the load began, in seconds since 1970."""
    entries_per_s: float
    settings: RaftSettings
    alone_s: float
    are_turns_short: bool
    """
    Whether a turn has few entries, because the run is short and so its logs are.

    Then a process takes longer to start than a turn lasts.
    """


def report(bench: Bench, nodes: Sequence[LocalNode], course: Course) -> None:
    """Report the snapshots of these nodes, of which the last one has joined meanwhile."""
    taken = {
        node.node_id: snapshots_in(node.node_id, node.log.read_text(), course.since)
        for node in nodes
    }
    snapshots = [each for of_node in taken.values() for each in of_node]
    bench.report.add(
        "snapshots during the mixed load, in s from its beginning",
        **{
            node: [
                f"{each.began - course.since:.0f} to {each.ended - course.since:.0f}"
                for each in of_node
            ]
            for node, of_node in taken.items()
        },
    )
    # The new node catches up, at its own pace, and so are its turns in time.
    members = [node.node_id for node in nodes[:-1]]
    apart = entries_apart([each for each in snapshots if each.node in members])
    turns = [turn_entries(course.settings, len(nodes) - 1 + new) for new in (0, 1)]
    bench.report.add(
        "turns of snapshots during the mixed load",
        entries_of_a_turn=turns[0],
        with_the_new_node=turns[1],
        entries_between_the_beginnings_of_two_members=apart,
        seconds_of_a_turn=round(turns[0] / course.entries_per_s, 1),
        a_snapshot_alone_takes_s=round(course.alone_s, 1),
        pairs_of_two_nodes_at_the_same_time=overlaps(snapshots),
        nodes_at_the_same_time_at_most=most_at_once(snapshots),
    )
    bench.target(
        "(million)",
        "snapshots during the mixed load, of the node with the fewest",
        min(len(taken[node]) for node in members),
        1,
        at_least=True,
    )
    bench.target(
        "(million)",
        "snapshots during the mixed load: the fewest entries between the beginnings of "
        "two members, as a share of a turn",
        min(apart) / turns[1] if apart and not course.are_turns_short else None,
        APART_MIN,
        at_least=True,
        needed=not course.are_turns_short,
    )
