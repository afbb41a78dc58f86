# SPDX-License-Identifier: Apache-2.0
"""Handlers of sign-ins that are approved in a browser (P9)."""

from dataclasses import replace

from sparecode_node.domain.browser_logins import (
    BROWSER_LOGIN_MS,
    OF_SOURCE_MAX,
    STRANGERS_MAX,
    BrowserLogin,
    LoginState,
)
from sparecode_node.domain.caller_addresses import source_of
from sparecode_node.domain.ids import PUBLIC_SESSION_DIGITS
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.browser_logins import (
    ApproveBrowserLogin,
    CollectBrowserLogin,
    RefuseBrowserLogin,
    StartBrowserLogin,
)
from sparecode_node.statemachine.feature_level import BROWSER_LOGINS
from sparecode_node.statemachine.handlers import resets, sessions
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import browser_logins as tables

UNKNOWN = Rejected(
    Reason.BROWSER_LOGIN_UNKNOWN,
    "no sign-in with this code waits for your approval: it has ended, was already "
    "decided, or the code is wrong",
    "user_code",
)

ENDED = Rejected(
    Reason.BROWSER_LOGIN_UNKNOWN,
    "this sign-in has ended, or was already collected: start again",
)

REFUSED = Rejected(
    Reason.BROWSER_LOGIN_REFUSED, "the sign-in was refused in the Security Console"
)

FULL = Rejected(
    Reason.BROWSER_LOGINS_FULL,
    "too many sign-ins wait for an approval: try again in a few minutes",
)


def start_browser_login(
    applying: Applying, command: StartBrowserLogin
) -> Rejected | None:
    """
    Apply `StartBrowserLogin`.

    Strangers share a table of fixed size, of which each source has a part. Known devices
    are counted apart, for each administrator: strangers cannot keep them out (L7).
    """
    db = applying.db
    if applying.feature_level < BROWSER_LOGINS:
        return Rejected(Reason.NOT_INITIALIZED, "this cluster is not initialized yet")
    if tables.find(db, command.login_id, applying.now_ms) is not None:
        return None  # The node proposes it again if an answer got lost.
    if tables.is_known_code(db, command.code_tag):
        return Rejected(Reason.STALE_PARAMETERS)  # The node draws another code.
    if command.device:
        tables.make_room(db, command.administrator)
    elif (
        tables.strangers_of(db, source_of(command.address)) >= OF_SOURCE_MAX
        or tables.strangers(db) >= STRANGERS_MAX
    ):
        return FULL
    tables.save(
        db,
        BrowserLogin(
            login_id=command.login_id,
            code_tag=command.code_tag,
            administrator=command.administrator,
            device=command.device,
            address=command.address,
            client_name=command.client_name,
            asked_at_ms=applying.now_ms,
            ends_at_ms=applying.now_ms + BROWSER_LOGIN_MS,
        ),
    )
    return None


def approve_browser_login(
    applying: Applying, command: ApproveBrowserLogin
) -> Rejected | None:
    """Apply `ApproveBrowserLogin`."""
    login = _own(applying, command.login_id)
    if login is None or login.state is not LoginState.WAITING:
        return UNKNOWN
    approver = applying.call.session_id
    tables.save(
        applying.db, replace(login, state=LoginState.APPROVED, approver=approver)
    )
    applying.detail = _origin(login)
    return None


def refuse_browser_login(
    applying: Applying, command: RefuseBrowserLogin
) -> Rejected | None:
    """Apply `RefuseBrowserLogin`. An approval that was not collected is taken back."""
    login = _own(applying, command.login_id)
    if login is None or login.state is LoginState.REFUSED:
        return UNKNOWN
    tables.save(applying.db, replace(login, state=LoginState.REFUSED))
    applying.detail = _origin(login)
    return None


def collect_browser_login(applying: Applying, command: CollectBrowserLogin) -> Result:
    """
    Apply `CollectBrowserLogin`.

    The approving session must still be open: whatever ends it, such as disabling its
    administrator or a new password, also takes the approval back. The new session has
    shown what the approving session has shown, and no later.
    """
    db = applying.db
    login = tables.find(db, command.login_id, applying.now_ms)
    if login is None or login.administrator != command.administrator:
        return ENDED
    if login.state is LoginState.REFUSED:
        return REFUSED
    administrator = administrator_tables.find_administrator(db, login.administrator)
    approving = db.execute(
        "SELECT proved_at_ms, factor FROM sessions "
        "WHERE session_id = ? AND administrator = ? AND ends_at_ms > ?",
        (login.approver, login.administrator, applying.now_ms),
    ).fetchone()
    if administrator is None or not administrator.enabled or approving is None:
        return ENDED
    tables.delete(db, command.login_id)
    resets.cancel_at_sign_in(applying, administrator)
    applying.detail = f"{_origin(login)}, approved by session {login.approver[:PUBLIC_SESSION_DIGITS]}"
    return sessions.insert(
        applying,
        command.session_id,
        administrator,
        proved_at_ms=approving[0],
        factor=ShownFactor(approving[1]),
        address=command.address,
        door="browser",
    )


def _own(applying: Applying, login_id: str) -> BrowserLogin | None:
    """Return a request of the calling administrator."""
    login = tables.find(applying.db, login_id, applying.now_ms)
    if login is None or login.administrator != applying.acting_administrator.name:
        return None
    return login


def _origin(login: BrowserLogin) -> str:
    named = f", computer {login.client_name}" if login.client_name else ""
    return f"from {login.address or 'an unknown address'}{named}"
