# SPDX-License-Identifier: Apache-2.0
"""Networks, and what belongs to the most specific one of an address."""

import ipaddress
from collections.abc import Mapping
from typing import Generic, TypeVar

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")


class ByNetwork(Generic[T]):
    """Values by network: one look-up for each length of prefix in use."""

    def __init__(self, values: Mapping[Network, T] | None = None) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, T]] = {}
        for network, value in (values or {}).items():
            shift = network.max_prefixlen - network.prefixlen
            by_number = self._by_prefix.setdefault((network.version, shift), {})
            by_number[int(network.network_address) >> shift] = value
        # The longest prefix is the smallest shift.
        self._order = sorted(self._by_prefix, key=lambda each: each[1])

    def find(self, host: str) -> T | None:
        """
        Return the value of the most specific network that an address is in.

        *host*: as `caller_addresses.canonical` writes it. None: it is in no network, or
        is no address.
        """
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        number = int(address)
        for version, shift in self._order:
            if version == address.version:
                value = self._by_prefix[version, shift].get(number >> shift)
                if value is not None:
                    return value
        return None
