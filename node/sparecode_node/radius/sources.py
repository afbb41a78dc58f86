# SPDX-License-Identifier: Apache-2.0
"""The client that an address belongs to."""

import ipaddress
import logging
from collections.abc import Iterable

from sparecode_node.domain.networks import ByNetwork, Network
from sparecode_node.services.people.radius_clients import RadiusClient

log = logging.getLogger(__name__)


def sources_of(clients: Iterable[RadiusClient]) -> ByNetwork[RadiusClient]:
    """Return the clients by their networks."""
    by_network: dict[Network, RadiusClient] = {}
    for client in clients:
        for text in client.settings.networks:
            try:
                by_network[ipaddress.ip_network(text)] = client
            except ValueError:
                # Another node's Python has read it. Serve the other clients.
                log.exception(
                    "radius_network_not_read", extra={"agent": client.identity}
                )
    return ByNetwork(by_network)
