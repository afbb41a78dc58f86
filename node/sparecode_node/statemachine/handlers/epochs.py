# SPDX-License-Identifier: Apache-2.0
"""
Handlers of epochs: a new epoch invalidates everything issued before it (E1, E2).

A backup does not know what was spent after it, and a survivor may have missed the last
entries. So nothing that could be used a second time remains valid.
"""

import sqlite3

from sparecode_node.domain.administrators import SECOND_FACTOR
from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.policy import TIME_MS_MAX
from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.domain.tokens import DRIFT_GROWTH_MAX
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.handlers import moves
from sparecode_node.statemachine.handlers.emergency_access import void_live
from sparecode_node.statemachine.tables import agent_keys, archives, meta, radius
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables.review import REVIEWED, mark_of

FIRST_EPOCH = 1
"""The epoch of a cluster that was never restored; no row holds it."""

_DRIFT_MAX = 1_000_000
"""Time steps. No real drift is larger; the bound keeps sums from overflowing."""

_HANDED_OUT = (
    "sessions",
    "requests",
    "consumed_drafts",
    "consumed_challenges",
    "browser_logins",
    "sealed_codes",
    "join_tickets",
    "nodes",
    "member_keys",
    "segment_holders",
    "administrator_resets",
    "set_ends",
)
"""
Tables that are emptied.

Drafts and challenges are sealed for the cluster's id. It changes, so earlier ones no
longer open. The listed nodes belong to the old cluster; nodes of the new one join again.
"""

NOT_OPEN = Rejected(
    Reason.NOT_OPEN,
    "this cluster was restored or recovered, and does not serve agents yet: review and "
    "open it with `sparecode cluster open`",
)


def is_open(db: sqlite3.Connection) -> bool:
    """Return whether the cluster serves agents."""
    return not meta.read(db, "not_open", 0)


def begin_epoch(applying: Applying, command: BeginEpoch) -> Rejected | None:
    """Apply `BeginEpoch`."""
    db = applying.db
    if command.cluster_id == meta.read(db, "cluster_id", ""):
        return Rejected(
            Reason.ALREADY_INITIALIZED, "a new epoch needs a new cluster id"
        )
    epoch = meta.read(db, "epoch", FIRST_EPOCH) + 1
    codes = _void_codes(applying)
    for approval in approval_tables.ended(db, TIME_MS_MAX):
        approval_tables.delete(db, approval.approval_id)
    # Makes all earlier candidates, drafts and challenges stale (T2).
    db.execute("UPDATE users SET auth_version = auth_version + 1")
    for table in _HANDED_OUT:
        db.execute(f"DELETE FROM {table}")
    archives.forget_nodes(db)
    if applying.policy.audit_retention_ms is not None:
        # A clock of the time of the restore must not remove events at once (U4).
        meta.write(db, archives.SHORTENED, applying.now_ms)
    radius.delete_replaced_secrets(db)
    agent_keys.delete_replaced_keys(db)
    end_tokencodes(applying)
    _lose_counters(applying)
    if applying.feature_level >= feature_level.MOVES:
        moves.lose_arriving(applying)
        meta.keep_cluster_id(db)
    for name, value in (
        ("cluster_id", command.cluster_id),
        ("epoch", epoch),
        ("epoch_cause", command.cause),
        ("epoch_at_ms", applying.now_ms),
        ("epoch_state_index", command.state_index),
        ("epoch_state_at_ms", command.state_at_ms),
        ("not_open", 1),
    ):
        meta.write(db, name, value)
    applying.detail = (
        f"epoch {epoch} after {command.cause}, from the state at entry "
        f"{command.state_index}: codes of {plural(codes, 'token')} voided"
    )
    return None


def _void_codes(applying: Applying) -> int:
    """Void all live codes; return the number of tokens. Lost marks stay (R2)."""
    serials = applying.db.execute(
        "SELECT DISTINCT serial FROM code_sets JOIN codes USING (set_id) "
        "WHERE state = 'live' ORDER BY serial"
    ).fetchall()
    voided = 0
    for (serial,) in serials:
        token = token_tables.find_token(applying.db, TokenSerial(serial))
        if token is not None:
            voided += void_live(applying, token, "new epoch") > 0
    return voided


def end_tokencodes(applying: Applying) -> None:
    """
    Spend every time step that a node may have accepted by now (E1, K1).

    That is every step up to the end of the window around now, by the token's clock. A
    minute later the token shows new tokencodes. They count in pairs alone, as long as
    they may be old ones by a drift that the lost state has learned (`maybe_spent`).

    Administrators' second factors have no drift.
    """
    _end_steps(applying, "")
    applying.db.execute(
        "UPDATE administrators SET factor_spent = max(factor_spent, :now / :step + 1) "
        "WHERE length(sealed_factor) > 0",
        {"now": applying.now_ms, "step": 1000 * SECOND_FACTOR.period_s},
    )


def end_tokencodes_of(applying: Applying, user_id: UserId) -> None:
    """
    Spend every tokencode of a user that another cluster may have accepted by now.

    HOTP tokens must be resynchronized: the other counter is not known here.
    """
    _end_steps(applying, " AND user_id = :user", user=user_id)
    applying.db.execute(
        "UPDATE tokens SET out_of_step = 1 WHERE algorithm = ? AND user_id = ?",
        (Algorithm.HOTP, user_id),
    )


_LAST_STEP = ":now / (1000 * period_s) + max(-:drift, min(drift, :drift)) + :window"


def _end_steps(applying: Applying, condition: str, **values: object) -> None:
    """Spend the steps of the time-based tokens that fulfill a condition."""
    columns = f"spent = max(spent, {_LAST_STEP})"
    if applying.feature_level >= feature_level.MAYBE_SPENT:
        columns += f", maybe_spent = max(maybe_spent, {_LAST_STEP} + :growth)"
    applying.db.execute(
        f"UPDATE tokens SET {columns} WHERE algorithm != :hotp{condition}",
        {
            "now": applying.now_ms,
            "drift": _DRIFT_MAX,
            "window": applying.policy.totp_window_steps,
            "growth": DRIFT_GROWTH_MAX,
            "hotp": Algorithm.HOTP,
            **values,
        },
    )


def _lose_counters(applying: Applying) -> None:
    """Let no HOTP token sign in before it is resynchronized: its counter is not known."""
    applying.db.execute(
        "UPDATE tokens SET out_of_step = 1 WHERE algorithm = ?", (Algorithm.HOTP,)
    )


def open_cluster(applying: Applying, command: OpenCluster) -> Rejected | None:
    """Apply `OpenCluster`."""
    db = applying.db
    if is_open(db):
        return Rejected(Reason.ALREADY_OPEN, "the cluster already serves agents")
    if command.review != mark_of(db.execute(query) for query in REVIEWED):
        return Rejected(
            Reason.REVIEW_STALE,
            "the state has changed since the review: review it again",
            "review",
        )
    # Nodes of the old cluster may have served agents until now.
    end_tokencodes(applying)
    if applying.feature_level >= feature_level.MAYBE_SPENT:
        _lose_counters(applying)
    db.execute("DELETE FROM meta WHERE name = 'not_open'")
    applying.detail = (
        f"epoch {meta.read(db, 'epoch', FIRST_EPOCH)}, review {command.review}"
    )
    return None
