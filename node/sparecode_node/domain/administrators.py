# SPDX-License-Identifier: Apache-2.0
"""
Administrators, their roles, and the permissions of each role (P1).

One table holds the permissions. Services check it when a call arrives; apply
checks it again when the command is decided.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import AdministratorName, KeyId, Moment, UserId
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.policy import MINUTE_MS
from sparecode_node.domain.sign_in_waits import STRANGERS_WAIT_MS_MAX, wait_ms
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
)

REAUTHENTICATION_MS = 5 * MINUTE_MS
"""How long a session may change power after password and second factor (P7)."""


class Role(enum.StrEnum):
    """What an administrator is responsible for."""

    SUPER_ADMIN = "super_admin"
    HELP_DESK = "help_desk"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class Permission(enum.StrEnum):
    """The permission that a call needs. Several calls may need the same one."""

    READ_USERS = "read_users"
    EXPLAIN_USERS = "explain_users"
    CHANGE_USERS = "change_users"
    UNLOCK_USERS = "unlock_users"
    CHANGE_TOKENS = "change_tokens"
    CLEAR_PINS = "clear_pins"
    ISSUE_EMERGENCY_ACCESS = "issue_emergency_access"
    READ_AGENTS = "read_agents"
    CHANGE_AGENTS = "change_agents"
    READ_NOTICES = "read_notices"
    CHANGE_CHANNELS = "change_channels"
    SEND_NOTICES = "send_notices"
    READ_CLUSTER = "read_cluster"
    CHANGE_CLUSTER = "change_cluster"
    ADMIT_MEMBERS = "admit_members"
    REMOVE_MEMBERS = "remove_members"
    ROTATE_KEYS = "rotate_keys"
    CREATE_BACKUPS = "create_backups"
    MOVE_USERS = "move_users"
    READ_AUDIT = "read_audit"
    READ_POLICY = "read_policy"
    CHANGE_POLICY = "change_policy"
    READ_ADMINISTRATORS = "read_administrators"
    CHANGE_ADMINISTRATORS = "change_administrators"
    READ_APPROVALS = "read_approvals"
    APPROVE = "approve"
    REJECT = "reject"
    USE_OWN_ACCOUNT = "use_own_account"


_OWN = frozenset({Permission.USE_OWN_ACCOUNT})
"""Of every role: the own session, password and second factor."""

_READS = frozenset(
    {
        Permission.READ_USERS,
        Permission.EXPLAIN_USERS,
        Permission.READ_AGENTS,
        Permission.READ_NOTICES,
        Permission.READ_CLUSTER,
        Permission.READ_AUDIT,
        Permission.READ_POLICY,
        Permission.READ_ADMINISTRATORS,
        Permission.READ_APPROVALS,
    }
)

_ALLOWED: dict[Role, frozenset[Permission]] = {
    Role.SUPER_ADMIN: frozenset(Permission),
    Role.HELP_DESK: frozenset(
        {
            Permission.READ_USERS,
            Permission.EXPLAIN_USERS,
            Permission.UNLOCK_USERS,
            Permission.CLEAR_PINS,
            Permission.ISSUE_EMERGENCY_ACCESS,
            Permission.READ_POLICY,
            Permission.READ_APPROVALS,
            Permission.REJECT,
        }
    )
    | _OWN,
    Role.AUDITOR: _READS | _OWN,
    Role.OPERATOR: frozenset(
        {
            Permission.READ_CLUSTER,
            Permission.READ_NOTICES,
            Permission.SEND_NOTICES,
            Permission.CHANGE_CLUSTER,
            Permission.CREATE_BACKUPS,
            Permission.REJECT,
        }
    )
    | _OWN,
}


def may(role: Role, permission: Permission) -> bool:
    """Return whether the role has the permission (P1)."""
    return permission in _ALLOWED[role]


SECOND_FACTOR = TokencodeParameters(
    algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
)
"""Parameters that every authenticator app supports (RFC 6238)."""
SECOND_FACTOR_WINDOW = 1
SECOND_FACTOR_SEED_BYTES = 20
SECOND_FACTOR_DRAFT_MS = 15 * MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactor:
    """The seed of the time-based code that sign-in needs besides the password."""

    sealed_seed: bytes
    key_id: KeyId
    spent: Moment
    """The last spent time step. This step and earlier ones are not accepted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """A person who manages the service."""

    name: AdministratorName
    role: Role
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    version: int = 1
    """Raised by every change of the password or of the key that it is sealed with."""
    enabled: bool = True
    failures: int = 0
    blocked_until_ms: int = 0
    user_id: UserId | None = None
    """The user that is the same person; None: declared to be no user (I10)."""
    temporary: bool = False
    """Another administrator chose the password; its owner can only change it."""
    second_factor: SecondFactor | None = None
    """The secret of time-based codes; None: there is none."""
    replaced: bool = False
    """
    The temporary password replaced one of the owner's choice.

    Never set below feature level 2.
    """
    passkeys: int = 0
    """The number of passkeys, which have rows of their own (P8)."""

    @property
    def has_second_factor(self) -> bool:
        """Whether sign-in needs a code or a passkey as well."""
        return self.second_factor is not None or self.passkeys > 0

    @property
    def best_factor(self) -> ShownFactor:
        """The second factor that the administrator can show (P8)."""
        if self.passkeys:
            return ShownFactor.PASSKEY
        return ShownFactor.NONE if self.second_factor is None else ShownFactor.CODE

    def blocks(self, now_ms: int) -> bool:
        """Return whether a stranger is refused now without checking the password."""
        return now_ms < self.blocked_until_ms

    def failed(self, now_ms: int) -> "Administrator":
        """
        Return the administrator after a stranger's wrong password (L7).

        Known clients have counts of their own: see `sign_in_waits`.
        """
        return replace(
            self,
            failures=self.failures + 1,
            blocked_until_ms=now_ms + wait_ms(self.failures, STRANGERS_WAIT_MS_MAX),
        )

    def succeeded(self) -> "Administrator":
        """Return the administrator after the right password."""
        return replace(self, failures=0, blocked_until_ms=0)

    def with_code_spent(self, moments: Sequence[Moment]) -> "Administrator | None":
        """
        Return the administrator with a code spent, or None if no code is unspent.

        *moments* are the time steps at which the typed code is right.
        """
        factor = self.second_factor
        unspent = [m for m in moments if factor is not None and m > factor.spent]
        if factor is None or not unspent:
            return None
        return replace(self, second_factor=replace(factor, spent=min(unspent)))

    def with_password(
        self, salt: bytes, verifier: bytes, key_id: KeyId, *, temporary: bool
    ) -> "Administrator":
        """Return the administrator with a new password and without a wait."""
        return replace(
            self.succeeded(),
            password_salt=salt,
            password_verifier=verifier,
            key_id=key_id,
            version=self.version + 1,
            temporary=temporary,
            replaced=temporary and (self.replaced or not self.temporary),
        )

    @property
    def rules(self) -> bool:
        """Whether this is an enabled super administrator, who can change the others."""
        return self.enabled and self.role is Role.SUPER_ADMIN
