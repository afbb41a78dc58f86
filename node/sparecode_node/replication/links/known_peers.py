# SPDX-License-Identifier: Apache-2.0
"""
The other nodes as this one knows them: which may link, and where to dial them.

The configuration decides, together with what nodes show when a link begins. Lives in
the loop.
"""

import asyncio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.addresses import in_one_spelling
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.hello import from_message, to_message
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft.admission import Refusal, refusal
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.replica import ReplicaStatus

JOURNAL_ID_MAX = 64
"""Characters of a journal's name; current ones have 32."""
NOT_A_MEMBER = "not a member"


class KnownPeers:
    """Members and guests of one node."""

    def __init__(
        self, node_id: NodeId, cluster_id: str, keys: MemberKeys | None = None
    ) -> None:
        self._keys = keys or MemberKeys()
        self.node_id = node_id
        """This node."""
        self.changed = asyncio.Event()
        """Set when `addresses` may return something else."""
        self._cluster_id = cluster_id
        self._status = ReplicaStatus()
        self._linked_from: dict[NodeId, str] = {}
        """
        The addresses that nodes with a link to here have shown.

        A node that is catching up reads of the members of long ago. The leader that
        sends it entries may be none of them, and must be answered all the same. And
        a member that has moved is not where the configuration says, until a primary
        has written the new address down.
        """

    def take_status(self, status: ReplicaStatus) -> None:
        """Take a new status of the replica: the members may have changed."""
        changed = (
            status.configuration != self._status.configuration
            or status.agreed != self._status.agreed
        )
        self._status = status
        if changed:
            self.changed.set()

    @property
    def configuration(self) -> Configuration:
        """The newest one here, committed or not."""
        return self._status.configuration

    def other_voters(self) -> frozenset[NodeId]:
        """Return the voters but this node."""
        return self.configuration.voters - {self.node_id}

    def addresses(self) -> dict[NodeId, str]:
        """Return the nodes to dial: members and guests, each with its address."""
        removed = self._status.agreed.removed
        addresses = {m.node_id: m.address for m in self.configuration.members}
        addresses.update(
            {p: a for p, a in self._linked_from.items() if p not in removed}
        )
        addresses.pop(self.node_id, None)
        return addresses

    def own_hello(self, hello: Hello) -> bytes:
        """Return what this node shows when a link begins, as bytes."""
        return to_message(self._cluster_id, hello).SerializeToString()

    def knows(self, peer: NodeId) -> bool:
        """Return whether a node is a member by the newest configuration here."""
        return self.configuration.member(peer) is not None

    def check_hello(self, peer: NodeId, shown: peers_pb2.Hello) -> Hello | str:
        """
        Return what a node shows when its link begins, or why it is refused.

        A node that no configuration here knows is a guest: it may be a member by a
        configuration that has not arrived yet. So it is answered, at the address
        that it shows. Address and journal go into the configuration, so both must
        be well formed.
        """
        known = self.configuration.member(peer)
        if known is not None and shown == peers_pb2.Hello():
            return "shows no journal"
        if not shown.journal_id or shown.cluster_id != self._cluster_id:
            return "not a member of this cluster"
        if len(shown.journal_id) > JOURNAL_ID_MAX or not _is_address(shown.address):
            return "shows no journal and address"
        hello = from_message(shown)
        return self.refusal(peer, hello) or hello

    def shows_its_key(self, peer: NodeId, key: str) -> bool:
        """Return whether this is the key of the node that a certificate names (P5a)."""
        return self._keys.accepts(peer, key)

    def why_unknown(self, peer: NodeId) -> str:
        """Return why a node that is not a member is none."""
        removed = peer in self._status.agreed.removed
        return Refusal.REMOVED.value if removed else NOT_A_MEMBER

    def refusal(self, peer: NodeId, hello: Hello) -> str | None:
        """Return why a node with this hello is refused by now, None if it is not."""
        agreed, newest = self._status.agreed, self.configuration
        cause = refusal(agreed, newest, peer, hello.journal_id)
        return None if cause is None else cause.value

    def link_began(self, peer: NodeId, hello: Hello) -> None:
        """Record the address that a linked node shows: it is dialed there."""
        if hello.address and self._linked_from.get(peer) != hello.address:
            self._linked_from[peer] = hello.address
            self.changed.set()

    def link_ended(self, peer: NodeId) -> None:
        """Forget the address of a node whose link has ended: it is not a guest any more."""
        if self._linked_from.pop(peer, None) is not None:
            self.changed.set()


def _is_address(address: str) -> bool:
    """Return whether this is an address; empty: the node tells none."""
    return not address or in_one_spelling(address) is not None
