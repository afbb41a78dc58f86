# SPDX-License-Identifier: Apache-2.0
"""
Holding commands that need a second approver, and approving them (P3, I10).

A command is decided first: a forbidden command need not wait. If it needs an approval,
its writes are then undone and it is stored. The commit that approves it decides it
again.
"""

from collections.abc import Callable
from dataclasses import replace

from sparecode_node.domain.administrators import Administrator, Permission, Role, may
from sparecode_node.domain.approvals import (
    APPROVAL_MS,
    PENDING_MAX,
    Approval,
    ApprovalKind,
    Hold,
)
from sparecode_node.domain.authentication import Event
from sparecode_node.domain.ids import AdministratorName, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.statemachine.admission import permission_of
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.approvals import Approve, Reject
from sparecode_node.statemachine.commands.emergency_access import (
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    RequestBulkIssue,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.commands.membership import (
    CreateJoinTicket,
    FinishAuthorities,
    KeepAuthorities,
    ReplaceAuthorities,
)
from sparecode_node.statemachine.commands.pending import Change, from_json, to_json
from sparecode_node.statemachine.commands.policy import CountedCodes, UpdatePolicy
from sparecode_node.statemachine.commands.second_factors import RemoveSecondFactor
from sparecode_node.statemachine.commands.users import UnlockUser
from sparecode_node.statemachine.feature_level import (
    ALLOWANCES,
    EXACT_APPROVALS,
    KNOWN_SECRETS,
    MEMBERS_ARE_POWER,
    STANDING_APPROVERS,
)
from sparecode_node.statemachine.handlers import (
    allowances,
    known_secrets,
    sealed_codes,
)
from sparecode_node.statemachine.handlers.allowances import ISSUES
from sparecode_node.statemachine.handlers.sensitive_changes import (
    MoveStep,
    basis_of_step,
    is_sensitive,
)
from sparecode_node.statemachine.results import Applied, ApprovalPending, Result
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import authorities as authority_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.targets import target_of


def hold(applying: Applying) -> Hold | None:
    """Return how the command must wait for a second approver; None: it need not."""
    administrator = applying.administrator
    if (
        administrator is None
        or not applying.policy.second_approver
        or not _other_approver(applying, administrator.name)
    ):
        return None
    needed = _hold_needed(applying, administrator)
    if needed is None or needed.kind is ApprovalKind.CHANGE:
        return needed
    if applying.feature_level >= ALLOWANCES:
        needed = replace(needed, owners=_owners(applying, needed.serials))
    command = applying.call.command
    if isinstance(command, SaveEmergencyAccess) and command.opener:
        needed = sealed_codes.with_way(applying, command, needed)
    for each in approval_tables.of_author(applying.db, administrator.name):
        if (
            each.approver is not None
            and each.kind in _permits(needed.kind)
            and needed.matches(each)
            and (each.kind is not ApprovalKind.TOKEN or each.basis == _basis(applying))
            and _stands(applying, each)
            and not _spent(applying, each)
        ):
            return replace(needed, permit=each)
    return needed


def _permits(kind: ApprovalKind) -> tuple[ApprovalKind, ...]:
    """Return the kinds of permits that allow what needs a permit of one kind."""
    if kind is ApprovalKind.ISSUE:
        return (kind, ApprovalKind.BULK_ISSUE)
    return (kind,)


def pass_or_keep(applying: Applying, held: Hold) -> Result | None:
    """Use the permit and return None; or store the command, whose writes are undone."""
    if held.permit is not None:
        if held.permit.kind is ApprovalKind.TOKEN:
            known_secrets.confirm(applying, held.permit.author)
        _use(applying, held.permit)
        applying.detail += (
            f"; approval {held.permit.approval_id} by {held.permit.approver}"
        )
        return None
    return _ask(applying, held)


def _owners(applying: Applying, serials: tuple[TokenSerial, ...]) -> tuple[str, ...]:
    """Return the users of tokens, in their order; empty: no user."""
    tokens = (token_tables.find_token(applying.db, serial) for serial in serials)
    return tuple((token.user_id or "") if token else "" for token in tokens)


def _stands(applying: Applying, permit: Approval) -> bool:
    """
    Return whether its approver could still approve (P3).

    The approver was perhaps disabled because of what they approved.
    """
    if applying.feature_level < STANDING_APPROVERS or permit.approver is None:
        return True
    approver = administrator_tables.find_administrator(applying.db, permit.approver)
    return approver is not None and approver.rules


def _spent(applying: Applying, permit: Approval) -> bool:
    """
    Return whether a permit no longer holds for the tokens of this command (P3a).

    The announcement of a bulk may repeat tokens that have used it, since their answers
    may be lost, but it needs one that has not.
    """
    command = applying.call.command
    if applying.feature_level < ALLOWANCES:
        return False
    if isinstance(command, RequestBulkIssue):
        return set(command.serials) <= set(permit.used)
    return isinstance(command, ISSUES) and command.serial in permit.used


def _use(applying: Applying, permit: Approval) -> None:
    """
    Use a permit. The announcement of a bulk uses nothing, and each of its tokens once.

    Below level 2 a permit for a bulk could be used again until its end.
    """
    command = applying.call.command
    if permit.kind is not ApprovalKind.BULK_ISSUE:
        approval_tables.delete(applying.db, permit.approval_id)
    elif isinstance(command, ISSUES) and applying.feature_level >= ALLOWANCES:
        permit = permit.with_use(command.serial)
        if permit.exhausted:
            approval_tables.delete(applying.db, permit.approval_id)
        else:
            approval_tables.save_permit(applying.db, permit)


def _other_approver(applying: Applying, name: AdministratorName) -> bool:
    """
    Return whether another administrator could approve.

    That takes an enabled super administrator with a password of their own choice. From
    feature level 2 on, one whose own password was replaced by a temporary one counts,
    too: a reset must not leave one administrator who needs no approval.
    """
    others = applying.db.execute(
        "SELECT 1 FROM administrators WHERE role = ? AND enabled AND name != ? "
        "AND (NOT temporary OR replaced)",
        (Role.SUPER_ADMIN, name),
    )
    return others.fetchone() is not None


def _hold_needed(applying: Applying, administrator: Administrator) -> Hold | None:
    """Return how the command must wait without a permit; None: it need not."""
    if is_sensitive(applying, administrator):
        return Hold(ApprovalKind.CHANGE, "")
    if applying.feature_level >= KNOWN_SECRETS:
        held = known_secrets.hold_needed(applying, administrator)
        if held is not None:
            return held
    command = applying.call.command
    match command:
        case CreateJoinTicket() if applying.feature_level >= MEMBERS_ARE_POWER:
            # The certificate belongs to one request; its author will make another.
            change = to_json(replace(command, certificate=b""))
            return Hold(ApprovalKind.TICKET, "", change=change)
        case RequestBulkIssue():
            return Hold(
                ApprovalKind.BULK_ISSUE,
                f"codes for {plural(len(command.serials), 'token')}",
                command.serials,
            )
        case IssueTokencodesInBulk():
            return Hold(ApprovalKind.BULK_ISSUE, "codes in bulk", (command.serial,))
        case SaveEmergencyAccess() | IssueFixedTokencode():
            known = (command.serial,)
            if approval_tables.knows_pin(applying.db, known, administrator.name):
                return Hold(
                    ApprovalKind.ISSUE,
                    "codes for a token whose PIN the same administrator set or cleared "
                    "within the last day",
                    known,
                )
            return allowances.hold_needed(applying) or sealed_codes.hold_needed(
                applying
            )
        case UnlockUser():
            return allowances.hold_needed(applying)
    return None


def _basis(applying: Applying) -> str:
    """
    Return what the request relies on and does not name, as it is now.

    That is the administrator it is about, the authorities that stay, or the state of a
    move.
    If it differs at the approval, the approver would approve something else (P3).
    """
    command = applying.call.command
    if isinstance(command, known_secrets.TOKEN_CHANGES + known_secrets.USER_CHANGES):
        return known_secrets.basis(applying)
    if isinstance(command, MoveStep):
        return basis_of_step(applying, command)
    if isinstance(command, KeepAuthorities | ReplaceAuthorities | FinishAuthorities):
        return authority_tables.due_because_of(applying.db, command.node_id)
    if applying.feature_level < EXACT_APPROVALS or not isinstance(
        command,
        UpdateAdministrator | RemoveAdministrator | RemoveSecondFactor | ChangePassword,
    ):
        return ""
    about = administrator_tables.find_administrator(applying.db, command.name)
    if about is None:
        return ""
    # Nothing here changes when the keys of the ring are rotated.
    return " ".join(
        (
            about.role,
            "enabled" if about.enabled else "disabled",
            "temporary" if about.temporary else "settled",
            _second_factors(about),
            f"user {about.user_id or ''}",
        )
    )


def _second_factors(administrator: Administrator) -> str:
    """Return the second factors in words: one more is another request to remove them."""
    code = "second factor" if administrator.second_factor else "password only"
    if not administrator.passkeys:
        return code
    return f"{code} and {plural(administrator.passkeys, 'passkey')}"


def _ask(applying: Applying, held: Hold) -> Result:
    administrator, command = applying.acting_administrator, applying.call.command
    waiting = [
        each
        for each in approval_tables.of_author(applying.db, administrator.name)
        if each.approver is None
    ]
    basis = _basis(applying)
    if held.kind is ApprovalKind.CHANGE:
        held = replace(held, change=to_json(_change(command)))
    for each in waiting:
        if (
            each.kind is held.kind
            and _recognized(applying, held)
            and held.matches(each)
            and each.basis == basis
            and not _spent(applying, each)
        ):
            return _pending(applying, each)
    if len(waiting) >= PENDING_MAX:
        return Rejected(
            Reason.APPROVALS_FULL,
            f"{administrator.name} already has {len(waiting)} requests waiting for "
            "approval: wait until some are decided",
        )
    approval = Approval(
        approval_id=0,
        kind=held.kind,
        author=administrator.name,
        action=type(command).__name__,
        target=applying.target,
        description=_description(applying, held),
        change=held.change,
        serials=held.serials,
        asked_at_ms=applying.now_ms,
        ends_at_ms=applying.now_ms + APPROVAL_MS,
        basis=basis,
        owners=held.owners or (),
        recipient=held.recipient,
    )
    number = approval_tables.add(applying.db, approval)
    return _pending(applying, replace(approval, approval_id=number))


def _recognized(applying: Applying, held: Hold) -> bool:
    """Return whether an equal request that waits is the same one, not another."""
    return (
        held.kind is not ApprovalKind.CHANGE
        or applying.feature_level >= EXACT_APPROVALS
    )


def _description(applying: Applying, held: Hold) -> str:
    """Return the request in words: what it does, and why it waits."""
    if held.kind in (ApprovalKind.ISSUE, ApprovalKind.BULK_ISSUE):
        return held.description
    return "; ".join(each for each in (applying.detail, held.description) if each)


def _change(command: object) -> Change:
    if not isinstance(command, Change):
        raise TypeError(f"{type(command).__name__} cannot wait")
    if isinstance(command, UpdatePolicy):
        return replace(command, counted=None)
    return command


def _pending(applying: Applying, approval: Approval) -> ApprovalPending:
    applying.detail = (
        f"approval {approval.approval_id}: {approval.description}".removesuffix(": ")
    )
    return ApprovalPending(
        index=applying.index,
        approval_id=approval.approval_id,
        ends_at_ms=approval.ends_at_ms,
    )


def approve(
    applying: Applying, command: Approve, decide: Callable[[Applying], Result]
) -> Result | None:
    """Apply `Approve`. *decide* decides the waiting change."""
    approval = _find(applying, command.approval_id)
    return (
        approval
        if isinstance(approval, Rejected)
        else _approve(applying, approval, command.counted, decide)
    )


def reject(applying: Applying, command: Reject) -> Rejected | None:
    """Apply `Reject`."""
    approval = _find(applying, command.approval_id)
    return approval if isinstance(approval, Rejected) else _reject(applying, approval)


def _find(applying: Applying, approval_id: int) -> Approval | Rejected:
    approval = approval_tables.find(applying.db, approval_id)
    if approval is None:
        return Rejected(
            Reason.APPROVAL_UNKNOWN,
            f"approval {approval_id} does not exist: it was decided, used, or has "
            "expired",
            "approval_id",
        )
    applying.detail = (
        f"{approval.action} {approval.target}, requested by {approval.author}"
    )
    return approval


def _approve(
    applying: Applying,
    approval: Approval,
    counted: CountedCodes | None,
    make: Callable[[Applying], Result],
) -> Result:
    approver = applying.acting_administrator
    permit = approval.approved(approver.name, applying.now_ms)
    if isinstance(permit, Rejected):
        return permit
    if approver.user_id is not None and approver.user_id in _users(applying, approval):
        return Rejected(
            Reason.SELF_SERVICE_FORBIDDEN,
            "this is about your own token: another administrator must do it",
        )
    if approval.kind is not ApprovalKind.CHANGE:
        if (
            applying.feature_level >= ALLOWANCES
            and _owners(applying, approval.serials) != approval.owners
        ):
            return Rejected(
                Reason.APPROVAL_STALE,
                "a token has changed its user since the request: request it again",
            )
        approval_tables.save_permit(applying.db, permit)
        return Applied(index=applying.index)
    change = _counted(from_json(approval.change), counted)
    author = administrator_tables.find_administrator(applying.db, approval.author)
    if author is None or not author.enabled or not _may_still(applying, author, change):
        return Rejected(
            Reason.APPROVAL_STALE, f"{approval.author} may no longer do this"
        )
    approval_tables.delete(applying.db, approval.approval_id)
    authored = replace(
        applying,
        call=replace(applying.call, command=change),
        administrator=author,
        target=target_of(applying.db, change),
        detail="",
        events=[],
        told=[],
    )
    if approval.basis != _basis(authored):
        return Rejected(
            Reason.APPROVAL_STALE,
            f"{authored.target} has changed since the request: request it again",
        )
    result = make(authored)
    if isinstance(result, Rejected):
        return _refused(change, result)
    if isinstance(change, known_secrets.TOKEN_CHANGES):
        known_secrets.confirm(authored, author.name)
    applying.events += [
        Event(
            action=approval.action,
            serial=TokenSerial(authored.target),
            cause=f"{authored.detail}; requested by {approval.author}, approved by "
            f"{approver.name}".removeprefix("; "),
            outcome="applied",
            told=tuple(authored.told),
        ),
        *authored.events,
    ]
    return Applied(index=applying.index)


def _counted(change: Change, counted: CountedCodes | None) -> Change:
    """Return the change with the live codes as they were counted for the approval."""
    if isinstance(change, UpdatePolicy):
        return replace(change, counted=counted)
    return change


def _refused(change: Change, result: Rejected) -> Rejected:
    """Return the refusal of an approved change."""
    if result.reason is not Reason.STALE_PARAMETERS or isinstance(change, UpdatePolicy):
        return result  # The called node counts the codes again, for its next attempt.
    return Rejected(
        Reason.APPROVAL_STALE,
        "the state has changed since the request: request it again",
    )


def _may_still(applying: Applying, author: Administrator, change: Change) -> bool:
    if isinstance(change, ChangePassword):  # Only another's password waits.
        return may(author.role, Permission.CHANGE_ADMINISTRATORS)
    return may(author.role, permission_of(type(change), applying.feature_level))


def _users(applying: Applying, approval: Approval) -> set[str]:
    """Return the users whom the request is about (I10)."""
    tokens = (
        token_tables.find_token(applying.db, serial) for serial in approval.serials
    )
    users: set[str] = {token.user_id for token in tokens if token and token.user_id}
    change = from_json(approval.change) if approval.change else None
    name = getattr(change, "name_key", None)
    user = user_tables.find_user_by_name(applying.db, name) if name else None
    return users | ({user.user_id} if user else set())


def _reject(applying: Applying, approval: Approval) -> Rejected | None:
    administrator = applying.acting_administrator
    if administrator.name != approval.author and not may(
        administrator.role, Permission.APPROVE
    ):
        return Rejected(
            Reason.ROLE,
            f"with the role {administrator.role} you can reject only your own requests",
        )
    approval_tables.delete(applying.db, approval.approval_id)
    return None
