# SPDX-License-Identifier: Apache-2.0
"""Handlers of the cluster: initialization, feature level, backups, refused calls."""

from sparecode_node.domain.administrators import Administrator, Role
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import (
    CreateBackup,
    InitializeCluster,
    NoteBackup,
    NoteRefusedCalls,
    NoteSkipStatement,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.handlers.policy import add_policy
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import keys as key_tables
from sparecode_node.statemachine.tables import meta, skips

NOT_SKIPPED = Rejected(
    Reason.STALE_PARAMETERS, "this entry was not skipped: nothing was decided"
)

NO_RECIPIENT = Rejected(
    Reason.NO_BACKUP_RECIPIENT,
    "the policy names no recipient who could open a backup: create a key pair with "
    "`sparecode-node backup keygen`, then add the public key with `sparecode policy "
    "update --set backup_recipients=age1...`",
)


def initialize_cluster(applying: Applying, command: InitializeCluster) -> Result:
    """Apply `InitializeCluster`. The machine has checked that the state is empty."""
    db = applying.db
    applying.detail = f"first administrator {command.administrator}"
    db.executemany(
        "INSERT INTO meta (name, value) VALUES (?, ?)",
        [("cluster_id", command.cluster_id), ("key_id", command.key_id)],
    )
    level = feature_level.raise_to(db, command.feature_level or feature_level.FIRST)
    key_tables.add_first(db, command.key_id)
    add_policy(db, Policy(), level)
    administrator_tables.save_administrator(
        db,
        Administrator(
            name=command.administrator,
            role=Role.SUPER_ADMIN,
            password_salt=command.password_salt,
            password_verifier=command.password_verifier,
            key_id=command.key_id,
        ),
    )
    return Applied(index=applying.index)


def raise_feature_level(applying: Applying, command: RaiseFeatureLevel) -> None:
    """Apply `RaiseFeatureLevel`."""
    feature_level.raise_to(applying.db, command.level)


def create_backup(applying: Applying, command: CreateBackup) -> Rejected | None:
    """Apply `CreateBackup`: refuse it if no recipient could open the backup."""
    del command
    if not applying.policy.backup_recipients:
        return NO_RECIPIENT
    applying.detail = f"for {applying.policy.backup_recipients}"
    return None


def note_backup(applying: Applying, command: NoteBackup) -> None:
    """Apply `NoteBackup`: record the newest backup, for reminders."""
    applying.detail = f"entry {command.index}, digest {command.digest}"
    meta.write(applying.db, "backup_at_ms", command.taken_at_ms)
    meta.write(applying.db, "backup_index", command.index)


def note_refused_calls(applying: Applying, command: NoteRefusedCalls) -> None:
    """Apply `NoteRefusedCalls`: only the audit log changes (U1)."""
    applying.actor = command.actor
    applying.outcome = "refused"
    applying.reason = command.reason
    if command.count != 1:
        applying.detail = f"{command.count} calls"


def note_skip_statement(
    applying: Applying, command: NoteSkipStatement
) -> Rejected | None:
    """Apply `NoteSkipStatement`: name the operator and the reason (E3, U1)."""
    applying.actor = f"operator:{command.operator}"
    applying.detail = f"signed by {command.member}: {command.reason}"
    known = skips.add_statement(
        applying.db,
        command.index,
        command.digest,
        command.member,
        operator=command.operator,
        reason=command.reason,
        at_ms=command.signed_at_ms,
        statement=command.statement,
    )
    return None if known else NOT_SKIPPED
