# SPDX-License-Identifier: Apache-2.0
"""What every page of one node's console stands on."""

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
    """A quorum is in contact, and this node has caught up."""
    is_primary: Callable[[], bool]
    clock: Clock
    entropy: Entropy
    ticket_text: Callable[[JoinTicket], str]
    """Writes a join ticket as people carry it."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where the consoles of all nodes are, as far as this node was told."""

    def others(self) -> dict[str, str]:
        """Return where the consoles of the other nodes are."""
        return {
            node_id: address
            for node_id, address in self.addresses.items()
            if node_id != self.node_id
        }
