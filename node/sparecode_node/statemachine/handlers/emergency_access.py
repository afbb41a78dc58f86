# SPDX-License-Identifier: Apache-2.0
"""Handlers of emergency access: load, decide, save (I, R)."""

from collections.abc import Sequence

from sparecode_node.domain.authentication import Event
from sparecode_node.domain.emergency_access import (
    EmergencyCode,
    EmergencyCodeSet,
    RecoveryPolicy,
    all_void,
)
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.issuing import Wish, issue, issue_fixed
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.sealed_codes import way
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    ReinstateToken,
    RequestBulkIssue,
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.feature_level import FORMER_CODES
from sparecode_node.statemachine.handlers import keys, sealed_codes, set_ends
from sparecode_node.statemachine.handlers.token_changes import (
    raise_version,
    unknown_token,
)
from sparecode_node.statemachine.results import (
    Applied,
    EmergencyAccessSaved,
    Result,
)
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

ENDED_SETS_KEPT = 8
"""
Ended sets to keep, so that it can be shown when and where their codes were used.

From feature level 2 on, the codes of older sets become tags, by which they are
recognized (A5); below, they are forgotten. The log has all sets.
"""


def save_emergency_access(applying: Applying, command: SaveEmergencyAccess) -> Result:
    """Apply `SaveEmergencyAccess`."""
    return _save(applying, command, fixed=False)


def issue_fixed_tokencode(applying: Applying, command: IssueFixedTokencode) -> Result:
    """Apply `IssueFixedTokencode`: a set of one code that is not spent (I11)."""
    as_set = SaveEmergencyAccess(
        serial=command.serial,
        user_id=command.user_id,
        auth_version=command.auth_version,
        policy_version=command.policy_version,
        key_id=command.key_id,
        set_id=command.set_id,
        code_length=command.code_length,
        # Without a user no code was drawn; `issue` returns the refusal.
        codes=(SealedCode(ordinal=1, verifier=command.verifier),)
        if command.verifier
        else (),
        ends_at_ms=command.ends_at_ms,
        lifetime_ms=command.lifetime_ms,
        recovery=command.recovery,
        keep_unused_codes=False,
        weaken_recovery_policy=command.weaken_recovery_policy,
        draft_id="",
        draft_ends_at_ms=0,
    )
    return _save(applying, as_set, fixed=True)


def request_bulk_issue(applying: Applying, command: RequestBulkIssue) -> Result:
    """Apply `RequestBulkIssue`: it announces the issuing in the audit log."""
    applying.detail = plural(len(command.serials), "token")
    return Applied(index=applying.index)


def issue_in_bulk(applying: Applying, command: IssueTokencodesInBulk) -> Result:
    """Apply `IssueTokencodesInBulk`: an ordinary set; the token's older codes are void."""
    as_set = SaveEmergencyAccess(
        serial=command.serial,
        user_id=command.user_id,
        auth_version=command.auth_version,
        policy_version=command.policy_version,
        key_id=command.key_id,
        set_id=command.set_id,
        code_length=command.code_length,
        codes=tuple(
            SealedCode(ordinal=ordinal, verifier=verifier)
            for ordinal, verifier in enumerate(command.verifiers, start=1)
        ),
        ends_at_ms=command.ends_at_ms,
        lifetime_ms=command.lifetime_ms,
        recovery=command.recovery,
        keep_unused_codes=False,
        weaken_recovery_policy=command.weaken_recovery_policy,
        draft_id="",
        draft_ends_at_ms=0,
    )
    return _save(applying, as_set, fixed=False)


def _save(applying: Applying, command: SaveEmergencyAccess, *, fixed: bool) -> Result:
    db = applying.db
    token = token_tables.find_token(db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    user = None if token.user_id is None else user_tables.find_user(db, token.user_id)
    refused = _draft_problem(applying, command) or _version_problem(
        applying, command, 0 if user is None else user.auth_version, token
    )
    if refused is None:
        refused = _format_problem(applying, command) or sealed_codes.message_problem(
            applying, command, token, user
        )
    if refused is not None:
        return refused
    sets = code_tables.find_sets(db, command.serial)
    wish = Wish(
        ends_at_ms=command.ends_at_ms,
        lifetime_ms=command.lifetime_ms,
        recovery=command.recovery,
        keep_unused_codes=command.keep_unused_codes,
        weaken_recovery_policy=command.weaken_recovery_policy,
    )
    policy, now_ms = applying.policy, applying.now_ms
    decide = issue_fixed if fixed else issue
    issued = decide(token, user, sets, len(command.codes), wish, policy, now_ms)
    if isinstance(issued, Rejected):
        return issued
    new = EmergencyCodeSet(
        set_id=command.set_id,
        serial=command.serial,
        key_id=command.key_id,
        code_length=command.code_length,
        issuer=applying.acting_administrator.name,
        node_id=applying.call.node_id,
        issued_at_ms=applying.now_ms,
        issued_index=applying.index,
        ends_at_ms=issued.ends_at_ms,
        fixed=fixed,
        codes=tuple(
            EmergencyCode(ordinal=code.ordinal, verifier=code.verifier)
            for code in command.codes
        ),
    )
    for before, after in zip(sets, issued.older, strict=True):
        code_tables.update_set(db, before, after)
    code_tables.add_set(db, new)
    set_ends.follow(applying, new, issued.token)
    sealed_codes.keep(applying, command)
    token_tables.save_token(db, issued.token)
    _forget_old_sets(applying, token, issued.older)
    raise_version(applying, token)
    if command.draft_id:
        db.execute(
            "INSERT INTO consumed_drafts (draft_id, ends_at_ms) VALUES (?, ?)",
            (command.draft_id, command.draft_ends_at_ms),
        )
    if issued.voided:
        _note_voided(applying, command.serial, issued.voided, "new codes issued")
    what = "fixed tokencode" if fixed else plural(len(command.codes), "code")
    applying.detail = f"set {command.set_id}: {what}, {command.recovery}"
    if command.opener:
        applying.detail += f", {way(to_manager=command.to_manager)}"
    return EmergencyAccessSaved(
        index=applying.index,
        at_ms=applying.now_ms,
        set_id=command.set_id,
        codes=len(command.codes),
        live_codes=issued.live,
        voided_codes=issued.voided,
        ends_at_ms=new.effective_end_ms(token.expires_at_ms),
        pin_missing_warning=command.recovery is RecoveryPolicy.DENY
        and token.pin_rule is PinRule.NONE,
        recipient=command.recipient if command.opener else "",
        to_manager=command.to_manager,
    )


def _draft_problem(applying: Applying, command: SaveEmergencyAccess) -> Rejected | None:
    """Refuse a draft that has ended or was saved before (I3)."""
    if not command.draft_id:
        return None
    consumed = applying.db.execute(
        "SELECT 1 FROM consumed_drafts WHERE draft_id = ?", (command.draft_id,)
    ).fetchone()
    if consumed is not None:
        return Rejected(
            Reason.DRAFT_STALE,
            "these codes were already saved; generate new ones",
            "draft",
        )
    if applying.now_ms >= command.draft_ends_at_ms:
        return Rejected(
            Reason.DRAFT_STALE,
            "these codes were generated too long ago; generate new ones",
            "draft",
        )
    return None


def _version_problem(
    applying: Applying, command: SaveEmergencyAccess, auth_version: int, token: Token
) -> Rejected | None:
    """Refuse verifiers that were made for another state (T2, I3)."""
    if (
        command.user_id == (token.user_id or "")
        and command.auth_version == auth_version
        and command.policy_version == applying.policy.version
        and keys.takes(applying, command.key_id)
    ):
        return None
    if not command.draft_id:
        return Rejected(Reason.STALE_PARAMETERS)
    return Rejected(
        Reason.DRAFT_STALE,
        "the token or its user has changed since these codes were generated; "
        "generate new ones",
        "draft",
    )


def _format_problem(
    applying: Applying, command: SaveEmergencyAccess
) -> Rejected | None:
    """Refuse malformed codes. Nodes never send them; checking here is cheap."""
    ordinals = [code.ordinal for code in command.codes]
    verifiers = {code.verifier for code in command.codes}
    if (
        command.code_length != applying.policy.code_length
        or ordinals != list(range(1, len(ordinals) + 1))
        or len(verifiers) != len(ordinals)
        or b"" in verifiers
        or code_tables.has_set(applying.db, command.set_id)
    ):
        return Rejected(
            Reason.CODE_FORMAT,
            "the codes must be a new set of distinct codes of "
            f"{applying.policy.code_length} symbols",
        )
    return None


def _forget_old_sets(
    applying: Applying, token: Token, older: Sequence[EmergencyCodeSet]
) -> None:
    """Delete the oldest ended sets beyond `ENDED_SETS_KEPT`, or let them become tags."""
    ended = [
        each for each in older if not each.live(applying.now_ms, token.expires_at_ms)
    ]
    for each in ended[ENDED_SETS_KEPT:]:
        if applying.feature_level >= FORMER_CODES:
            former_tables.retire_set(applying.db, each.set_id)
        else:
            code_tables.delete_set(applying.db, each.set_id)


def _note_voided(
    applying: Applying, serial: TokenSerial, voided: int, cause: str
) -> None:
    applying.events.append(
        Event(
            action="CODES_VOIDED",
            serial=serial,
            cause=f"{cause}: {plural(voided, 'code')}",
        )
    )


def void_live(applying: Applying, token: Token, cause: str) -> int:
    """Void every set of a token; return the number of codes voided."""
    sets = code_tables.find_sets(applying.db, token.serial)
    voided, live = all_void(sets, applying.now_ms)
    for before, after in zip(sets, voided, strict=True):
        code_tables.update_set(applying.db, before, after)
    if live:
        _note_voided(applying, token.serial, live, cause)
    return live


def disable_emergency_access(
    applying: Applying, command: DisableEmergencyAccess
) -> Result:
    """Apply `DisableEmergencyAccess`. The lost mark stays unless requested (R2)."""
    token = token_tables.find_token(applying.db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    voided = void_live(applying, token, "emergency access disabled")
    if not voided and not (command.reinstate_token and token.lost):
        return Rejected(
            Reason.NO_EMERGENCY_ACCESS,
            f"token {command.serial} has no live codes",
            "serial",
        )
    if command.reinstate_token:
        token_tables.save_token(applying.db, token.reinstated())
        applying.detail = "token reinstated"
    raise_version(applying, token)
    return Applied(index=applying.index)


def reinstate_token(applying: Applying, command: ReinstateToken) -> Result:
    """Apply `ReinstateToken`: accept the token again and void its codes (R)."""
    token = token_tables.find_token(applying.db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    if not token.lost:
        return Rejected(
            Reason.TOKEN_NOT_LOST,
            f"token {command.serial} is not marked as lost",
            "serial",
        )
    void_live(applying, token, "token reinstated")
    token_tables.save_token(applying.db, token.reinstated())
    raise_version(applying, token)
    return Applied(index=applying.index)
