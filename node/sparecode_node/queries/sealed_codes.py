# SPDX-License-Identifier: Apache-2.0
"""Codes that went by message, as the page of their link needs them (I13)."""

from dataclasses import dataclass, field

from sparecode_node.domain.ids import SetId, TokenSerial, UserId
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCodesView:
    """The encrypted codes of one set, and what is known of the set."""

    set_id: SetId
    serial: TokenSerial
    user_id: UserId
    ciphertext: bytes = field(repr=False)
    page: str
    """SHA-256 of the number of the page that opened them; empty: none did."""
    issued_at_ms: int
    ends_at_ms: int | None
    """Of the set."""
    issuer: str


async def by_opener(
    transaction: ReadTransaction, opener: str, now_ms: int
) -> SealedCodesView | None:
    """Return the codes that a link opens, if their time has not passed."""
    row = await transaction.one(
        "SELECT set_id, serial, user_id, ciphertext, page, issued_at_ms, "
        "code_sets.ends_at_ms AS set_ends_at_ms, issuer "
        "FROM sealed_codes JOIN code_sets USING (set_id) JOIN tokens USING (serial) "
        "WHERE opener = :opener AND sealed_codes.ends_at_ms > :now_ms "
        "AND user_id IS NOT NULL",
        opener=opener,
        now_ms=now_ms,
    )
    if row is None:
        return None
    return SealedCodesView(
        set_id=SetId(row["set_id"]),
        serial=TokenSerial(row["serial"]),
        user_id=UserId(row["user_id"]),
        ciphertext=bytes(row["ciphertext"]),
        page=row["page"],
        issued_at_ms=row["issued_at_ms"],
        ends_at_ms=row["set_ends_at_ms"],
        issuer=row["issuer"],
    )
