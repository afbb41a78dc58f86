# SPDX-License-Identifier: Apache-2.0
"""Refusals and errors as `application/problem+json` (RFC 9457)."""

import http
import math
from collections.abc import Mapping
from typing import Protocol

from starlette.responses import JSONResponse

from sparecode_node.services.error_table import Answer, Code

MEDIA_TYPE = "application/problem+json"
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

STATUS: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class Problems(Protocol):
    """Builds the answer to what is refused, in the form that a client reads."""

    def __call__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        field: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        """Return the answer."""


class RequestError(Exception):
    """A request that is no call: its path, method, size or form is wrong."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """*detail* must not quote the request."""
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers or {}


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    field: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem. Its type is that of its status; `reason` says more."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
    }
    if field:
        body["field"] = field
    return JSONResponse(
        body,
        status,
        media_type=MEDIA_TYPE,
        headers={**NO_STORE, **(headers or {})},
    )


def problem_of(answer: Answer, failed: Problems = problem) -> JSONResponse:
    """Return what the table of errors answers; *failed* gives it its form."""
    headers = {}
    if answer.retry_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(answer.retry_s)))
    if answer.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return failed(
        STATUS[answer.code],
        answer.reason,
        answer.words,
        field=answer.field,
        headers=headers,
    )
