# SPDX-License-Identifier: Apache-2.0
"""
The form and the signature of RADIUS packets, over pyrad (RFC 2865, RFC 3579).

pyrad encodes and decodes. These checks are added, because pyrad leaves them out:

* It cuts an attribute that is longer than the packet, and takes packets of 8192 octets.
* It checks the first of several Message-Authenticators, and only if it is asked to.
* It drops octets of a password that are not UTF-8, so different passwords look equal.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pyrad.packet import (
    AccessRequest,
    AuthPacket,
    Packet,
    PacketError,
    StatusServer,
)

from sparecode_node.domain.radius import RadiusSettings

USER_NAME: Final = 1
USER_PASSWORD: Final = 2
CHAP_PASSWORD: Final = 3
NAS_IP_ADDRESS: Final = 4
NAS_PORT: Final = 5
FILTER_ID: Final = 11
REPLY_MESSAGE: Final = 18
STATE: Final = 24
CLASS: Final = 25
VENDOR_SPECIFIC: Final = 26
SESSION_TIMEOUT: Final = 27
CALLING_STATION_ID: Final = 31
NAS_IDENTIFIER: Final = 32
PROXY_STATE: Final = 33
ACCT_SESSION_ID: Final = 44
PROMPT: Final = 76
EAP_MESSAGE: Final = 79
MESSAGE_AUTHENTICATOR: Final = 80
NAS_IPV6_ADDRESS: Final = 95

HEADER_BYTES = 20
PACKET_MAX = 4096
"""RFC 2865, section 3."""
SIGNATURE_BYTES = 16
PASSWORD_MAX = 128
"""RFC 2865, section 5.2."""
BLOCK_BYTES = 16
ONCE = (USER_NAME, USER_PASSWORD, STATE, MESSAGE_AUTHENTICATOR)
"""Attributes that a request has at most once (RFC 2865, 5.44; RFC 3579, 3.3)."""


class DroppedError(Exception):
    """The packet gets no answer. The first argument is the verdict for the counters."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class PasswordFormError(Exception):
    """The request has no password that could be right; it gets an Access-Reject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request whose form and signature are right."""

    packet: AuthPacket = field(repr=False)
    attributes: tuple[tuple[int, bytes], ...] = field(repr=False)
    """Every attribute in its order, as it came."""

    @property
    def is_status(self) -> bool:
        """Whether it is a Status-Server (RFC 5997)."""
        return self.packet.code == StatusServer

    def first(self, kind: int) -> bytes:
        """Return the value of an attribute; empty if the request has none."""
        return next((value for each, value in self.attributes if each == kind), b"")

    def has(self, kind: int) -> bool:
        """Return whether the request has an attribute."""
        return any(each == kind for each, _ in self.attributes)

    def password(self) -> str:
        """
        Return the User-Password in clear (PAP).

        Raises `PasswordFormError`.
        """
        hidden = self.first(USER_PASSWORD)
        if not BLOCK_BYTES <= len(hidden) <= PASSWORD_MAX or len(hidden) % BLOCK_BYTES:
            raise PasswordFormError("User-Password has an invalid length")
        clear = self.packet.PwDecrypt(hidden)
        if self.packet.PwCrypt(clear) != hidden:
            raise PasswordFormError("User-Password is not UTF-8")
        return clear

    def identifying(self) -> bytes:
        """
        Return what makes two packets the same request (RFC 5080, 2.2.2).

        Not the signature, which follows from the rest, and not the Proxy-State: a
        request may come once through a proxy and once without it.
        """
        header = struct.pack(
            "!BB16s", self.packet.code, self.packet.id, self.packet.authenticator
        )
        return header + b"".join(
            struct.pack("!BB", kind, len(value)) + value
            for kind, value in self.attributes
            if kind not in (MESSAGE_AUTHENTICATOR, PROXY_STATE)
        )


def read(
    datagram: bytes, settings: RadiusSettings, secrets: Sequence[bytes]
) -> Request:
    """
    Return the request in a datagram from a client with these secrets.

    Raises `DroppedError` for what RFC 2865 and RFC 3579 discard silently: a wrong form,
    another code, and a missing or wrong Message-Authenticator (CVE-2024-3596).
    """
    attributes = _attributes(datagram)
    try:
        packet = AuthPacket(packet=datagram)
    except PacketError:
        raise DroppedError("malformed") from None
    if packet.code not in (AccessRequest, StatusServer):
        raise DroppedError("other_code")
    request = Request(packet=packet, attributes=attributes)
    if not secrets:
        raise DroppedError("wrong_secret")
    if request.has(MESSAGE_AUTHENTICATOR):
        if len(request.first(MESSAGE_AUTHENTICATOR)) != SIGNATURE_BYTES:
            raise DroppedError("malformed")
        for secret in secrets:
            if packet.verify_message_authenticator(secret=secret):
                packet.secret = secret
                return request
        raise DroppedError("wrong_secret")
    if not settings.allow_unsigned or request.is_status or request.has(EAP_MESSAGE):
        raise DroppedError("no_message_authenticator")
    if not settings.allow_unsigned_proxied and request.has(PROXY_STATE):
        raise DroppedError("proxy_state")
    return _unsigned(request, secrets)


def reply(
    request: Request, code: int, attributes: Sequence[tuple[int, bytes]]
) -> bytes:
    """
    Return the reply: Message-Authenticator first, and every Proxy-State of the request.

    Raises `DroppedError` if it does not fit into a packet.
    """
    packet = request.packet.CreateReply()
    packet.code = code
    for kind, value in attributes:
        packet.setdefault(kind, []).append(value)
    datagram = packet.ReplyPacket()
    if len(datagram) > PACKET_MAX:
        raise DroppedError("malformed")
    return datagram


def _attributes(datagram: bytes) -> tuple[tuple[int, bytes], ...]:
    """Return the attributes in order. Raises `DroppedError` for a wrong form."""
    if len(datagram) < HEADER_BYTES:
        raise DroppedError("malformed")
    length = int.from_bytes(datagram[2:4])
    if not HEADER_BYTES <= length <= min(len(datagram), PACKET_MAX):
        raise DroppedError("malformed")
    # pyrad's own rule for parts of an attribute; it takes whole packets less strictly.
    attributes = Packet._PktSplitSubAttributes(  # noqa: SLF001 - the release is pinned.
        datagram[:length], HEADER_BYTES
    )
    if attributes is None:
        raise DroppedError("malformed")
    kinds = [kind for kind, _ in attributes]
    if any(kinds.count(kind) > 1 for kind in ONCE):
        raise DroppedError("malformed")
    return tuple(attributes)


def _unsigned(request: Request, secrets: Sequence[bytes]) -> Request:
    """
    Return an unsigned request with the secret that it was probably made with.

    A wrong secret makes a password of random octets. It is no guess of the user's.
    """
    for secret in secrets:
        request.packet.secret = secret
        if not request.has(USER_PASSWORD):
            return request
        try:
            if request.password().isprintable():
                return request
        except PasswordFormError:
            continue
    raise DroppedError("wrong_secret")
