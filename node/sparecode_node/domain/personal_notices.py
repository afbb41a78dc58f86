# SPDX-License-Identifier: Apache-2.0
"""
Notices to people: what happens to a person's codes, tokens and accounts (N6).

A notice says what happened, and holds no code, PIN or link that signs in. So an attacker
gains nothing by reading it, and the person learns of what the attacker does.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.domain.users import User

COUNTED_MS = HOUR_MS
"""Notices of one kind to one person are counted for this long (N7)."""
PER_HOUR = 5
"""Maximum notices of one kind to one person in an hour; later ones are left out."""


FORMER_ADDRESS_MS = 72 * HOUR_MS
"""A user's former address hears what the present one hears, for this long (N8)."""
FORMER_ADDRESSES_MAX = 3
"""Maximum former addresses of a user. The oldest ones stay: they are the owner's."""
ADMINISTRATORS_MAX = 20
"""Maximum administrators of one role that hear of one event."""


class Audience(enum.Enum):
    """Who hears of an event."""

    OWNER = enum.auto()
    """The user of the token that is the event's target."""
    ADMINISTRATOR = enum.auto()
    """The administrator that is the event's target."""
    WITH_SUPER_ADMINISTRATORS = enum.auto()
    """That administrator, and the super administrators."""
    APPROVERS = enum.auto()
    """The super administrators except the caller."""
    HELP_DESK = enum.auto()
    """The administrators of the help desk, and the super administrators."""


REPLACED = "new codes issued"
"""The cause of void codes that is no news: the notice of the new ones says it."""

KINDS: Mapping[str, tuple[PersonalKind, Audience]] = {
    "SaveEmergencyAccess": (PersonalKind.CODES_ISSUED, Audience.OWNER),
    "IssueFixedTokencode": (PersonalKind.CODES_ISSUED, Audience.OWNER),
    "IssueTokencodesInBulk": (PersonalKind.CODES_ISSUED, Audience.OWNER),
    "OpenSealedCodes": (PersonalKind.CODES_OPENED, Audience.OWNER),
    "SET_LOW": (PersonalKind.CODES_LOW, Audience.OWNER),
    "SET_EXHAUSTED": (PersonalKind.CODES_EXHAUSTED, Audience.OWNER),
    "SET_ENDED": (PersonalKind.CODES_EXPIRED, Audience.OWNER),
    "CODES_VOIDED": (PersonalKind.CODES_ENDED, Audience.OWNER),
    "AssignToken": (PersonalKind.TOKEN_ASSIGNED, Audience.OWNER),
    "SetPin": (PersonalKind.PIN_SET, Audience.OWNER),
    "PIN_CHOSEN": (PersonalKind.PIN_SET, Audience.OWNER),
    "ClearPin": (PersonalKind.PIN_CLEARED, Audience.OWNER),
    "ReinstateToken": (PersonalKind.TOKEN_REINSTATED, Audience.OWNER),
    "DisableEmergencyAccess": (PersonalKind.TOKEN_REINSTATED, Audience.OWNER),
    "RECOVERED_TOKEN_ACCEPTED": (
        PersonalKind.RECOVERED_TOKEN_ACCEPTED,
        Audience.OWNER,
    ),
    "RECOVERED_TOKEN_REFUSED": (PersonalKind.RECOVERED_TOKEN_REFUSED, Audience.OWNER),
    "CreateAdministrator": (
        PersonalKind.ADMINISTRATOR_CREATED,
        Audience.WITH_SUPER_ADMINISTRATORS,
    ),
    "UpdateAdministrator": (
        PersonalKind.ADMINISTRATOR_CHANGED,
        Audience.WITH_SUPER_ADMINISTRATORS,
    ),
    "RemoveAdministrator": (
        PersonalKind.ADMINISTRATOR_REMOVED,
        Audience.WITH_SUPER_ADMINISTRATORS,
    ),
    "ChangePassword": (PersonalKind.ADMINISTRATOR_PASSWORD, Audience.ADMINISTRATOR),
    "SetSecondFactor": (PersonalKind.ADMINISTRATOR_FACTOR, Audience.ADMINISTRATOR),
    "RemoveSecondFactor": (PersonalKind.ADMINISTRATOR_FACTOR, Audience.ADMINISTRATOR),
    "RegisterPasskey": (PersonalKind.ADMINISTRATOR_FACTOR, Audience.ADMINISTRATOR),
    "RemovePasskey": (PersonalKind.ADMINISTRATOR_FACTOR, Audience.ADMINISTRATOR),
    "ResetAdministrator": (
        PersonalKind.RESET_ANNOUNCED,
        Audience.WITH_SUPER_ADMINISTRATORS,
    ),
    "RESET_IN_FORCE": (PersonalKind.RESET_DONE, Audience.WITH_SUPER_ADMINISTRATORS),
    "RaiseAlarm": (PersonalKind.ALARM_RAISED, Audience.HELP_DESK),
    "OpenSession": (PersonalKind.NEW_DEVICE, Audience.ADMINISTRATOR),
}
"""
What the events of the audit log tell, and to whom.

The uses of codes, lockouts, changes of a user, and the end of an assignment are not among
them: their handlers know the user, and name the kind. A removed administrator hears from
the handler, too, because the event finds only the super administrators.
"""


def told_by(
    action: str, outcome: str, detail: str
) -> tuple[PersonalKind, Audience] | None:
    """Return what an event tells people, and which people; None: nothing."""
    if outcome == "pending" and action != "ResetAdministrator":
        return PersonalKind.APPROVAL_WAITING, Audience.APPROVERS
    if outcome not in ("applied", "noted", "pending"):
        return None
    is_news = {
        "CODES_VOIDED": not detail.startswith(REPLACED),
        "DisableEmergencyAccess": detail.startswith("token reinstated"),
        "OpenSession": not detail.startswith("from a known device"),
    }
    return KINDS.get(action) if is_news.get(action, True) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalNotice:
    """To whom a notice goes, and what it tells."""

    kind: PersonalKind
    recipient: str
    """The address on file at the time of the event."""
    person: str
    """The name of the person that it is about."""
    language: str
    """A tag of BCP 47; empty: not known."""
    is_last: bool
    """Whether more of its kind are left out for an hour."""
    user_id: str = ""
    """The user that it is about; empty: none, or one who is deleted."""
    to_manager: bool = False
    """Whether the recipient is that user's manager."""
    target: str = ""
    """The token that it names; empty: the target of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a handler tells a user beside the event of its command."""

    kind: PersonalKind
    user_id: UserId
    target: str = ""
    """The token that the notice names; empty: the target of the event."""
    left_address: str = ""
    """The address that the user had until now. It hears although others do not (N8)."""
    left_manager: str = ""
    """The same of the user's manager."""
    deleted: User | None = None
    """The user, read before the event; None: the event does not delete the user."""
    addresses: tuple[str, ...] = ()
    """The addresses of a deleted user, which went with the user."""
    managers: tuple[str, ...] = ()
    """The same of that user's manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the policy wants to be sent."""

    silent: frozenset[str] = frozenset()
    """Kinds that are not sent."""
    to_managers: frozenset[str] = frozenset()
    """Kinds that the manager of the user hears, too."""

    def tells_managers(self, kind: PersonalKind) -> bool:
        """Return whether managers hear a kind. Of a change of theirs they always do."""
        return kind in self.to_managers or kind is PersonalKind.MANAGER_CHANGED


PER_HOUR_OF: Mapping[PersonalKind, int] = {PersonalKind.LOCKED: 1}
"""What a stranger can cause has a lower maximum."""


def per_hour(kind: PersonalKind) -> int:
    """Return the maximum notices of a kind to one person in an hour."""
    return PER_HOUR_OF.get(kind, PER_HOUR)
