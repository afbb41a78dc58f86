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
        "192.0.0.192",
        "168.63.129.16",
        "fec0::1",
        "feff::1",
    ],
)
def test_a_private_address_is_refused(address: str) -> None:
    """(N4) In every spelling."""
    with pytest.raises(AddressError):
        checked("hook.example", ["93.184.216.34", address], allow_private=False)


FORMS = {
    "plain": str,
    "mapped": lambda v4: f"::ffff:{v4}",
    "compatible": lambda v4: f"::{v4}",
    "translated": lambda v4: f"::ffff:0:{v4}",
    "NAT64": lambda v4: f"64:ff9b::{v4}",
    "NAT64, local prefix of 96 bits": lambda v4: f"64:ff9b:1:2:3:4:{v4}",
    "NAT64, the network's own prefix": lambda v4: f"2001:db8:64::{v4}",
    "6to4": lambda v4: str(ipaddress.IPv6Address(0x2002 << 112 | int(v4) << 80 | 1)),
    "Teredo, server": lambda v4: str(
        ipaddress.IPv6Address(0x20010000 << 96 | int(v4) << 64)
    ),
    "Teredo, client": lambda v4: str(
        ipaddress.IPv6Address(0x20010000 << 96 | int(v4) ^ 0xFFFFFFFF)
    ),
    "ISATAP": lambda v4: f"2001:db8::5efe:{v4}",
}
"""The ways to write an IPv4 address as another one."""


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "192.0.0.192",
        "168.63.129.16",
        "100.100.100.200",
    ],
)
def test_metadata_services_are_never_allowed(
    address: str, form: str, *, allow_private: bool
) -> None:
    """(N4) A cloud's metadata tell keys; in every form that reaches an IPv4 address."""
    written = FORMS[form](ipaddress.IPv4Address(address))
    with pytest.raises(AddressError):
        checked("h", ["93.184.216.34", written], allow_private=allow_private)


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(
    "address",
    [
        *("fd00:ec2::254", "fd00:ec2::253", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
        *("fd00:42::42", "fec0::1", "feff::1", "fe80::1", "fe80::1%eth0", "::"),
        *("224.0.0.1", "ff02::1", "255.255.255.255", "0.0.0.0"),  # noqa: S104
    ],
)
def test_what_no_channel_may_use_is_refused(
    address: str, *, allow_private: bool
) -> None:
    """(N4) Site-local addresses are no longer assigned, so nothing says what they reach."""
    with pytest.raises(AddressError):
        checked("h", [address], allow_private=allow_private)


def test_addresses_that_a_channel_may_use_are_allowed() -> None:
    """(N4) Private ones with the channel's permission, also by 6to4."""
    private = ["10.0.0.1", "2002:a00:1::", "fd00:ec3::1"]
    assert checked("h", private, allow_private=True)
    public = ["93.184.216.34", "2606:4700::1111", "168.63.129.17", "100.99.0.1"]
    assert checked("h", public[:2], allow_private=False)
    assert checked("h", public, allow_private=True)
    assert checked("h", ["10.0.0.1", "127.0.0.1", "fd00::1"], allow_private=True)
    public = ipaddress.ip_address("93.184.216.34")
    assert checked("h", ["93.184.216.34"], allow_private=False) == (public,)
