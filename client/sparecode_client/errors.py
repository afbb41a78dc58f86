# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N818  The names are those of the contract's table, not of a convention.
"""
Errors of a call, and what a program may assume about the call.

* SparecodeError        base class, never raised itself; has `reason` and `words`
  - InvalidArgument     not applied; `field` is wrong: see `description`
  - Refused             not applied; the rules forbid it: see `reason`
  - NotFound            not applied; there is no such user, token or other thing
  - AlreadyExists       not applied; the name is taken
  - NotSignedIn         not applied; sign in (again)
  - NotPermitted        not applied; this administrator may not do it
    - ApprovalNeeded    not applied yet; another administrator must approve it
  - Overloaded          not applied; try again after `retry_after_s`
  - Unavailable         not applied; no node could be reached, or no quorum
  - OutcomeUnknown      perhaps applied; a retry with the same `request_id`
                        returns the answer, or applies it now
  - NodeFailed          perhaps applied; a bug, reported in the log of the node

A refused passcode is not an error: the call worked, and the decision is
`Decision.REFUSED`. No error ever means that a passcode was accepted.
"""


class SparecodeError(Exception):
    """Base class of all errors of a call. Never raised itself."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        """For programs: a stable name, such as `TOKEN_EXPIRED`."""
        self.words = words
        """For people: may change in any release."""


class InvalidArgument(SparecodeError):
    """A field of the request is wrong. Nothing was applied."""

    def __init__(self, field: str, description: str, reason: str = "FIELD") -> None:
        # A description of two conflicting fields names both of them already.
        names_field = not field or description.startswith(f"{field} ")
        super().__init__(
            reason, description if names_field else f"{field}: {description}"
        )
        self.field = field
        """The wrong field; empty if no single field is wrong."""
        self.description = description


class Refused(SparecodeError):
    """The rules forbid it. Nothing was applied."""


class NotFound(SparecodeError):
    """The user, token or other thing does not exist. Nothing was applied."""


class AlreadyExists(SparecodeError):
    """The name is taken. Nothing was applied."""


class NotSignedIn(SparecodeError):
    """No session, an expired session, or a wrong password. Nothing was applied."""


class NotPermitted(SparecodeError):
    """This administrator may not do it. Nothing was applied."""


class ApprovalNeeded(NotPermitted):
    """Another super administrator must approve. Nothing was applied yet."""

    def __init__(self, reason: str, words: str, approval_id: int) -> None:
        super().__init__(reason, words)
        self.approval_id = approval_id


class Overloaded(SparecodeError):
    """The cluster shed the request until the deadline. Nothing was applied."""

    def __init__(self, reason: str, words: str, retry_after_s: float) -> None:
        super().__init__(reason, words)
        self.retry_after_s = retry_after_s


class Unavailable(SparecodeError):
    """No node can answer: `NO_QUORUM`, `UNREACHABLE`, ... Nothing was applied."""


class OutcomeUnknown(SparecodeError):
    """
    The deadline passed before a node could tell whether the request was applied.

    Call again with this `request_id`. If the request was applied, the answer is the one
    that was lost; if not, it is applied now. It is never applied twice.
    """

    def __init__(self, request_id: str, words: str) -> None:
        super().__init__("OUTCOME_UNKNOWN", words)
        self.request_id = request_id
        self.cluster = ""
        """
        Of a `RoutedAgent`: the cluster that perhaps applied it, as the slot table names it.
        """


class NodeFailed(SparecodeError):
    """A node hit a bug, or does not implement this API. Perhaps applied."""
