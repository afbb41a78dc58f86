# SPDX-License-Identifier: Apache-2.0
"""
The addresses that a channel may connect to.

A channel could otherwise be used to reach what only the node can reach, such as inner
systems or a cloud's metadata (SSRF). So a name is resolved once, every address is
checked, and the connection goes to a checked address: a name that resolves otherwise a
moment later changes nothing.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore

URL_MAX = 1024
HOST_MAX = 253

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
"""Addresses that stand for IPv4 ones (RFC 3056). Those of NAT64 are reserved."""

_NEVER = """
    192.0.0.0/24 168.63.129.16 100.100.100.200 fd00:ec2::/32 fd20:ce::254
    fd00:c1::a9fe:a9fe fd00:42::42 fec0::/10
"""
"""
Networks that no channel may use, beside link-local ones: the metadata services of
Oracle, Azure, Alibaba, Amazon, Google, Oracle and Scaleway, which tell keys; and
site-local addresses, whose use has ended (RFC 3879).
"""
_NEVER_NETWORKS = tuple(map(ipaddress.ip_network, _NEVER.split()))


class AddressError(Exception):
    """An address that a channel may not connect to. The message names the reason."""


SYSLOG_SCHEME, SYSLOG_PORT = "tcp+tls", 6514
"""Of a receiver of syslog; the port is that of RFC 5425."""


SMTP_PORTS = {"smtp+starttls": 587, "smtps": 465, "smtp+cleartext": 25}
"""Of a mail server, by the scheme, which also names its use of TLS."""
CLEARTEXT = "smtp+cleartext"


def parse_url(value: str, *schemes: str) -> SplitResult:
    """
    Return the parts of a receiver's URL; *schemes*: those that it may have.

    Raises `AddressError` with what it must be.
    """
    if len(value) > URL_MAX:
        raise AddressError(f"must have at most {URL_MAX} characters")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise AddressError("must be in printable ASCII, without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise AddressError("must be a URL") from None
    schemes = schemes or ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        beginnings = " or ".join(f"{each}://" for each in schemes)
        raise AddressError(f"must begin with {beginnings} and a host")
    if "@" in parts.netloc:
        raise AddressError("must hold no user name or password")
    if parts.fragment or port == 0 or len(parts.hostname) > HOST_MAX:
        raise AddressError("must be a URL without a fragment, with a valid port")
    if parts.scheme != "https" and (parts.path.strip("/") or parts.query):
        raise AddressError("must be a host, with or without a port")
    return parts


def check(host: str, address: IpAddress, *, allow_private: bool) -> None:
    """Refuse an address of *host* that a channel may not use. Raises `AddressError`."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if (
        any(map(_is_never, (address, *_meanings(address))))
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
    ):
        raise AddressError(f"{host} is {address}, to which no channel connects")
    if (address in _SIX_TO_FOUR or not address.is_global) and not allow_private:
        raise AddressError(
            f"{host} is {address}, a private or local address, and the channel does "
            "not allow these"
        )


def _is_never(address: IpAddress) -> bool:
    return address.is_link_local or any(
        address in network for network in _NEVER_NETWORKS
    )


def _meanings(address: IpAddress) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 address may stand for."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.sixtofour:
        yield address.sixtofour
    yield from address.teredo or ()
    # NAT64 by a network's own prefix of 96 bits, and ISATAP.
    yield ipaddress.IPv4Address(int(address) & (2**32 - 1))


def checked(
    host: str, found: Iterable[str], *, allow_private: bool
) -> tuple[IpAddress, ...]:
    """Return the addresses of *host*. One that is refused refuses all of them."""
    addresses = tuple(
        dict.fromkeys(ipaddress.ip_address(each.partition("%")[0]) for each in found)
    )
    for address in addresses:
        check(host, address, allow_private=allow_private)
    return addresses


async def resolve(
    host: str, port: int, *, allow_private: bool
) -> tuple[IpAddress, ...]:
    """Resolve a host once. Raises `AddressError`, and `OSError` if it has no address."""
    results = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    )
    return checked(
        host, (str(result[4][0]) for result in results), allow_private=allow_private
    )


class ClosingStream(httpcore.AsyncNetworkStream):
    """
    A connection that is closed if its TLS handshake is cut off.

    httpcore closes it only after errors. A handshake that is canceled would leave the
    connection open forever, one more for each attempt at a silent receiver.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - As its base has it.
    ) -> bytes:
        """Read what has arrived."""
        return await self._stream.read(max_bytes, timeout)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - As its base has it.
    ) -> None:
        """Write all of *buffer*."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - As its base has it.
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection after its TLS handshake."""
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - As its base has it.
        """Return what httpcore asks of a connection."""
        return self._stream.get_extra_info(info)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """
    Opens the connections of an HTTP client, only to checked addresses.

    TLS still checks the certificate for the host of the URL, not for the address.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - As its base has it.
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first checked address that answers."""
        addresses: Sequence[IpAddress] = await resolve(
            host, port, allow_private=self._allow_private
        )
        for address in addresses[:-1]:
            try:
                return ClosingStream(
                    await self._backend.connect_tcp(
                        str(address), port, timeout, local_address, socket_options
                    )
                )
            except httpcore.ConnectError:
                continue
        return ClosingStream(
            await self._backend.connect_tcp(
                str(addresses[-1]), port, timeout, local_address, socket_options
            )
        )

    async def sleep(self, seconds: float) -> None:
        """Wait, for the client's retries, of which there are none."""
        await self._backend.sleep(seconds)
