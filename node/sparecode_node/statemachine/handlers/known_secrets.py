# SPDX-License-Identifier: Apache-2.0
"""
What administrators know of tokens, and what they need an approval for (I10).

An administrator who saw or chose a token's seed or PIN, or who assigned the token, could
use it in its user's place. So another administrator must approve that they issue codes
for it, or make it usable. The same holds for an administrator who has issued codes that
are live, and then sets the PIN. A new user has nothing to lose yet: the first token and
its first PIN need no approval.

What an administrator of another cluster knows of a token that came from there counts for
every administrator here, until an approval confirms the token for that one.
"""

from dataclasses import dataclass, replace

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.approvals import ApprovalKind, Hold
from sparecode_node.domain.ids import NO_KEY, AdministratorName, TokenSerial
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import NEW_USER, User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
    IssueFixedTokencode,
    ReinstateToken,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.commands.pending import to_json
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UpdateToken,
)
from sparecode_node.statemachine.commands.users import UnlockUser, UpdateUser
from sparecode_node.statemachine.feature_level import KNOWN_SECRETS
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import known_secrets as secret_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.known_secrets import KnownSecret

TOKEN_CHANGES = (
    AssignToken,
    ReplaceToken,
    EnableToken,
    UpdateToken,
    ClearPin,
    SetPin,
    ReinstateToken,
    DisableEmergencyAccess,
    ResynchronizeToken,
)
"""Changes of a token that may make it usable. An approval of one confirms the token."""

USER_CHANGES = (UpdateUser, UnlockUser)
"""Changes of a user that may make the user's tokens usable."""

KNOWS_CODES = frozenset({KnownSecret.SEED, KnownSecret.ASSIGNMENT, KnownSecret.CODES})
"""With any of these, a PIN is all that is missing."""

GUESSING_MS = 30 * DAY_MS
"""How long an administrator who issued codes needs an approval to unlock their user."""

WORDS = {
    KnownSecret.SEED: "has seen its seed",
    KnownSecret.PIN: "has set or cleared its PIN",
    KnownSecret.ASSIGNMENT: "has assigned it",
    KnownSecret.FIRST_ASSIGNMENT: "has assigned it",
    KnownSecret.CODES: "has issued its codes",
}


@dataclass(frozen=True, slots=True)
class _Known:
    """What an administrator knows of a token."""

    own: frozenset[KnownSecret]
    elsewhere: frozenset[KnownSecret]
    """What an administrator of another cluster knows, who may be the same person."""

    @property
    def all(self) -> frozenset[KnownSecret]:
        return self.own | self.elsewhere

    def words(self, name: AdministratorName) -> str:
        """Return it for the approver; empty for nothing."""
        return " and ".join(
            f"{knower} {' and '.join(reasons)}"
            for knower, secrets in (
                (name, self.own),
                ("an administrator of another cluster", self.elsewhere - self.own),
            )
            if (reasons := _reasons(secrets))
        )


def _reasons(secrets: frozenset[KnownSecret]) -> dict[str, None]:
    return dict.fromkeys(WORDS[each] for each in KnownSecret if each in secrets)


def _secrets(
    applying: Applying, serial: TokenSerial, administrator: Administrator
) -> _Known:
    """Return what an administrator knows of a token, without its codes."""
    return _Known(
        secret_tables.of(applying.db, serial, administrator.name),
        secret_tables.elsewhere(applying.db, serial, administrator.name),
    )


def hold_needed(applying: Applying, administrator: Administrator) -> Hold | None:
    """Return how the command must wait without a permit; None: it need not."""
    command = applying.call.command
    match command:
        case SaveEmergencyAccess() | IssueFixedTokencode():
            known = _secrets(applying, command.serial, administrator)
            return (
                Hold(
                    ApprovalKind.ISSUE,
                    f"codes for token {command.serial}; "
                    f"{known.words(administrator.name)}",
                    (command.serial,),
                )
                if known.all
                else None
            )
        case AssignToken():
            user = user_tables.find_user_by_name(applying.db, command.name_key)
            if user is None or _is_new(applying, user, administrator, command.serial):
                return None
            known = _secrets(applying, command.serial, administrator)
            words = known.words(administrator.name)
            return Hold(ApprovalKind.CHANGE, words, (command.serial,))
        case ReplaceToken():
            known = _secrets(applying, command.replacement, administrator)
            return Hold(
                ApprovalKind.TOKEN,
                known.words(administrator.name),
                (command.serial, command.replacement),
                to_json(
                    replace(
                        command,
                        auth_version=0,
                        key_id=NO_KEY,
                        pin_verifier=b"",
                        sealed_pin=b"",
                    )
                ),
            )
        case DisableEmergencyAccess() if not command.reinstate_token:
            return None
        case (
            EnableToken()
            | UpdateToken()
            | ClearPin()
            | SetPin()
            | ReinstateToken()
            | DisableEmergencyAccess()
            | ResynchronizeToken()
        ):
            return _use(applying, administrator, command)
        case UpdateUser() | UnlockUser():
            return _let_in(applying, administrator, command)
    return None


def _use(
    applying: Applying,
    administrator: Administrator,
    command: EnableToken
    | UpdateToken
    | ClearPin
    | SetPin
    | ReinstateToken
    | DisableEmergencyAccess
    | ResynchronizeToken,
) -> Hold | None:
    """Return the hold of a change that may make a token usable."""
    token = token_tables.find_token(applying.db, command.serial)
    if token is None or token.user_id is None:
        return None
    known = _known(applying, token, administrator)
    secrets = known.all
    match command:
        case UpdateToken() if _shortens(token, command):
            return None
        case ResynchronizeToken() if not token.out_of_step:
            return None
        case SetPin() | ClearPin():
            # Setting a known PIN again gives nothing more.
            first = {KnownSecret.FIRST_ASSIGNMENT, KnownSecret.SEED}
            if not secrets & KNOWS_CODES or (
                KnownSecret.FIRST_ASSIGNMENT in secrets and secrets <= first
            ):
                return None
        case _ if not secrets:
            return None
    words, serials = known.words(administrator.name), (command.serial,)
    match command:
        case SetPin():
            # The verifier belongs to one request; its author will make another.
            change = replace(
                command,
                verifier=b"",
                key_id=NO_KEY,
                policy_version=0,
                sealed_pin=b"",
                lettered=False,
            )
            return Hold(ApprovalKind.TOKEN, words, serials, to_json(change))
        case ResynchronizeToken():
            again = to_json(replace(command, moments=()))
            return Hold(ApprovalKind.TOKEN, words, serials, again)
    return Hold(ApprovalKind.CHANGE, words, serials)


def _let_in(
    applying: Applying, administrator: Administrator, command: UpdateUser | UnlockUser
) -> Hold | None:
    """
    Return the hold of enabling or unlocking a user.

    Unlocking allows further guesses: of the PIN, by an administrator who has seen the
    seed or has issued codes. Codes that were voided count for `GUESSING_MS`: else the
    administrator could void them, unlock the user, and issue again. One who only knows
    the PIN may unlock: a user who has forgotten the PIN needs both.
    """
    user = user_tables.find_user_by_name(applying.db, command.name_key)
    if user is None or (
        isinstance(command, UpdateUser) and (user.enabled or not command.enabled)
    ):
        return None
    enough, since_ms = frozenset(KnownSecret), applying.now_ms
    if isinstance(command, UnlockUser):
        enough -= {KnownSecret.PIN}
        since_ms -= GUESSING_MS
    words = [
        f"token {token.serial}: {known.words(administrator.name)}"
        for token in token_tables.find_tokens_of(applying.db, user.user_id)
        if (known := _known(applying, token, administrator, since_ms)).all & enough
    ]
    if words and isinstance(command, UpdateUser):
        changes = {
            "display name": command.display_name,
            "e-mail address": command.email,
            "language": command.language,
            "manager's address": command.manager_email,
        }
        words += [
            f"new {name} {value or 'none'}"
            for name, value in changes.items()
            if value is not None
        ]
    return Hold(ApprovalKind.CHANGE, "; ".join(words)) if words else None


def _known(
    applying: Applying,
    token: Token,
    administrator: Administrator,
    since_ms: int | None = None,
) -> _Known:
    """
    Return what an administrator knows of a token, with the codes that are live.

    With *since_ms* also with later codes that are not. Codes that ended only because the
    token expired count as live: moving the token's end would revive them.
    """
    known = _secrets(applying, token.serial, administrator)
    here = elsewhere = False
    for each in code_tables.find_sets(applying.db, token.serial):
        if each.live(applying.now_ms, token_expires_at_ms=None) or (
            since_ms is not None and each.issued_at_ms > since_ms
        ):
            if secret_tables.issued_elsewhere(applying.db, each.set_id):
                elsewhere = True
            else:
                here = here or each.issuer == administrator.name
    codes = frozenset({KnownSecret.CODES})
    return _Known(
        known.own | codes if here else known.own,
        known.elsewhere | codes if elsewhere else known.elsewhere,
    )


def _shortens(token: Token, command: UpdateToken) -> bool:
    """Return whether the change gives the token no later end."""
    if command.never_expires or command.expires_at_ms is None:
        return False
    end_ms = token.expires_at_ms
    return end_ms is None or command.expires_at_ms <= end_ms


def _is_new(
    applying: Applying, user: User, administrator: Administrator, serial: TokenSerial
) -> bool:
    """
    Return whether an administrator may assign a token to the user alone.

    No user with this name may ever have had a token. An administrator who has seen the
    seed must also have created the user: the agents may admit an older user already.
    """
    if user.auth_version != NEW_USER or secret_tables.is_former(
        applying.db, user.name_key
    ):
        return False
    known = _secrets(applying, serial, administrator).all
    creator = secret_tables.creator_of(applying.db, user.user_id)
    return KnownSecret.SEED not in known or creator == administrator.name


def basis(applying: Applying) -> str:
    """Return what a request about a token relies on and does not name (P3)."""
    command = applying.call.command
    facts = []
    tokens = [
        token_tables.find_token(applying.db, serial) for serial in _serials(command)
    ]
    if isinstance(command, AssignToken | UpdateUser | UnlockUser):
        user = user_tables.find_user_by_name(applying.db, command.name_key)
        facts.append(f"for {user.user_id if user else ''}")
        if user and not isinstance(command, AssignToken):
            tokens += token_tables.find_tokens_of(applying.db, user.user_id)
    for token in tokens:
        if token is not None:
            known = _known(applying, token, applying.acting_administrator).all
            facts.append(
                f"{token.serial} of {token.user_id or ''} ({token.pin_rule}): "
                + " ".join(each for each in KnownSecret if each in known)
            )
    return "; ".join(facts)


def _serials(command: object) -> list[TokenSerial]:
    return [
        getattr(command, field)
        for field in ("serial", "replacement")
        if hasattr(command, field)
    ]


def confirm(applying: Applying, author: AdministratorName) -> None:
    """Forget what the author knows: another administrator has approved the change."""
    command = applying.call.command
    # A PIN that the author has just chosen, cleared or carried over is still known.
    changes_pin = isinstance(command, SetPin | ClearPin | ReplaceToken)
    keep = KnownSecret.PIN if changes_pin else None
    for serial in _serials(command):
        secret_tables.confirm(applying.db, serial, author, keep=keep)


def note(applying: Applying, serial: TokenSerial, secret: KnownSecret) -> None:
    """Record what the calling administrator now knows of a token."""
    caller = applying.administrator
    if caller is not None and applying.feature_level >= KNOWN_SECRETS:
        secret_tables.add(applying.db, serial, caller.name, secret)


def note_assignment(applying: Applying, serial: TokenSerial, user: User) -> None:
    """Record that the calling administrator has assigned a token to the user."""
    first = applying.administrator is not None and _is_new(
        applying, user, applying.administrator, serial
    )
    note(
        applying,
        serial,
        KnownSecret.FIRST_ASSIGNMENT if first else KnownSecret.ASSIGNMENT,
    )


def note_user(applying: Applying, user: User) -> None:
    """Record which administrator has created a user."""
    caller = applying.administrator
    if caller is not None and applying.feature_level >= KNOWN_SECRETS:
        secret_tables.save_creator(applying.db, user.user_id, caller.name)


def forget_user(applying: Applying, user: User) -> None:
    """Record the name of a deleted user."""
    if applying.feature_level >= KNOWN_SECRETS:
        secret_tables.remember_name(applying.db, user.name_key, applying.now_ms)
