# SPDX-License-Identifier: Apache-2.0
"""Commands on the cluster's beginning and administrators' sessions."""

import hmac

from sparecode_node.domain.administrators import Administrator, Role
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine import feature_level, tables
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import InitializeCluster, OpenSession
from sparecode_node.statemachine.handlers.policy import add_policy
from sparecode_node.statemachine.results import Applied, Result, SessionOpened
from sparecode_node.statemachine.tables import keys as key_tables


def initialize_cluster(applying: Applying, command: InitializeCluster) -> Result:
    """Apply `InitializeCluster`; the machine has checked that nothing is there yet."""
    db = applying.db
    applying.detail = f"first administrator {command.administrator}"
    db.executemany(
        "INSERT INTO meta (name, value) VALUES (?, ?)",
        [("cluster_id", command.cluster_id), ("key_id", command.key_id)],
    )
    feature_level.raise_to(db, command.feature_level or feature_level.FIRST)
    key_tables.add_first(db, command.key_id)
    add_policy(db, Policy())
    tables.save_administrator(
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


def open_session(applying: Applying, command: OpenSession) -> Result:
    """
    Apply `OpenSession`.

    Every refusal reads the same: whether the name, the password or the wait was
    the reason is for the audit log (L7).
    """
    db = applying.db
    administrator = tables.find_administrator(db, command.administrator)
    known = (
        (administrator.version, administrator.key_id)
        if administrator
        else (0, applying.keys.active)
    )
    if (command.administrator_version, command.key_id) != known:
        return Rejected(Reason.STALE_PARAMETERS)
    refused = Rejected(
        Reason.SIGN_IN_REFUSED,
        "name or password is wrong, or too many wrong passwords came before: "
        "wait a minute and try again",
    )
    if administrator is None:
        applying.reason = "unknown_name"
        return refused
    if not administrator.enabled:
        applying.reason = "administrator_disabled"
        return refused
    if administrator.blocks(applying.now_ms):
        applying.reason = Reason.LOCKED
        return refused
    if not hmac.compare_digest(administrator.password_verifier, command.candidate):
        tables.save_administrator(db, administrator.failed(applying.now_ms))
        applying.reason, applying.keep_writes = "wrong_password", True
        return refused
    if administrator.second_factor is not None:
        after = _second_factor(applying, administrator, command)
        if isinstance(after, Rejected):
            return after
        administrator = after
    tables.save_administrator(db, administrator.succeeded())
    ends_at_ms = applying.now_ms + applying.policy.session_lifetime_ms
    # The bearer comes from name, password and request id. So who signs in with the
    # same again, after the request id is forgotten, has the same session anew.
    db.execute(
        "INSERT INTO sessions "
        "(session_id, administrator, opened_at_ms, ends_at_ms, used_at_ms) "
        "VALUES (:id, :name, :now, :end, :now) ON CONFLICT (session_id) DO UPDATE SET "
        "administrator = :name, opened_at_ms = :now, ends_at_ms = :end, "
        "used_at_ms = :now",
        {
            "id": command.session_id,
            "name": administrator.name,
            "now": applying.now_ms,
            "end": ends_at_ms,
        },
    )
    return SessionOpened(
        index=applying.index,
        administrator=administrator.name,
        role=administrator.role,
        ends_at_ms=ends_at_ms,
    )


def _second_factor(
    applying: Applying, administrator: Administrator, command: OpenSession
) -> Administrator | Rejected:
    """
    Spend a code besides the right password, once cluster-wide (K1).

    A wrong one makes wait like a wrong password (L7). That one is missing is told to
    who knows the password alone, and ends no wait.
    """
    if not command.second_factor:
        applying.reason = Reason.SECOND_FACTOR_NEEDED
        return Rejected(
            Reason.SECOND_FACTOR_NEEDED,
            "a code of the second factor is needed as well",
            "second_factor",
        )
    spent = administrator.with_code_spent(command.moments)
    if spent is not None:
        return spent
    tables.save_administrator(applying.db, administrator.failed(applying.now_ms))
    applying.reason, applying.keep_writes = Reason.SECOND_FACTOR_WRONG, True
    return Rejected(
        Reason.SECOND_FACTOR_WRONG,
        "the code of the second factor is wrong, or was used before: wait for the next "
        "one",
        "second_factor",
    )
