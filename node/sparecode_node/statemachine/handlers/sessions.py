# SPDX-License-Identifier: Apache-2.0
"""Handlers of administrators' sessions, from sign-in to end (P2)."""

import hmac
import sqlite3

from sparecode_node.domain.administrators import (
    Administrator,
    Permission,
    Role,
    may,
)
from sparecode_node.domain.ids import SessionId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.policy import MINUTE_MS, FactorRule, Policy
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import (
    CloseSession,
    CollectBrowserLogin,
    EndSession,
    OpenSession,
    Reauthenticate,
    TouchSessions,
)
from sparecode_node.statemachine.feature_level import CLIENT_WAITS, SESSION_LIMITS
from sparecode_node.statemachine.handlers import resets, sign_in_waits
from sparecode_node.statemachine.handlers.passkeys import use_passkey
from sparecode_node.statemachine.results import Result, SessionOpened
from sparecode_node.statemachine.session_limits import session_limits
from sparecode_node.statemachine.tables import administrators as administrator_tables

TOUCH_MS = MINUTE_MS
"""Minimum time between two recorded uses of a session."""


def open_session(applying: Applying, command: OpenSession) -> Result:
    """
    Apply `OpenSession`.

    Every refusal has the same message. Only the audit log tells whether the name, the
    password or the wait was the reason, and whether a known device was used (L7).
    """
    db = applying.db
    administrator = administrator_tables.find_administrator(db, command.administrator)
    known = (
        (administrator.version, administrator.key_id)
        if administrator
        else (0, applying.keys.active)
    )
    if (command.administrator_version, command.key_id) != known:
        return Rejected(Reason.STALE_PARAMETERS)
    refused = Rejected(
        Reason.SIGN_IN_REFUSED,
        "the name or password is wrong, or there were too many wrong passwords: wait a "
        f"{sign_in_waits.time_to_wait(applying)} and try again",
    )
    if administrator is None:
        applying.reason = "unknown_name"
        return refused
    if command.device and applying.feature_level >= CLIENT_WAITS:
        applying.detail = "from a known device"
    if not administrator.enabled:
        applying.reason = "administrator_disabled"
        return refused
    if sign_in_waits.blocks(applying, administrator, command.device):
        applying.reason = Reason.LOCKED
        return refused
    if not hmac.compare_digest(administrator.password_verifier, command.candidate):
        sign_in_waits.charge(applying, administrator, command.device)
        applying.reason = "wrong_password"
        return refused
    factor = ShownFactor.NONE
    if administrator.has_second_factor:
        after = _second_factor(applying, administrator, command, command.device)
        if isinstance(after, Rejected):
            return after
        administrator, factor = after
    administrator_tables.save_administrator(
        db, sign_in_waits.succeeded(applying, administrator, command.device)
    )
    resets.cancel_at_sign_in(applying, administrator)
    return insert(
        applying,
        command.session_id,
        administrator,
        proved_at_ms=applying.now_ms,
        factor=factor,
        address=command.address,
        door=command.door,
    )


def insert(
    applying: Applying,
    session_id: SessionId,
    administrator: Administrator,
    *,
    proved_at_ms: int,
    factor: ShownFactor,
    address: str,
    door: str,
) -> SessionOpened:
    """Open a session of an administrator who may sign in."""
    limits = session_limits(applying.policy, administrator.role, applying.feature_level)
    ends_at_ms = applying.now_ms + limits.lifetime_ms
    listed = applying.feature_level >= SESSION_LIMITS
    # Release 0.1.0 derives the bearer from name, password and request id. So signing in
    # there with the same three after the request id is forgotten opens the same session.
    applying.db.execute(
        "INSERT INTO sessions "
        "(session_id, administrator, opened_at_ms, ends_at_ms, used_at_ms, "
        "proved_at_ms, node_id, address, door, factor) "
        "VALUES "
        "(:id, :name, :now, :end, :now, :proved, :node, :address, :door, :factor) "
        "ON CONFLICT (session_id) DO UPDATE SET "
        "administrator = :name, opened_at_ms = :now, ends_at_ms = :end, "
        "used_at_ms = :now, proved_at_ms = :proved, node_id = :node, "
        "address = :address, door = :door, factor = :factor",
        {
            "id": session_id,
            "factor": factor,
            "name": administrator.name,
            "now": applying.now_ms,
            "proved": proved_at_ms,
            "end": ends_at_ms,
            "node": applying.call.node_id if listed else "",
            "address": address if listed else "",
            "door": door if listed else "",
        },
    )
    return SessionOpened(
        index=applying.index,
        administrator=administrator.name,
        role=administrator.role,
        ends_at_ms=ends_at_ms,
    )


def is_repeated(
    applying: Applying,
    command: OpenSession | CollectBrowserLogin,
    remembered: Result,
) -> bool:
    """
    Return whether a sign-in with a known request id must get no session (Q1).

    A caller who knows the password and the request id would otherwise learn for nothing
    whether a code is right. The call that opened the session may come twice: its node
    proposes it again if an answer got lost, and then it names the same session.
    """
    if isinstance(remembered, Rejected):
        return remembered.reason is Reason.REQUEST_ID_REUSED
    row = applying.db.execute(
        "SELECT 1 FROM sessions WHERE session_id = ?", (command.session_id,)
    ).fetchone()
    return row is None


def _second_factor(
    applying: Applying,
    administrator: Administrator,
    command: OpenSession | Reauthenticate,
    client: str,
) -> tuple[Administrator, ShownFactor] | Rejected:
    """
    Use the passkey or spend the code that came with a right password, once (K1, P8).

    A wrong one counts like a wrong password (L7). Only a caller with the right password
    learns that it is missing; that does not end a wait.
    """
    needed = _needed(applying, administrator)
    if command.passkey is None and (
        not command.second_factor or needed is ShownFactor.PASSKEY
    ):
        if needed is ShownFactor.PASSKEY:
            applying.reason = Reason.PASSKEY_NEEDED
            return Rejected(
                Reason.PASSKEY_NEEDED,
                "a passkey is also needed, which works in a browser only: sign in to the "
                "Security Console, or approve this sign-in there",
                "passkey",
            )
        applying.reason = Reason.SECOND_FACTOR_NEEDED
        return Rejected(
            Reason.SECOND_FACTOR_NEEDED,
            "a code of the second factor is also needed",
            "second_factor",
        )
    if command.passkey is not None:
        if use_passkey(applying, administrator, command.passkey):
            return administrator, ShownFactor.PASSKEY
    else:
        spent = administrator.with_code_spent(command.moments)
        if spent is not None:
            return spent, ShownFactor.CODE
    sign_in_waits.charge(applying, administrator, client)
    if command.passkey is not None:
        applying.reason = Reason.PASSKEY_WRONG
        return Rejected(
            Reason.PASSKEY_WRONG, "the passkey was not accepted: try again", "passkey"
        )
    applying.reason = Reason.SECOND_FACTOR_WRONG
    return Rejected(
        Reason.SECOND_FACTOR_WRONG,
        "the code of the second factor is wrong or was already used: wait for the next "
        "one",
        "second_factor",
    )


def _needed(applying: Applying, administrator: Administrator) -> ShownFactor:
    """Return the factor that an administrator with a second factor must show."""
    if administrator.second_factor is None:
        return ShownFactor.PASSKEY
    only_passkeys = applying.policy.administrators_second_factor == FactorRule.PASSKEY
    if administrator.passkeys and only_passkeys:
        return ShownFactor.PASSKEY
    return ShownFactor.CODE


def reauthenticate(applying: Applying, command: Reauthenticate) -> Rejected | None:
    """
    Apply `Reauthenticate` (P7).

    The session has a count of its own, so strangers who know the name do not get in the
    way, and a stolen session has as few guesses as a known device (L7).
    """
    administrator = applying.acting_administrator
    if (
        command.administrator,
        command.administrator_version,
        command.key_id,
    ) != (administrator.name, administrator.version, administrator.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    client = applying.call.session_id
    if sign_in_waits.blocks(applying, administrator, client):
        return _must_wait(applying)
    if not hmac.compare_digest(administrator.password_verifier, command.candidate):
        sign_in_waits.charge(applying, administrator, client)
        return Rejected(Reason.WRONG_PASSWORD, "the password is wrong", "password")
    factor = ShownFactor.NONE
    if administrator.has_second_factor:
        after = _second_factor(applying, administrator, command, client)
        if isinstance(after, Rejected):
            return after
        administrator, factor = after
    administrator_tables.save_administrator(
        applying.db, sign_in_waits.succeeded(applying, administrator, client)
    )
    applying.db.execute(
        "UPDATE sessions SET proved_at_ms = ? WHERE session_id = ?",
        (applying.now_ms, client),
    )
    if factor is ShownFactor.PASSKEY:
        applying.db.execute(
            "UPDATE sessions SET factor = ? WHERE session_id = ?", (factor, client)
        )
    return None


def repeated_confirmation(
    applying: Applying, remembered: Result, *, is_other: bool
) -> Result:
    """
    Return the answer to a confirmation with a known request id (Q1, L7).

    *is_other*: its content is not that of the first one. Then it counts like a wrong
    password, and the wait holds for every content: else the holder of a session and of
    the request id could try passwords for nothing.
    """
    administrator, client = applying.acting_administrator, applying.call.session_id
    if sign_in_waits.blocks(applying, administrator, client):
        return _must_wait(applying)
    if is_other:
        sign_in_waits.charge(applying, administrator, client)
    return remembered


def _must_wait(applying: Applying) -> Rejected:
    return Rejected(
        Reason.LOCKED,
        f"too many wrong passwords: wait a {sign_in_waits.time_to_wait(applying)} "
        "and try again",
        "password",
    )


def touch_sessions(applying: Applying, command: TouchSessions) -> None:
    """Apply `TouchSessions`."""
    applying.db.executemany(
        "UPDATE sessions SET used_at_ms = :now "
        "WHERE session_id = :session_id AND used_at_ms <= :before",
        [
            {
                "now": applying.now_ms,
                "session_id": session_id,
                "before": applying.now_ms - TOUCH_MS,
            }
            for session_id in command.session_ids
        ],
    )


def close_session(applying: Applying, command: CloseSession) -> None:
    """Apply `CloseSession`. `check_session` has checked that the session is open."""
    if command.everywhere and applying.administrator is not None:
        applying.detail = "everywhere"
        applying.db.execute(
            "DELETE FROM sessions WHERE administrator = ?",
            (applying.administrator.name,),
        )
    else:
        applying.db.execute(
            "DELETE FROM sessions WHERE session_id = ?", (applying.call.session_id,)
        )


def end_session(applying: Applying, command: EndSession) -> Rejected | None:
    """Apply `EndSession`. Only those who change administrators end another's (P1)."""
    caller = applying.acting_administrator
    row = applying.db.execute(
        "SELECT administrator FROM sessions WHERE session_id = ?", (command.session_id,)
    ).fetchone()
    if row is None or not (
        row[0] == caller.name or may(caller.role, Permission.CHANGE_ADMINISTRATORS)
    ):
        return Rejected(
            Reason.SESSION_UNKNOWN,
            "there is no such session: it has ended, or it is another administrator's",
            "session_id",
        )
    applying.detail = "own" if row[0] == caller.name else f"of {row[0]}"
    applying.db.execute(
        "DELETE FROM sessions WHERE session_id = ?", (command.session_id,)
    )
    return None


def forget_unused(
    db: sqlite3.Connection, now_ms: int, policy: Policy, level: int
) -> None:
    """End the sessions that were not used for as long as their role may leave them (P2)."""
    idle_ms = {role: session_limits(policy, role, level).idle_ms for role in Role}
    candidates = db.execute(
        "SELECT session_id, used_at_ms, role FROM sessions "
        "JOIN administrators ON name = administrator WHERE used_at_ms <= ?",
        (now_ms - min(idle_ms.values()),),
    ).fetchall()
    for session_id, used_at_ms, role in candidates:
        if used_at_ms <= now_ms - idle_ms[role]:
            db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
