# SPDX-License-Identifier: Apache-2.0
"""The caller's identity: an agent's certificate, or an administrator's session."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from cryptography import x509

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.services.access.agent_certificates import identity_of, marks_of
from sparecode_node.services.context import Anonymous, SessionCaller
from sparecode_node.services.errors import (
    NotSignedInError,
    UnidentifiedError,
)

Context = grpc.aio.ServicerContext[Any, Any]


class NoBearerError(NotSignedInError):
    """The `authorization` header contains something other than a session."""


_BEARER = "bearer "
_CERTIFICATES_KEPT = 1024


def agent_identity(auth: Mapping[str, Iterable[bytes]]) -> AgentIdentity:
    """
    Return the only URI name of the certificate or, if it has none, its only DNS name.

    *auth* is gRPC's `auth_context()`: the result of the TLS handshake. The common name
    is not an identity (RFC 9525, 2). Raises `UnidentifiedError`.
    """
    return identity_of(
        tuple(auth.get("peer_uri") or ()), tuple(auth.get("peer_dns") or ())
    )


def agent_certificate(auth: Mapping[str, Iterable[bytes]]) -> Certificate:
    """
    Return the marks of the agent's certificate, for the deny list.

    Raises `UnidentifiedError` if gRPC does not have exactly one certificate.
    """
    certificates = tuple(auth.get("x509_pem_cert") or ())
    if len(certificates) != 1:
        raise UnidentifiedError
    return _marks(bytes(certificates[0]))


def client_certificate(auth: Mapping[str, Iterable[bytes]]) -> str:
    """
    Return the fingerprint of the client's certificate; empty if it showed none.

    gRPC lets no client show one on a port that does not demand it.
    """
    return agent_certificate(auth).fingerprint if auth.get("x509_pem_cert") else ""


@functools.lru_cache(maxsize=_CERTIFICATES_KEPT)
def _marks(pem: bytes) -> Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise UnidentifiedError from None
    return marks_of(certificate)


def session_caller(context: Context) -> SessionCaller | Anonymous:
    """
    Return the caller named by `authorization: Bearer SESSION`, or `Anonymous`.

    Raises `NotSignedInError` if the header contains anything else: a caller that sends
    it expects to be signed in.
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
