# SPDX-License-Identifier: Apache-2.0
"""
The rows of users who move: opened with the source's ring, sealed with the target's.

A verifier is a seal around a hash, and the hash depends on the user's own salts alone.
So users keep their PINs, codes and tokens, and no PIN or code is needed to move them.
The opened rows are only in memory, and in pieces that are encrypted for the target.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sparecode_node.domain.emergency_access import CodeState
from sparecode_node.domain.ids import KeyId, SetId, TokenSerial, UserId
from sparecode_node.domain.users import fold
from sparecode_node.queries.moves import Row, UserRows
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.move_seals import MoveSeals

CODES_MAX: Final = 40
"""Codes in one row: a piece must fit into one command."""

HEADER: Final = "cluster"
"""The kind of the first row, which tells how the source reads passcodes."""

_PLAIN_USER: Final = (
    "user_id",
    "username",
    "name_key",
    "display_name",
    "email",
    "enabled",
    "auth_version",
    "language",
    "manager_email",
    "email_since_ms",
    "manager_since_ms",
    "is_new",
)
_PLAIN_TOKEN: Final = (
    "serial",
    "algorithm",
    "hash_name",
    "digits",
    "period_s",
    "pin_rule",
    "expires_at_ms",
    "enabled",
    "user_id",
    "spent",
    "drift",
    "lost",
    "recovery",
    "out_of_step",
    "pin_lettered",
    "maybe_spent",
)
_PLAIN_SET: Final = (
    "set_id",
    "serial",
    "code_length",
    "issuer",
    "node_id",
    "issued_at_ms",
    "issued_index",
    "ends_at_ms",
    "voided",
    "fixed",
    "issued_elsewhere",
)

NamedRow = tuple[str, Row]


def opened_rows(seals: MoveSeals, rows: UserRows) -> list[NamedRow]:
    """
    Return the rows of one user without the source's seals, parents first.

    Raises `BrokenSealError` and `UnknownKeyError`.
    """
    return [*_opened(seals, rows)]


def _opened(seals: MoveSeals, rows: UserRows) -> Iterator[NamedRow]:
    user_id = UserId(rows.user["user_id"])
    yield (
        "user",
        {
            **_some(rows.user, _PLAIN_USER),
            "pin_salt": _text(rows.user["pin_salt"]),
            "code_salt": _text(rows.user["code_salt"]),
        },
    )
    yield from rows.plain
    for token in rows.tokens:
        yield "token", _opened_token(seals, token)
    yield from rows.token_rows
    for each in rows.sets:
        yield from _opened_set(seals, user_id, each)
    for tags in rows.tags:
        hashes = seals.hashes_in(tags["tags"], user_id, KeyId(tags["key_id"]))
        yield "former", _former(user_id, tags["serial"], hashes)
    for former in rows.former:
        hashes = [
            seals.hash_in(
                each,
                KeyId(former["key_id"]),
                Secret.CODE,
                user_id,
                former["set_id"],
            )
            for each in former["verifiers"]
        ]
        yield "former", _former(user_id, former["serial"], hashes)


def _opened_token(seals: MoveSeals, token: Row) -> Row:
    serial, user_id = TokenSerial(token["serial"]), UserId(token["user_id"])
    seed = seals.unseal_seed(serial, token["sealed_seed"], KeyId(token["key_id"]))
    pin_key = KeyId(token["pin_key_id"])
    pin = folded = b""
    if token["pin_verifier"]:
        pin = seals.hash_in(token["pin_verifier"], pin_key, Secret.PIN, user_id, serial)
    if token["sealed_pin"]:
        folded = seals.unseal_pin(
            user_id, serial, token["sealed_pin"], pin_key
        ).encode()
    return {
        **_some(token, _PLAIN_TOKEN),
        "seed": _text(seed),
        "pin": _text(pin),
        "folded_pin": _text(folded),
    }


def _opened_set(seals: MoveSeals, user_id: UserId, each: Row) -> Iterator[NamedRow]:
    # A message that nobody has opened can be opened in the source alone.
    unopened = bool(each["unopened"])
    yield (
        "set",
        {
            **_some(each, _PLAIN_SET),
            "user_id": user_id,
            "voided": each["voided"] or int(unopened),
            # Frozen users hear of no end here.
            "untold": int(bool(each["untold"]) and not unopened),
        },
    )
    codes = [
        [
            code["ordinal"],
            _text(
                seals.hash_in(
                    code["verifier"],
                    KeyId(each["key_id"]),
                    Secret.CODE,
                    user_id,
                    each["set_id"],
                )
            ),
            CodeState.VOID
            if unopened and code["state"] == CodeState.LIVE
            else code["state"],
            code["used_at_ms"],
            code["used_agent"],
            code["used_node_id"],
            code["used_index"],
        ]
        for code in each["codes"]
    ]
    for start in range(0, len(codes), CODES_MAX):
        yield (
            "codes",
            {
                "set_id": each["set_id"],
                "user_id": user_id,
                "codes": codes[start : start + CODES_MAX],
            },
        )


def _former(user_id: UserId, serial: str, hashes: Sequence[bytes]) -> Row:
    # Tags have the first bytes of a hash alone; see `Sealing.code_tag`.
    kept = [_text(each[:4]) for each in hashes]
    return {"user_id": user_id, "serial": serial, "hashes": kept}


def sealed_rows(
    seals: MoveSeals, rows: Sequence[NamedRow], key_id: KeyId
) -> list[NamedRow]:
    """Return opened rows under this cluster's ring. Raises `ValueError` and `LookupError`."""
    return [
        (kind, _sealed(seals, kind, row, key_id))
        for kind, row in rows
        if kind != HEADER
    ]


def _sealed(seals: MoveSeals, kind: str, row: Row, key_id: KeyId) -> Row:
    match kind:
        case "user":
            if fold(row["username"]) != row["name_key"]:
                # Its Unicode tables differ: nobody would find the user by this name.
                raise ValueError("a name that this node folds in another way")
            tag = seals.name_tag(row["name_key"], key_id)
            return {**row, "name_tag": _text(tag)}
        case "token":
            return _sealed_token(seals, row, key_id)
        case "codes":
            user_id, set_id = UserId(row["user_id"]), SetId(row["set_id"])
            codes = [
                [
                    ordinal,
                    _text(seals.code_verifier(_bytes(hashed), user_id, set_id, key_id)),
                    *rest,
                ]
                for ordinal, hashed, *rest in row["codes"]
            ]
            return {**row, "codes": codes}
        case "former":
            user_id = UserId(row["user_id"])
            tags = [
                seals.code_tag(_bytes(each), user_id, key_id) for each in row["hashes"]
            ]
            return {
                "user_id": user_id,
                "serial": row["serial"],
                "tags": _text(b"".join(tags)),
            }
        case _:
            return row


def _sealed_token(seals: MoveSeals, row: Row, key_id: KeyId) -> Row:
    serial, user_id = TokenSerial(row["serial"]), UserId(row["user_id"])
    seed, pin = _bytes(row["seed"]), _bytes(row["pin"])
    folded = _bytes(row["folded_pin"]).decode()
    return {
        **_some(row, _PLAIN_TOKEN),
        "sealed_seed": _text(seals.seal_seed(serial, seed, key_id)),
        "fingerprints": [
            [each, _text(value)] for each, value in seals.seed_fingerprints(seed)
        ],
        "pin_verifier": _text(
            seals.pin_verifier(pin, user_id, serial, key_id) if pin else b""
        ),
        "sealed_pin": _text(
            seals.seal_pin(user_id, serial, folded, key_id) if folded else b""
        ),
    }


def content_of(rows: Sequence[NamedRow]) -> bytes:
    """Return rows as bytes: the same for the same rows."""
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=True).encode()


def rows_in(content: bytes) -> list[NamedRow]:
    """Return the rows of a piece. Raises `ValueError` and `TypeError`."""
    return [(str(kind), dict(row)) for kind, row in json.loads(content)]


def _some(row: Mapping[str, Any], names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)
