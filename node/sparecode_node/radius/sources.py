# SPDX-License-Identifier: Apache-2.0
"""The client that an address belongs to: that of the most specific network."""

import ipaddress
from collections.abc import Iterable

from sparecode_node.services.people.radius_clients import RadiusClient

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Sources:
    """Finds clients by address: one look-up for each length of prefix in use."""

    def __init__(self, clients: Iterable[RadiusClient] = ()) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, RadiusClient]] = {}
        for client in clients:
            for text in client.settings.networks:
                network: _Network = ipaddress.ip_network(text)
                shift = network.max_prefixlen - network.prefixlen
                same = self._by_prefix.setdefault((network.version, shift), {})
                same[int(network.network_address) >> shift] = client
        # The longest prefix is the smallest shift.
        self._order = sorted(self._by_prefix, key=lambda each: each[1])

    def find(self, address: str) -> RadiusClient | None:
        """Return the client of an address; None: it belongs to no client."""
        try:
            known = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if known.version == 6 and known.ipv4_mapped is not None:  # noqa: PLR2004
            known = known.ipv4_mapped
        number = int(known)
        for version, shift in self._order:
            if version == known.version:
                client = self._by_prefix[version, shift].get(number >> shift)
                if client is not None:
                    return client
        return None
