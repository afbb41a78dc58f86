# SPDX-License-Identifier: Apache-2.0
"""Commands on backups: who may have one, and when there was one last."""

from typing import assert_never

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.backups import (
    BackupCommand,
    CreateBackup,
    NoteBackup,
)
from sparecode_node.statemachine.results import Applied, Result

NO_RECIPIENT = Rejected(
    Reason.NO_BACKUP_RECIPIENT,
    "the policy names nobody who could open a backup: make a key with "
    "`sparecode-node backup keygen`, and put its public half there with `sparecode "
    "policy update --set backup_recipients=age1...`",
)


def change_backups(applying: Applying, command: BackupCommand) -> Result:
    """Apply one of these commands."""
    match command:
        case CreateBackup():
            if not applying.policy.backup_recipients:
                return NO_RECIPIENT
            applying.detail = f"for {applying.policy.backup_recipients}"
        case NoteBackup():
            applying.detail = f"entry {command.index}, digest {command.digest}"
            for name, value in (
                ("backup_at_ms", command.taken_at_ms),
                ("backup_index", command.index),
            ):
                applying.db.execute(
                    "INSERT INTO meta (name, value) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (name, value),
                )
        case _ as never:
            assert_never(never)
    return Applied(index=applying.index)
