# SPDX-License-Identifier: Apache-2.0
"""The console of one node, as its pages see it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.services.use_cases import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The console of one node."""

    node_id: str
    services: Services
    is_ready: Callable[[], bool]
    """Whether a quorum is in contact and this node has caught up."""
    is_primary: Callable[[], bool]
    is_removed: Callable[[], bool]
    """Whether this node was removed from the cluster: it shows no page but that."""
    clock: Clock
    entropy: Entropy
    ticket_text: Callable[[JoinTicket], str]
    """Return a join ticket as text."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the consoles of all nodes in this node's configuration."""

    def others(self) -> dict[str, str]:
        """Return the addresses of the other nodes' consoles."""
        return {
            node_id: address
            for node_id, address in self.addresses.items()
            if node_id != self.node_id
        }
