# SPDX-License-Identifier: Apache-2.0
"""Addresses of nodes: HOST:PORT, normalized so that equal addresses compare equal."""

import ipaddress
import re

PORT_MAX = 65_535

_ADDRESS = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r":(?P<port>[0-9]{1,5})",
    re.ASCII,
)


def in_one_spelling(address: str) -> str | None:
    """
    Return the normalized form of an address, or None if it is not an address.

    Host names are in lower case, IPv6 addresses in the form of RFC 5952, and ports
    have no leading zeros.
    """
    matched = _ADDRESS.fullmatch(address)
    if not matched or not 1 <= int(matched["port"]) <= PORT_MAX:
        return None
    host = matched["host"].lower()
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    return f"{host}:{int(matched['port'])}"


def host_of(address: str) -> str:
    """Return the host of an address; IPv6 addresses keep their brackets."""
    return address.rpartition(":")[0]
