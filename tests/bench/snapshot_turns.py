# SPDX-License-Identifier: Apache-2.0
"""When the nodes of an estate take snapshots, by their logs, and whether these overlap."""

import datetime as dt
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from local_cluster.cluster import LocalNode

from tests.bench.harness import Bench

TAKEN = re.compile(r"^(\S+Z) .*\bsnapshot_taken\b.*\bseconds=([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, order=True)
class Snapshot:
    """When a node took a snapshot, in seconds since 1970."""

    began: float
    ended: float
    node: str


def snapshots_in(node: str, log: str, since: float) -> list[Snapshot]:
    """Return the snapshots in a node's log that ended after *since*."""
    found = []
    for at, seconds in TAKEN.findall(log):
        ended = dt.datetime.fromisoformat(at).timestamp()
        if ended > since:
            found.append(Snapshot(began=ended - float(seconds), ended=ended, node=node))
    return found


def overlaps(snapshots: Sequence[Snapshot]) -> int:
    """Return how many pairs of snapshots of two nodes overlapped."""
    return sum(
        one.node != other.node and one.began < other.ended and other.began < one.ended
        for one, other in itertools.combinations(snapshots, 2)
    )


def report(bench: Bench, nodes: Sequence[LocalNode], since: float) -> None:
    taken = {
        node.node_id: snapshots_in(node.node_id, node.log.read_text(), since)
        for node in nodes
    }
    bench.report.add(
        "snapshots during the mixed load: seconds of each",
        **{
            node: [round(each.ended - each.began, 1) for each in snapshots]
            for node, snapshots in taken.items()
        },
    )
    bench.target(
        "(million)",
        "snapshots during the mixed load, of the node with the fewest",
        min(len(taken[node.node_id]) for node in nodes[:-1]),
        1,
        at_least=True,
    )
    # Members take turns by their position in the log. A turn may be shorter than one.
    bench.report.add(
        "snapshots during the mixed load, of two nodes at the same time",
        pairs=overlaps([each for snapshots in taken.values() for each in snapshots]),
    )
