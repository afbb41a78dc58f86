# SPDX-License-Identifier: Apache-2.0
"""Addresses of callers: one spelling, and one share, at every door of a node (L7)."""

import ipaddress

_NETWORK_PREFIX = 64
"""The bits of an IPv6 address that its owner does not choose."""


def canonical(host: str) -> str:
    """
    Return an address in one spelling, equal at every door and on every node.

    gRPC writes `ipv4:192.0.2.1` and `ipv6:[2001:db8::1]`. A socket may show an IPv4
    address mapped into IPv6, and adds a zone to a link-local one. What is no address
    stays as it is.
    """
    host = host.removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


def source_of(address: str) -> str:
    """
    Return what a stranger's calls are counted by: the address, or its network.

    A host has as many addresses of its IPv6 network as it likes.
    """
    address = canonical(address)
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), _NETWORK_PREFIX), strict=False))
