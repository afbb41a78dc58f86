# SPDX-License-Identifier: Apache-2.0
"""
The ids of requests: equal for the copies of a request, on every node (D3).

A copy of a packet has the same octets (RFC 5080, 2.2.2), but for the Proxy-State. Its
id is a MAC under the client's secret, so it does not change when the key ring does.

Some clients change the identifier and authenticator for the next server. pam_radius
then keeps its source port, NAS-Port and what the user has typed. That is a session.
"""

import hashlib
import hmac
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import RequestId
from sparecode_node.radius import packets
from sparecode_node.radius.packets import PasswordFormError, Request
from sparecode_node.services.context import NO_CERTIFICATE
from sparecode_node.services.people.radius_clients import RadiusClient
from sparecode_node.services.secrets.radius_seals import RadiusSeals

SESSION = (
    packets.USER_NAME,
    packets.STATE,
    packets.NAS_IDENTIFIER,
    packets.NAS_IP_ADDRESS,
    packets.NAS_IPV6_ADDRESS,
    packets.NAS_PORT,
    packets.CALLING_STATION_ID,
    packets.ACCT_SESSION_ID,
)
_PURPOSE = b"sparecode/v1/radius-request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a request came from."""

    client: RadiusClient
    host: str
    """Its address in one spelling, see `sources.canonical`."""
    port: int
    secret_id: str = ""
    """The secret that the packet was made with; empty by TLS."""
    certificate: Certificate = NO_CERTIFICATE
    """Of the connection, by TLS."""

    @property
    def door(self) -> str:
        """The name of the door for the audit log."""
        return "RADIUS" if self.secret_id else "RadSec"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestIds:
    """The ids that a request may have been decided under."""

    packet: RequestId
    """Of this packet and its copies."""
    sessions: tuple[RequestId, ...] = ()
    """
    Of its session, under each key of the ring in use, the active one first.

    Empty: the client may not repeat requests, or the packet tells no session.
    """

    @property
    def first(self) -> RequestId:
        """The id that copies of the request share on this node."""
        return self.sessions[0] if self.sessions else self.packet


def ids_of(source: Source, request: Request, seals: RadiusSeals) -> RequestIds:
    """Return the ids of a request."""
    return RequestIds(
        packet=_packet_id(source, request),
        sessions=_session_ids(source, request, seals),
    )


def _packet_id(source: Source, request: Request) -> RequestId:
    message = _joined(
        [_PURPOSE, source.client.identity.encode(), request.identifying()]
    )
    mac = hmac.digest(request.packet.secret, message, hashlib.sha256)
    return RequestId(str(uuid.UUID(bytes=mac[:16])))


def _session_ids(
    source: Source, request: Request, seals: RadiusSeals
) -> tuple[RequestId, ...]:
    """Return the ids of a session. They hold the passcode, so the ring's keys make them."""
    tells_session = request.has(packets.NAS_PORT) or request.has(
        packets.ACCT_SESSION_ID
    )
    if not source.client.settings.repeats_with_new_authenticator or not tells_session:
        return ()
    try:
        password = request.password().encode()
    except PasswordFormError:
        if request.is_signed:
            return ()
        # Another number of look-ups would tell which octets are readable (D2). The
        # first octet is in no readable text, so the id is that of no readable password.
        password = b"\xff" + request.first(packets.USER_PASSWORD)
    return seals.session_ids(
        _joined(
            [
                source.client.identity.encode(),
                f"{source.host} {source.port}".encode(),
                *map(request.first, SESSION),
                password,
            ]
        )
    )


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)
