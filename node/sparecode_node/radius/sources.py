# SPDX-License-Identifier: Apache-2.0
"""The client that an address belongs to: that of the most specific network."""

import ipaddress
import logging
from collections.abc import Iterable

from sparecode_node.services.people.radius_clients import RadiusClient

log = logging.getLogger(__name__)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Sources:
    """Finds clients by address: one look-up for each length of prefix in use."""

    def __init__(self, clients: Iterable[RadiusClient] = ()) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, RadiusClient]] = {}
        for client in clients:
            for text in client.settings.networks:
                try:
                    network: _Network = ipaddress.ip_network(text)
                except ValueError:
                    # Another node's Python has read it. Serve the other clients.
                    log.exception(
                        "radius_network_not_read", extra={"agent": client.identity}
                    )
                    continue
                shift = network.max_prefixlen - network.prefixlen
                clients_by_number = self._by_prefix.setdefault(
                    (network.version, shift), {}
                )
                clients_by_number[int(network.network_address) >> shift] = client
        # The longest prefix is the smallest shift.
        self._order = sorted(self._by_prefix, key=lambda each: each[1])

    def find(self, host: str) -> RadiusClient | None:
        """
        Return the client of a host; None: it belongs to no client.

        *host*: see `domain.caller_addresses`.
        """
        address: _Address = ipaddress.ip_address(host)
        number = int(address)
        for version, shift in self._order:
            if version == address.version:
                client = self._by_prefix[version, shift].get(number >> shift)
                if client is not None:
                    return client
        return None
