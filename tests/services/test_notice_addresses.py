# SPDX-License-Identifier: Apache-2.0
"""The addresses that a channel may connect to (N4)."""

import ipaddress

import pytest

from sparecode_node.services.notices.addresses import AddressError, checked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 - An address to refuse.
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_a_private_address_is_refused(address: str) -> None:
    """(N4) In every spelling."""
    with pytest.raises(AddressError):
        checked("hook.example", ["93.184.216.34", address], allow_private=False)


def test_allowed_private_addresses_exclude_metadata() -> None:
    """(N4) A cloud's metadata are for no channel."""
    assert checked("h", ["10.0.0.1", "127.0.0.1", "fd00::1"], allow_private=True)
    for address in ("169.254.169.254", "fe80::1", "::", "224.0.0.1"):
        with pytest.raises(AddressError):
            checked("h", [address], allow_private=True)
    public = ipaddress.ip_address("93.184.216.34")
    assert checked("h", ["93.184.216.34"], allow_private=False) == (public,)
