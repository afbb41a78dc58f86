# SPDX-License-Identifier: Apache-2.0
"""Local resets of administrators, which wait before they are in force (P4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId
from sparecode_node.domain.membership import KnownNode
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import DAY_MS

MEMBER_AGE_MS = DAY_MS
"""
A younger member cannot request a reset.

A stranger who gets a machine admitted must wait for a day, and the admission is in the
audit log all that time.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A requested reset of an administrator."""

    name: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    second_factor: bool
    """Whether it also removes the second factor."""
    node_id: NodeId
    """The node on whose machine root requested it."""
    uid: int
    asked_at_ms: int
    due_at_ms: int

    def applied_to(self, before: Administrator) -> Administrator:
        """Return the administrator after the reset."""
        after = before.with_password(
            self.password_salt, self.password_verifier, self.key_id, temporary=True
        )
        return replace(
            after,
            enabled=True,
            second_factor=None if self.second_factor else before.second_factor,
            passkeys=0 if self.second_factor else before.passkeys,
        )

    @property
    def description(self) -> str:
        """The request in words, for the audit log."""
        return (
            f"by user id {self.uid} on node {self.node_id}"
            f"{'' if not self.second_factor else ', with the second factor'}"
        )


def unknown(name: AdministratorName, super_administrators: Sequence[str]) -> Rejected:
    """Return the refusal for an unknown name. Root may read the names anyway."""
    return Rejected(
        Reason.ADMINISTRATOR_UNKNOWN,
        f"there is no administrator {name}; the super administrators are "
        + ", ".join(super_administrators),
        "administrator",
    )


def not_now(
    name: AdministratorName,
    *,
    node_id: NodeId,
    node: KnownNode | None,
    is_pending: bool,
    now_ms: int,
) -> Rejected | None:
    """
    Return why a node cannot request a reset now.

    *node*: None for a founder of the cluster, which joined at its beginning.
    """
    if node is not None and (
        node.removed or now_ms < node.changed_at_ms + MEMBER_AGE_MS
    ):
        return Rejected(
            Reason.MEMBER_YOUNG,
            f"{node_id} has been a member for less than a day: request the reset on an "
            "older member",
        )
    if is_pending:
        return Rejected(
            Reason.RESET_PENDING,
            f"a reset of {name} is already requested",
            "administrator",
        )
    return None
