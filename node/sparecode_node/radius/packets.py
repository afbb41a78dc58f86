# SPDX-License-Identifier: Apache-2.0
"""
The form and the signature of RADIUS packets, over pyrad (RFC 2865, RFC 3579).

pyrad encodes and decodes. These checks are added, because pyrad leaves them out:

* It cuts an attribute that is longer than the packet, and takes packets of 8192 octets.
* It decodes any number of attributes before it can check a signature, and copies the
  rest of the packet for each. So the signature is checked here, over the octets as sent.
* It checks the first of several Message-Authenticators.
* It drops octets of a password that are not UTF-8, so different passwords look equal.
"""

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pyrad.packet import AccessRequest, AuthPacket, PacketError, StatusServer

from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.services.fields import PASSCODE_MAX

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
ATTRIBUTE_HEADER_BYTES = 2
ATTRIBUTES_MAX = 200
"""FreeRADIUS's default. More cost time before the signature is checked."""
VALUE_MAX = 253
SIGNATURE_BYTES = 16
PROXY_STATES_MAX = (
    PACKET_MAX
    - HEADER_BYTES
    - (ATTRIBUTE_HEADER_BYTES + SIGNATURE_BYTES)
    - 2 * (ATTRIBUTE_HEADER_BYTES + VALUE_MAX)
    - (ATTRIBUTE_HEADER_BYTES + 4)
)
"""
Octets of all Proxy-States of a request: they must fit into its reply.

The largest replies also have a Filter-Id, a Class and a Session-Timeout, or a State, a
Reply-Message and a Prompt.
"""
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


_Attributes = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request whose form is right, and whose signature is right or not needed."""

    packet: AuthPacket = field(repr=False)
    attributes: _Attributes = field(repr=False)
    """Every attribute in its order, as it came."""
    is_signed: bool
    """
    Whether it has a Message-Authenticator, or came by TLS.

    Otherwise its octets may be changed.
    """

    @property
    def is_status(self) -> bool:
        """Whether it is a Status-Server (RFC 5997)."""
        return self.packet.code == StatusServer

    @property
    def is_garbled(self) -> bool:
        """
        Whether it is unsigned, and its password is no readable text of a passcode.

        Then it was made with another secret, or changed on its way.
        """
        if self.is_signed or not self.has(USER_PASSWORD):
            return False
        try:
            password = self.password()
            return not password.isprintable() or len(password) > PASSCODE_MAX
        except PasswordFormError:
            return True

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
        # A client may fill up with more than one block of zeros.
        if self.packet.PwCrypt(clear.encode().ljust(len(hidden), b"\0")) != hidden:
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
    datagram: bytes,
    settings: RadiusSettings,
    secrets: Sequence[bytes],
    *,
    is_protected: bool = False,
) -> Request:
    """
    Return the request in a datagram from a client with these secrets.

    *is_protected*: it came by TLS, and needs no Message-Authenticator (RFC 6614, 2.4).

    Raises `DroppedError` for what RFC 2865 and RFC 3579 discard silently: a wrong form,
    another code, and a missing or wrong Message-Authenticator (CVE-2024-3596).
    """
    octets, attributes = _split(datagram)
    code, kinds = octets[0], {kind for kind, _ in attributes}
    if code not in (AccessRequest, StatusServer):
        raise DroppedError("other_code")
    if not secrets:
        raise DroppedError("wrong_secret")
    if MESSAGE_AUTHENTICATOR in kinds:
        secret = _signer(octets, attributes, secrets)
    elif code == StatusServer or EAP_MESSAGE in kinds:
        raise DroppedError("no_message_authenticator")
    elif is_protected:
        secret = secrets[0]
    elif not settings.allow_unsigned:
        raise DroppedError("no_message_authenticator")
    elif not settings.allow_unsigned_proxied and PROXY_STATE in kinds:
        raise DroppedError("proxy_state")
    else:
        secret = secrets[0]
    try:
        packet = AuthPacket(packet=octets, secret=secret)
    except PacketError:
        raise DroppedError("malformed") from None
    is_signed = is_protected or MESSAGE_AUTHENTICATOR in kinds
    request = Request(packet=packet, attributes=attributes, is_signed=is_signed)
    if not is_signed:
        _choose_secret(request, secrets)
    return request


def reply(
    request: Request, code: int, attributes: Sequence[tuple[int, bytes]]
) -> bytes:
    """Return the reply: Message-Authenticator first, and every Proxy-State of the request."""
    packet = request.packet.CreateReply()
    packet.code = code
    for kind, value in attributes:
        packet.setdefault(kind, []).append(value)
    return packet.ReplyPacket()


def _split(datagram: bytes) -> tuple[bytes, _Attributes]:
    """
    Return the octets of the packet, without padding, and its attributes in order.

    Raises `DroppedError` for a wrong form.
    """
    if len(datagram) < HEADER_BYTES:
        raise DroppedError("malformed")
    length = int.from_bytes(datagram[2:4])
    if not HEADER_BYTES <= length <= min(len(datagram), PACKET_MAX):
        raise DroppedError("malformed")
    octets = datagram[:length]
    attributes: list[tuple[int, bytes]] = []
    at = HEADER_BYTES
    while at < length:
        size = octets[at + 1] if at + 1 < length else 0
        if (
            size < ATTRIBUTE_HEADER_BYTES
            or at + size > length
            or len(attributes) == ATTRIBUTES_MAX
        ):
            raise DroppedError("malformed")
        attributes.append((octets[at], octets[at + ATTRIBUTE_HEADER_BYTES : at + size]))
        at += size
    kinds = [kind for kind, _ in attributes]
    proxy_states = sum(
        ATTRIBUTE_HEADER_BYTES + len(value)
        for kind, value in attributes
        if kind == PROXY_STATE
    )
    if any(kinds.count(kind) > 1 for kind in ONCE) or proxy_states > PROXY_STATES_MAX:
        raise DroppedError("malformed")
    return octets, tuple(attributes)


def _signer(octets: bytes, attributes: _Attributes, secrets: Sequence[bytes]) -> bytes:
    """
    Return the secret that the Message-Authenticator was made with (RFC 3579, 3.2).

    Raises `DroppedError` if it was made with none of them.
    """
    at = HEADER_BYTES
    for kind, value in attributes:
        at += ATTRIBUTE_HEADER_BYTES
        if kind == MESSAGE_AUTHENTICATOR:
            break
        at += len(value)
    if len(value) != SIGNATURE_BYTES:
        raise DroppedError("malformed")
    unsigned = octets[:at] + bytes(SIGNATURE_BYTES) + octets[at + SIGNATURE_BYTES :]
    for secret in secrets:
        if hmac.compare_digest(hmac.digest(secret, unsigned, "md5"), value):
            return secret
    raise DroppedError("wrong_secret")


def _choose_secret(request: Request, secrets: Sequence[bytes]) -> None:
    """
    Give an unsigned request the secret that makes its password readable, or the first.

    Never drop it for its password: anyone can change the password of an unsigned
    request, and would learn from silence or answer what it was, octet by octet.
    """
    for secret in secrets:
        request.packet.secret = secret
        if not request.is_garbled:
            return
    request.packet.secret = secrets[0]
