# SPDX-License-Identifier: Apache-2.0
"""
Commands of moves for scripts: `proof` and `lock` are words, and so are the keys.

`arrives` lists users of the other cluster, each with their token: `bob:2001`; `Bob/bob`
also has the key of the name in that cluster. The node
of an `unopened` piece was behind, and expected another one.
"""

import base64
import json
from typing import Any

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import lock_of
from sparecode_node.domain.users import fold
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    CancelMove,
    DeleteMovedUsers,
    EndMove,
    ExportMovedUsers,
    FreezeUsers,
    ImportMovedUsers,
    PrepareMove,
    ReclaimMove,
)

OWN = "c1"
OTHER = "c2"
KEY = KeyId(1)


def move_command(directive: str, arguments: dict[str, str]) -> Command | None:
    """Return the command of a directive; None: it is none of a move."""
    move_id = arguments.get("move", "m1")
    slots = {
        "first_slot": int(arguments.get("first", "0")),
        "last_slot": int(arguments.get("last", "4095")),
    }
    locks: dict[str, Any] = {
        "public_key": b"the key of the target",
        "activated_lock": lock_of(f"{move_id} activated".encode()),
        "canceled_lock": lock_of(f"{move_id} canceled".encode()),
    }
    locks["same_administrators"] = "same-administrators" in arguments
    source = arguments.get("source", OWN)
    match directive:
        case "prepare-move":
            return PrepareMove(
                move_id=move_id,
                source=arguments.get("source", OTHER),
                source_key_id=1,
                source_key=b"the key of the source",
                key_id=KEY,
                **slots,
                **locks,
            )
        case "freeze-users":
            return FreezeUsers(
                move_id=move_id,
                source=source,
                target=OTHER,
                source_key_id=int(arguments.get("source-key", "1")),
                **slots,
                **locks,
            )
        case "end-move":
            return EndMove(
                move_id=move_id,
                source=source,
                target=OTHER,
                source_key_id=1,
                proof=f"{move_id} {arguments['proof']}".encode(),
                **slots,
                **locks,
            )
        case "export-moved":
            return ExportMovedUsers(move_id=move_id)
        case "import-moved":
            number = int(arguments.get("number", "0"))
            return ImportMovedUsers(
                move_id=move_id,
                number=number,
                chain=f"chain {number}".encode(),
                last="more" not in arguments,
                key_id=KEY,
                rows=b""
                if "unopened" in arguments
                else rows(arguments.get("arrives", "")),
            )
        case "activate-move":
            return ActivateMove(move_id=move_id)
        case "cancel-move":
            return CancelMove(move_id=move_id)
        case "reclaim-move":
            part = slots if "first" in arguments else {}
            return ReclaimMove(move_id=move_id, reason="it burned", **part)
        case "delete-moved":
            return DeleteMovedUsers(move_id=move_id)
    return None


def rows(arrives: str) -> bytes:
    """Return the rows of users and their tokens."""
    found: list[tuple[str, dict[str, object]]] = []
    for each in filter(None, arrives.split(",")):
        name, _, serial = each.partition(":")
        name, _, key = name.partition("/")
        found.append(("user", user_row(name, key)))
        if serial:
            found.append(("token", token_row(name, serial)))
    return json.dumps(found).encode()


def user_row(name: str, key: str = "") -> dict[str, object]:
    """Return the row of a user; *key*: their name as the other cluster folds it."""
    return {
        "user_id": f"u-{name}",
        "username": name,
        "name_key": key or fold(name),
        "name_tag": text(f"tag {key or fold(name)}"),
        "display_name": "",
        "email": "",
        "enabled": 1,
        "auth_version": 1,
        "pin_salt": text("salt"),
        "code_salt": text("salt"),
        "language": "",
        "manager_email": "",
        "email_since_ms": 0,
        "manager_since_ms": 0,
        "is_new": 1,
    }


def token_row(name: str, serial: str) -> dict[str, object]:
    """Return the row of a token without a PIN."""
    return {
        "serial": serial,
        "algorithm": "totp",
        "hash_name": "sha1",
        "digits": 6,
        "period_s": 30,
        "sealed_seed": text(f"seed {serial}"),
        "fingerprints": [[1, text(f"fingerprint {serial}")]],
        "pin_rule": "none",
        "expires_at_ms": None,
        "enabled": 1,
        "user_id": f"u-{name}",
        "pin_verifier": "",
        "spent": 7,
        "drift": 0,
        "lost": 0,
        "recovery": "deny",
        "sealed_pin": "",
        "out_of_step": 0,
        "pin_lettered": 0,
        "maybe_spent": -1,
    }


def text(words: str) -> str:
    """Return bytes as rows have them."""
    return base64.b64encode(words.encode()).decode()
