# SPDX-License-Identifier: Apache-2.0
"""Nodes that a listener refuses, judged: the engine never hears of them."""

from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.known_peers import KnownPeers
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.rollback import Hello
from tests.simulation.intact import check_refused


class JudgedPeers(KnownPeers):
    """Lets the promises see which nodes are refused as removed, or by their journals."""

    machine: Any

    def why_unknown(self, peer: NodeId) -> str:
        return self._judged(peer, super().why_unknown(peer))

    def refusal(self, peer: NodeId, hello: Hello) -> str | None:
        why = super().refusal(peer, hello)
        return None if why is None else self._judged(peer, why)

    def _judged(self, peer: NodeId, why: str) -> str:
        machine = self.machine
        if why == Refusal.REMOVED and machine.replica is not None:
            machine.invariants.promises.on_refusal(machine, peer)
        check_refused(machine.invariants, machine.node_id, peer, why)
        return why
