# SPDX-License-Identifier: Apache-2.0
"""`NoteRefusedCalls`: nothing changes but the audit log (U1)."""

from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.refusals import NoteRefusedCalls
from sparecode_node.statemachine.results import Applied, Result


def note_refused_calls(applying: Applying, command: NoteRefusedCalls) -> Result:
    """Apply `NoteRefusedCalls`."""
    applying.actor = command.actor
    applying.outcome = "refused"
    applying.reason = command.reason
    if command.count != 1:
        applying.detail = f"{command.count} calls"
    return Applied(index=applying.index)
