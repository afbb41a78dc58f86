# SPDX-License-Identifier: Apache-2.0
"""Where a node is reached: HOST:PORT, in the one spelling in which it is compared."""

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
    Return an address as it is compared, None if it is none.

    A name in lower case, an IPv6 address as RFC 5952 has it, a port without zeros.
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
    """Return the host of an address, IPv6 in brackets."""
    return address.rpartition(":")[0]
