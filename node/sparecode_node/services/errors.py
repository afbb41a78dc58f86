# SPDX-License-Identifier: Apache-2.0
"""
The errors of use cases; `error_table` maps each to a status.

* ServiceError                 nothing was applied. Never raised itself
  - InvalidFieldError          a field of the request is out of bounds
  - Refused                    the rules forbid the request (`Rejected`)
    + NotSignedInError         the session does not exist, or it has ended
    + NotPermittedError        the session's role may not do this
    + ApprovalNeededError      the change waits for another administrator's approval
  - CertificateDeniedError     the agent's certificate is on the deny list
* OverloadedError (replication)
  - CountingError              live codes are still being counted for the change
  - HashingOverloadedError     the queue of the hashing pool is full
  - OpenCallsError             the caller has too many calls open
  - RateError                  the caller exceeds its rate
* UnidentifiedError            the certificate names no agent, or several
* NoCredentialsError           a caller by HTTP shows nothing that names an agent
* NoTimeLeftError              the deadline passed before the call began

Every other `ProposeError` passes through: it tells whether something may have been
applied.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import OverloadedError


class ServiceError(Exception):
    """Base class: the call had no effect. Never raised itself."""


class InvalidFieldError(ServiceError):
    """A field of the request is out of bounds. The message never quotes a secret."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Refused(ServiceError):  # noqa: N818
    """The rules forbid the request. *rejected* holds the reason."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(
            f"{rejected.reason.value}: {rejected.detail}"
            if rejected.detail
            else rejected.reason.value
        )
        self.rejected = rejected


@dataclass(frozen=True, slots=True)
class Outdated(Rejected):
    """The refusal of a change, because another one has come in between (P10)."""

    event: AuditEvent = field(kw_only=True)

    @classmethod
    def by(cls, event: AuditEvent) -> "Outdated":
        """Return the refusal, with the administrator or node, the time and the change."""
        at = datetime.fromtimestamp(event.at_ms // 1000, UTC).isoformat()
        what = f"{at}: {event.detail}" if event.detail else at
        words = (
            f"changed by {event.actor.replace(':', ' ', 1)} at {what}; read it again"
        )
        return cls(Reason.VERSION, words, "etag", event=event)


class NotSignedInError(Refused):
    """The session does not exist, or it has ended."""

    def __init__(self, detail: str = "sign in") -> None:
        super().__init__(Rejected(Reason.SESSION_ENDED, detail))


class NotPermittedError(Refused):
    """The session's role may not do this."""

    def __init__(self, detail: str) -> None:
        super().__init__(Rejected(Reason.ROLE, detail))


class ApprovalNeededError(Refused):
    """The change waits until another administrator approves it (P3)."""

    def __init__(self, approval_id: int) -> None:
        super().__init__(
            Rejected(
                Reason.APPROVAL_NEEDED,
                f"this waits for another super administrator, as approval {approval_id}",
            )
        )
        self.approval_id = approval_id


class CertificateDeniedError(ServiceError):
    """The agent's certificate is on the deny list; nothing was hashed or proposed."""


class CountingError(OverloadedError):
    """Live codes are still being counted (I6); the same call takes the count later."""


class HashingOverloadedError(OverloadedError):
    """The queue of the hashing pool is full; nothing was proposed."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"hashing is busy; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class RateError(OverloadedError):
    """The caller exceeds its rate (L7, Q3); nothing was hashed or proposed."""

    def __init__(self, whose: str, retry_after_s: float) -> None:
        super().__init__(f"too fast for {whose}; try again in {retry_after_s:.1f} s")
        self.whose = whose
        self.retry_after_s = retry_after_s


class OpenCallsError(OverloadedError):
    """The caller has too many calls open at the same time (Q3); this one did not begin."""

    def __init__(self, whose: str) -> None:
        super().__init__(
            f"{whose} has too many calls open on this node; nothing was changed; "
            "end one of them, then try again"
        )


REFUSES_ALL_ROWS = frozenset(
    {Reason.REQUEST_ID_REUSED, Reason.REQUEST_TABLE_FULL, Reason.NOT_INITIALIZED}
)
"""These refusals do not depend on the row: a request of many rows ends with them."""


def refusal(rejected: Rejected) -> Refused:
    """Return the exception for *rejected*."""
    match rejected.reason:
        case Reason.SESSION_ENDED:
            return NotSignedInError(rejected.detail)
        case Reason.ROLE:
            return NotPermittedError(rejected.detail)
        case _:
            return Refused(rejected)


class UnidentifiedError(Exception):
    """The caller's certificate does not name exactly one agent."""


class NoCredentialsError(Exception):
    """A caller by HTTP shows nothing that names an agent."""


class NoTimeLeftError(Exception):
    """The caller's deadline passed before the call began."""
