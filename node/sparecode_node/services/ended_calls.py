# SPDX-License-Identifier: Apache-2.0
"""Calls that have ended, for metrics and traces, whichever door they came through."""

import contextvars
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.services.error_table import Audience, Code

REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar(
    "request_id", default=""
)
"""The request id of the current call. Every line logged during the call carries it."""


@dataclass(slots=True, kw_only=True)
class EndedCall:
    """How a call ended: answered, refused or cancelled. It holds no content of the call."""

    audience: Audience
    listener: str = ""
    """The section of its listener; empty: that of gRPC for this audience."""
    method: str
    code: str = Code.INTERNAL.name
    """The name of its status."""
    seconds: float = 0.0
    decision: str = ""
    """The decision sent to an agent, in lower case; otherwise empty."""


class Tracer(Protocol):
    """Creates traces of calls."""

    def call(
        self, ended: EndedCall, metadata: Mapping[str, str]
    ) -> AbstractContextManager[None]:
        """Trace a call. Afterwards *ended* has its outcome."""
