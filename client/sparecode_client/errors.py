# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N818  The names are those of the contract's table, not of a convention.
"""
What callers may catch, and what they may assume then.

* SparecodeError        never raised itself; has `reason` and `words`
  - InvalidArgument     not applied; `field` is wrong: `description`
  - Refused             not applied; the rules say no: `reason`
  - NotFound            not applied; there is no such user, token, ...
  - AlreadyExists       not applied; the name is taken
  - NotSignedIn         not applied; sign in (again)
  - NotPermitted        not applied; somebody else may do this
    - ApprovalNeeded    not applied yet; somebody else has to approve it
  - Overloaded          not applied; try again after `retry_after_s`
  - Unavailable         not applied; no node could be reached, or no quorum
  - OutcomeUnknown      perhaps applied; only a retry with the same
                        `request_id` tells, or does it if it was not
  - NodeFailed          perhaps applied; a bug, told in the log of the node

A passcode that is refused is none of these: the call worked, and the answer is
`Decision.REFUSED`. No error is ever an acceptance.
"""


class SparecodeError(Exception):
    """Base class: the call did not do what it was to do. Never raised itself."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        """For programs: a name that stays the same, as `TOKEN_EXPIRED`."""
        self.words = words
        """For people; may change with every release."""


class InvalidArgument(SparecodeError):
    """A field of the request is wrong. Nothing was applied."""

    def __init__(self, field: str, description: str, reason: str = "FIELD") -> None:
        # Of two fields at odds the words name both, and need nobody else to.
        names_field = not field or description.startswith(f"{field} ")
        super().__init__(
            reason, description if names_field else f"{field}: {description}"
        )
        self.field = field
        """The field at fault; empty if it is not one field."""
        self.description = description


class Refused(SparecodeError):
    """The rules forbid it. Nothing was applied."""


class NotFound(SparecodeError):
    """There is no such thing. Nothing was applied."""


class AlreadyExists(SparecodeError):
    """The name is taken. Nothing was applied."""


class NotSignedIn(SparecodeError):
    """No session, an ended one, or a wrong password. Nothing was applied."""


class NotPermitted(SparecodeError):
    """This administrator may not do it. Nothing was applied."""


class ApprovalNeeded(NotPermitted):
    """It waits for another super administrator. Nothing was applied yet."""

    def __init__(self, reason: str, words: str, approval_id: int) -> None:
        super().__init__(reason, words)
        self.approval_id = approval_id


class Overloaded(SparecodeError):
    """The cluster sheds load, longer than the deadline. Nothing was applied."""

    def __init__(self, reason: str, words: str, retry_after_s: float) -> None:
        super().__init__(reason, words)
        self.retry_after_s = retry_after_s


class Unavailable(SparecodeError):
    """No node can answer now: `NO_QUORUM`, `UNREACHABLE`, ... Nothing was applied."""


class OutcomeUnknown(SparecodeError):
    """
    Nobody could say within the deadline whether it was applied.

    Call again with this `request_id`: if it was applied, the answer is the one
    that got lost, and otherwise it is done now. It is never done twice.
    """

    def __init__(self, request_id: str, words: str) -> None:
        super().__init__("OUTCOME_UNKNOWN", words)
        self.request_id = request_id


class NodeFailed(SparecodeError):
    """A node hit a bug, or does not speak this contract. Perhaps applied."""
