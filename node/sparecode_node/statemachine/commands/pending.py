# SPDX-License-Identifier: Apache-2.0
"""
Changes that wait for an approval, as JSON: equal changes have equal texts.

The texts are on disk until the changes are decided. A field that was added later is
absent in an older text, and is read as None, as in an older log entry.
"""

import dataclasses
import enum
import json
import typing
from typing import Any

from sparecode_node.domain.ids import KeyId
from sparecode_node.statemachine import commands

Change = (
    commands.UpdatePolicy
    | commands.CreateAdministrator
    | commands.UpdateAdministrator
    | commands.RemoveAdministrator
    | commands.RemoveSecondFactor
    | commands.ChangePassword
    | commands.OpenCluster
    | commands.AddMember
    | commands.KeepAuthorities
    | commands.ReplaceAuthorities
    | commands.FinishAuthorities
    | commands.DeclareSegmentsLost
    | commands.PrepareMove
    | commands.FreezeUsers
    | commands.ActivateMove
    | commands.EndMove
    | commands.ReclaimMove
    | commands.DeleteMovedUsers
    | commands.ConfirmArchive
    | commands.CreateJoinTicket
    | commands.AssignToken
    | commands.EnableToken
    | commands.UpdateToken
    | commands.ClearPin
    | commands.ReinstateToken
    | commands.DisableEmergencyAccess
    | commands.SetPin
    | commands.ReplaceToken
    | commands.ResynchronizeToken
    | commands.UpdateUser
    | commands.UnlockUser
    | commands.SaveChannel
    | commands.RemoveChannel
)
"""Commands that may have to wait for a second approver (P3)."""

_CHANGES: dict[str, type[Change]] = {
    each.__name__: each for each in typing.get_args(Change)
}


def to_json(change: Change) -> str:
    """Return the text of a change."""
    fields = {
        field.name: _written(getattr(change, field.name))
        for field in dataclasses.fields(change)
    }
    return json.dumps(
        {"type": type(change).__name__, **fields},
        ensure_ascii=True,
        separators=(",", ":"),
    )


def from_json(text: str) -> Change:
    """Return the change of a text from `to_json`."""
    written = json.loads(text)
    kind = _CHANGES[written.pop("type")]
    hints = typing.get_type_hints(kind)
    return kind(
        **{name: _read(hint, written.get(name)) for name, hint in hints.items()}
    )


Sealed = commands.CreateAdministrator | commands.ChangePassword | commands.SaveChannel
"""Changes that may hold a verifier, or a channel's secret."""


def sealed_in(change: Change) -> Sealed | None:
    """Return the change if it holds what was made with a key of the ring."""
    return change if isinstance(change, Sealed) and seal_of(change) else None


def seal_of(change: Sealed) -> bytes:
    """Return the seal in a change; empty: it has none."""
    if isinstance(change, commands.SaveChannel):
        return change.sealed_secret or b""
    return change.password_verifier


def with_seal(change: Sealed, seal: bytes, key_id: KeyId) -> Sealed:
    """Return the change with its seal made with another key."""
    if isinstance(change, commands.SaveChannel):
        return dataclasses.replace(change, sealed_secret=seal, key_id=key_id)
    return dataclasses.replace(change, password_verifier=seal, key_id=key_id)


def _written(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _read(hint: Any, value: Any) -> Any:  # noqa: ANN401  as JSON and hints have it
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    if isinstance(value, list):
        return tuple(value)
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return None if value is None else kind(value)
    return value
