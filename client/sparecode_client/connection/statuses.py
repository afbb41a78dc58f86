# SPDX-License-Identifier: Apache-2.0
"""The gRPC status of a failed call: its reason, wrong field and retry delay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode_client.errors import (
    AlreadyExists,
    ApprovalNeeded,
    InvalidArgument,
    NodeFailed,
    NotFound,
    NotPermitted,
    NotSignedIn,
    Refused,
    SparecodeError,
)

DOMAIN = "sparecode"
APPROVAL_NEEDED = "APPROVAL_NEEDED"
NOT_CONNECTED = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
)
"""Beginnings of gRPC's message when it could not send the request."""
TOO_LARGE = "message larger than max"
"""Part of gRPC's message when a request exceeds the size limit of the node."""

_NOT_THIS_PORT = "agents connect to port 7300, administrators to 7304"
_CAUSES = {
    "errors resolving ": "its name has no address",
    "DNS resolution failed": "its name has no address",
    "unable to get local issuer certificate": "its certificate is not from the "
    "authority in the CA file (members-ca.pem)",
    "self signed certificate": "its certificate is not from the authority in the CA "
    "file (members-ca.pem)",
    "certificate has expired": "its certificate has expired",
    "Hostname Verification Check failed": "its certificate is not for this name or "
    "address",
    "WRONG_VERSION_NUMBER": f"this port has no TLS: {_NOT_THIS_PORT}",
    "missing selected ALPN property": f"this port is not for gRPC: {_NOT_THIS_PORT}",
    "Socket closed": "it closed the connection: it does not accept this client's "
    f"certificate, or this is the wrong port ({_NOT_THIS_PORT})",
}
"""What a part of gRPC's message means for the person who reads it."""

_ERRORS: dict[grpc.StatusCode, type[SparecodeError]] = {
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ABORTED: Refused,  # VERSION: the value has changed since it was read.
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.UNAUTHENTICATED: NotSignedIn,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a failed call."""

    code: grpc.StatusCode
    words: str
    reason: str = ""
    """Set by a node; empty if the network or gRPC itself failed."""
    field: str = ""
    description: str = ""
    retry_after_s: float | None = None
    approval_id: int = 0
    """Number of the approval that the request waits for; 0: none."""


def read_status(error: grpc.aio.AioRpcError) -> Status:
    """Return the status of *error*, including its `google.rpc` details."""
    reason, field, description = "", "", ""
    retry_after_s, approval = None, ""
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            if info.domain == DOMAIN:
                reason = info.reason
                approval = info.metadata.get("approval_id", "")
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            if bad.field_violations and not field:
                field = bad.field_violations[0].field
                description = bad.field_violations[0].description
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return Status(
        code=error.code(),
        words=error.details() or "",
        reason=reason,
        field=field,
        description=description,
        retry_after_s=retry_after_s,
        approval_id=int(approval) if approval.isdecimal() else 0,
    )


def final_error(status: Status) -> SparecodeError:
    """Return the error for a status that no retry would change."""
    words = status.words or status.reason
    if status.code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(
            status.field, status.description or words, status.reason or "FIELD"
        )
    if status.reason == APPROVAL_NEEDED:
        return ApprovalNeeded(status.reason, words, status.approval_id)
    if error := _ERRORS.get(status.code):
        return error(status.reason or status.code.name, words)
    return NodeFailed(
        status.reason or status.code.name,
        f"a node failed with {status.code.name}" + (f": {words}" if words else ""),
    )


def too_large(status: Status) -> bool:
    """Return whether gRPC on the node refused the request because of its size."""
    return (
        status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        and not status.reason
        and TOO_LARGE in status.words
    )


def reason_not_connected(words: str) -> str:
    """Return the cause from gRPC's message about a failed connection."""
    for part, cause in _CAUSES.items():
        if part in words:
            return cause
    # The message may end with the status of a part that worked, such as `...: OK`.
    return words.removesuffix(": OK").rpartition(": ")[2] or "not connected"


def _details(error: grpc.aio.AioRpcError) -> Sequence[Any]:
    """Return the packed details; empty if a proxy or a bug has corrupted them."""
    try:
        status = rpc_status.from_call(error)
    except (DecodeError, ValueError):
        return ()
    return () if status is None else status.details
