# SPDX-License-Identifier: Apache-2.0
"""Who calls: an agent by its certificate, an administrator by a session."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.rpc.errors import UnidentifiedError
from sparecode_node.services.context import Anonymous, SessionCaller
from sparecode_node.services.errors import NotSignedInError

Context = grpc.aio.ServicerContext[Any, Any]


class NoBearerError(NotSignedInError):
    """The header that should hold a session holds something else."""


_BEARER = "bearer "
_IDENTITY_MAX = 256
_CERTIFICATES_KEPT = 1024


def agent_identity(auth: Mapping[str, Iterable[bytes]]) -> AgentIdentity:
    """
    Return the one URI subject name of the certificate or, without any, its one DNS name.

    *auth* is gRPC's `auth_context()`: what the TLS handshake has verified. The
    common name is no identity (RFC 9525, 2). Raises `UnidentifiedError`.
    """
    names = tuple(auth.get("peer_uri") or auth.get("peer_dns") or ())
    if len(names) != 1:
        raise UnidentifiedError
    try:
        identity = names[0].decode("ascii")
    except UnicodeDecodeError:
        raise UnidentifiedError from None
    if not 1 <= len(identity) <= _IDENTITY_MAX:
        raise UnidentifiedError
    return AgentIdentity(identity)


def agent_certificate(auth: Mapping[str, Iterable[bytes]]) -> Certificate:
    """
    Return the marks of the certificate that the agent has shown, for the deny list.

    Raises `UnidentifiedError` where gRPC does not say which it was.
    """
    shown = tuple(auth.get("x509_pem_cert") or ())
    if len(shown) != 1:
        raise UnidentifiedError
    return _marks(bytes(shown[0]))


@functools.lru_cache(maxsize=_CERTIFICATES_KEPT)
def _marks(pem: bytes) -> Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise UnidentifiedError from None
    return Certificate(
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        serial_number=f"{certificate.serial_number:x}",
    )


def session_caller(context: Context) -> SessionCaller | Anonymous:
    """
    Return who sends `authorization: Bearer SESSION`, or nobody.

    Raises `NotSignedInError` when the header says something else: a caller who
    sends it believes to be signed in.
    """
    values = [
        value
        for key, value in context.invocation_metadata() or ()
        if key == "authorization"
    ]
    if not values:
        return Anonymous()
    value = values[0]
    if (
        len(values) > 1
        or not isinstance(value, str)
        or not value.lower().startswith(_BEARER)
        or not (bearer := value[len(_BEARER) :].strip())
    ):
        raise NoBearerError("expected one header `authorization: Bearer SESSION`")
    return SessionCaller(bearer=bearer)
