# SPDX-License-Identifier: Apache-2.0
"""
The identity of members: their certificates prove it, never a field of a message.

A member's certificate has the URI `sparecode://member/ID`, by which the called side
knows the caller. It also has the name `ID.members.sparecode`, by which TLS proves to
the dialing side which member it has reached, wherever the address leads.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.members import MEMBER_URI

NAME_SUFFIX = ".members.sparecode"
_SUBJECT_NAMES = "x509_subject_alternative_name"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTls:
    """A member's certificate, its key, and the authority of all members; PEM."""

    certificate: bytes
    key: bytes
    ca: bytes

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "PeerTls(***)"

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials with the own certificate, which accept only members."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca,
            private_key=self.key,
            certificate_chain=self.certificate,
        )


class Pem(Protocol):
    """The certificate of a server, and the authorities of its callers; PEM."""

    @property
    def certificate(self) -> bytes:
        """The certificate, with its chain."""

    @property
    def key(self) -> bytes:
        """Its private key."""

    @property
    def ca(self) -> bytes | None:
        """The authorities of callers; None: callers need no certificate."""


def renewable_credentials(current: Callable[[], Pem]) -> grpc.ServerCredentials:
    """
    Return credentials that are read again at every handshake.

    So a certificate can be replaced without closing a port or a connection. *current*
    returns the same object as long as nothing has changed. It is called in threads of
    gRPC, and must not raise.
    """
    current_pem = first = current()

    def fetch() -> grpc.ServerCertificateConfiguration:
        nonlocal current_pem
        newest = current()
        if newest is current_pem:
            return None  # type: ignore[return-value]  # "Unchanged"; the stubs lack it.
        current_pem = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        fetch,
        require_client_authentication=first.ca is not None,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.certificate)], root_certificates=pem.ca
    )


def target_name(member: NodeId) -> str:
    """Return the name that the certificate of *member* must be valid for."""
    return f"{member}{NAME_SUFFIX}"


def caller(auth_context: Mapping[str, Iterable[bytes]]) -> NodeId | None:
    """Return the member id in the certificate of a caller, if there is exactly one."""
    names = [name.decode() for name in auth_context.get(_SUBJECT_NAMES, ())]
    ids = [n.removeprefix(MEMBER_URI) for n in names if n.startswith(MEMBER_URI)]
    return NodeId(ids[0]) if len(ids) == 1 else None
