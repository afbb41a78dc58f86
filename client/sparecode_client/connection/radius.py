# SPDX-License-Identifier: Apache-2.0
"""One request to a RADIUS server, as a NAS would send it (RFC 2865)."""

import enum
from dataclasses import dataclass

RADIUS_PORT = 1812
TRIES = 3
TRY_TIMEOUT_S = 3
"""Timeout of one try. The next one sends the same packet, so it is the same request."""
NAS_IDENTIFIER = b"sparecode agents test"
USER_NAME, USER_PASSWORD, REPLY_MESSAGE, NAS_IDENTIFIER_TYPE = 1, 2, 18, 32
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

    if not passcode or len(passcode.encode()) > PASSWORD_MAX:
        raise ValueError(f"a passcode has 1 to {PASSWORD_MAX} octets")
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
        reply = client.SendPacket(request)
        return RadiusReply(
            code=RadiusCode(reply.code),
            message=b" ".join(reply.get(REPLY_MESSAGE, [])).decode(errors="replace"),
        )
    except Timeout:
        return None
    finally:
        client._CloseSocket()  # noqa: SLF001 - it has no public way to do it.
