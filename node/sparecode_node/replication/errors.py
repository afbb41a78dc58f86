# SPDX-License-Identifier: Apache-2.0
"""
What can go wrong between a proposal and its result.

* ProposeError
  - NotAppliedError        certainly not applied
    + NoPrimaryError       no primary is known, or it could not be reached
    + NoQuorumError        the primary is not in contact with a quorum, or no
                           primary is known to a node that has no quorum either
    + ClockError           the clock of the primary, or of this node while no
                           primary is known, differs from a quorum's (T5)
    + OlderMemberError     a member does not know the command yet
    + KeyMissingError      the primary's key ring lacks a key for judging the call
    + OverloadedError      a bounded queue is full; try again later
    + ChangeRefusedError   this change of the cluster is not possible, or not now
    + RemovedError         this node was removed from the cluster
  - OutcomeUnknownError    perhaps applied; only a retry with the same
                           request id is safe (A7)

A refusal by the rules is not an error: it is a result (`Rejected`). A broken replica
raises none of these either: it stops (`Fatal`), or does not start
(`StartRefusedError`).
"""

from sparecode_node.domain.outcomes import Rejected


class ProposeError(Exception):
    """Base class: a command has no known result. Never raised itself."""


class NotAppliedError(ProposeError):
    """The command was not applied and will not be. Never raised itself."""


class NoPrimaryError(NotAppliedError):
    """No primary is known here, or the known one could not be reached."""


class NoQuorumError(NotAppliedError):
    """Too few members are in contact to decide, so nothing was proposed."""


class ClockError(NotAppliedError):
    """A clock does not agree with a quorum's, so no call was stamped (T5)."""


class OlderMemberError(NotAppliedError):
    """A member runs a release that does not know the command, so it was not proposed."""


class KeyMissingError(NotAppliedError):
    """The primary lacks a key that judging the call needs, so it did not judge it (T3)."""


class OverloadedError(NotAppliedError):
    """A bounded queue is full; the call was not proposed."""


class ChangeRefusedError(NotAppliedError):
    """Members or primary cannot be changed like this, or not now."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.detail)
        self.rejected = rejected


class RemovedError(NotAppliedError):
    """This node was removed from the cluster: it answers no call any more."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"{node_id} was removed from the cluster")


class OutcomeUnknownError(ProposeError):
    """The command was proposed, and its outcome is not known here."""


class MalformedCallError(Exception):
    """Another member forwards bytes that are not a call, or not one of its own."""


class SnapshotRefusedError(Exception):
    """A snapshot must not be kept or installed now; this changed nothing."""


class StoppingError(Exception):
    """This node was told to stop, and has stopped reading its whole state."""

    def __init__(self) -> None:
        super().__init__("this node stops, and no longer reads its whole state")


class StartRefusedError(Exception):
    """The files on this node's disk do not fit together: it must not take part."""


class Fatal(BaseException):
    """
    An invariant is violated, or durability is lost: this node must stop.

    Not an `Exception`, so that no code on the way can catch it by accident and go on;
    least of all PySyncObj.
    """
