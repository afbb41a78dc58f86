# SPDX-License-Identifier: Apache-2.0
"""One request to a RADIUS server, as a NAS would send it (RFC 2865)."""

import enum
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrad.packet import Packet

RADIUS_PORT = 1812
RADSEC_PORT = 2083
RADSEC_SECRET = b"radsec"
"""RFC 6614, 2.3: TLS protects the packets."""
RADSEC_TIMEOUT_S = 15.0
TRIES = 3
TRY_TIMEOUT_S = 3
"""Timeout of one try. The next one sends the same packet, so it is the same request."""
NAS_IDENTIFIER = b"sparecode agents test"
USER_NAME, USER_PASSWORD, REPLY_MESSAGE, NAS_IDENTIFIER_TYPE = 1, 2, 18, 32
HEAD_OCTETS = 4
"""Code, identifier and length (RFC 2865, section 3)."""
PASSWORD_MAX = 128
"""Octets of a User-Password (RFC 2865, section 5.2)."""


class RadiusCode(enum.IntEnum):
    """The code of a reply."""

    ACCEPT = 2
    REJECT = 3
    CHALLENGE = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusReply:
    """A reply whose signature is right."""

    code: RadiusCode
    message: str
    """What it shows to the user; empty: nothing."""


def ask(
    host: str, port: int, *, secret: bytes, username: str, passcode: str
) -> RadiusReply | None:
    """
    Send an Access-Request, and return the reply; None: there was none.

    A reply that was not signed with the secret is no reply.

    Raises:
        ImportError: The extra `radius` is not installed.
        ValueError: The passcode does not fit into a request.
        OSError: The packet cannot be sent, for example because the host is unknown.
    """
    from pyrad.client import Client, Timeout  # noqa: PLC0415 - only this needs it.

    _check(passcode)
    client = Client(
        server=host,
        authport=port,
        secret=secret,
        retries=TRIES,
        timeout=TRY_TIMEOUT_S,
        enforce_ma=True,
    )
    request = client.CreateAuthPacket()
    request[USER_NAME] = [username.encode()]
    request[USER_PASSWORD] = [request.PwCrypt(passcode)]
    request[NAS_IDENTIFIER_TYPE] = [NAS_IDENTIFIER]
    try:
        return _reply(client.SendPacket(request))
    except Timeout:
        return None
    finally:
        client._CloseSocket()  # noqa: SLF001 - it has no public way to do it.


def ask_by_tls(
    host: str, port: int, *, context: ssl.SSLContext, username: str, passcode: str
) -> RadiusReply | None:
    """
    Send an Access-Request by RadSec (RFC 6614), and return the reply; None: there was none.

    *context* trusts the node, and has the agent's certificate.

    Raises:
        ImportError: The extra `radius` is not installed.
        ValueError: The passcode does not fit into a request.
        OSError: No connection, for example because the certificate is refused.
    """
    from pyrad.client import Client  # noqa: PLC0415 - only this needs it.

    _check(passcode)
    # The stubs of the library lack what is new in 2.6.
    request: Any = Client(server=host, secret=RADSEC_SECRET).CreateAuthPacket()
    request[USER_NAME] = [username.encode()]
    request[USER_PASSWORD] = [request.PwCrypt(passcode)]
    request[NAS_IDENTIFIER_TYPE] = [NAS_IDENTIFIER]
    request.add_message_authenticator()
    with (
        socket.create_connection((host, port), RADSEC_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(request.RequestPacket())
        try:
            head = stream.read(HEAD_OCTETS)
            answer = head + stream.read(int.from_bytes(head[2:]) - len(head))
        except TimeoutError:
            return None
    if len(head) < HEAD_OCTETS:
        return None
    reply = request.CreateReply(packet=answer)
    if not request.VerifyReply(reply, answer, enforce_ma=True):
        return None
    return _reply(reply)


def _check(passcode: str) -> None:
    if not passcode or len(passcode.encode()) > PASSWORD_MAX:
        raise ValueError(f"a passcode has 1 to {PASSWORD_MAX} octets")


def _reply(reply: "Packet") -> RadiusReply:
    return RadiusReply(
        code=RadiusCode(reply.code),
        message=b" ".join(reply.get(REPLY_MESSAGE, [])).decode(errors="replace"),
    )
