# SPDX-License-Identifier: Apache-2.0
"""What each notice to a person says, in English; the catalogues have the rest."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.sealed_codes import TO_MANAGER, TO_USER


def N_(message: str) -> str:  # noqa: N802 - The name that extraction knows.
    """Mark a constant as a text; it is translated where it is used."""
    return message


class Fact(enum.Enum):
    """What a letter names beside the time."""

    TOKEN = enum.auto()
    ADMINISTRATOR = enum.auto()
    ACTOR = enum.auto()
    AGENT = enum.auto()
    USER = enum.auto()
    DELIVERY = enum.auto()
    """To whom codes go by message; it is left out of other events."""


FACTS: Mapping[Fact, str] = {
    Fact.TOKEN: N_("Token"),
    Fact.ADMINISTRATOR: N_("Administrator"),
    Fact.ACTOR: N_("By"),
    Fact.AGENT: N_("At"),
    Fact.USER: N_("User"),
    Fact.DELIVERY: N_("Delivery"),
}

WAYS: Mapping[str, str] = {
    TO_MANAGER: N_("by message, to the address on file of the user’s manager"),
    TO_USER: N_("by message, to the user’s address on file"),
}
"""What the audit log says of it; the longer one first, since it begins like the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of one kind of notice."""

    subject: str
    happened: str
    advice: str
    facts: tuple[Fact, ...] = (Fact.TOKEN, Fact.ACTOR)
    advice_of_manager: str = ""
    """The user's advice if codes went to the user's manager; empty: the same."""


WORDS: Mapping[PersonalKind, Words] = {
    PersonalKind.CODES_ISSUED: Words(
        subject=N_("Emergency codes were issued for you"),
        happened=N_(
            "New emergency codes were issued for your token. Each stands in "
            "for the token once."
        ),
        advice=N_(
            "Anyone who has such a code and your PIN can sign in as you. You "
            "need not do anything if you asked for them."
        ),
        facts=(Fact.TOKEN, Fact.ACTOR, Fact.DELIVERY),
    ),
    PersonalKind.CODES_OPENED: Words(
        subject=N_("Your emergency codes were opened"),
        happened=N_(
            "The page with your new emergency codes was opened, and has shown them."
        ),
        advice=N_("You need not do anything if it was you."),
        advice_of_manager=N_(
            "They went to your manager. You need not do anything if you expect this."
        ),
        facts=(Fact.TOKEN, Fact.DELIVERY),
    ),
    PersonalKind.CODE_FIRST_USED: Words(
        subject=N_("The first of your emergency codes was used"),
        happened=N_("The first of your emergency codes was used to sign in as you."),
        advice=N_("You need not do anything if it was you."),
        facts=(Fact.AGENT,),
    ),
    PersonalKind.CODE_USED: Words(
        subject=N_("One of your emergency codes was used"),
        happened=N_("An emergency code was used to sign in as you."),
        advice=N_("You need not do anything if it was you."),
        facts=(Fact.AGENT,),
    ),
    PersonalKind.CODES_LOW: Words(
        subject=N_("You have few emergency codes left"),
        happened=N_("Only a few of your emergency codes are left."),
        advice=N_(
            "Ask the help desk for new ones before the last one is used, or "
            "get your token back."
        ),
        facts=(Fact.TOKEN,),
    ),
    PersonalKind.CODES_EXHAUSTED: Words(
        subject=N_("Your last emergency code was used"),
        happened=N_(
            "The last of your emergency codes was used. You cannot sign in "
            "without your token now."
        ),
        advice=N_(
            "Ask the help desk for new codes if you still do not have your token."
        ),
        facts=(Fact.TOKEN,),
    ),
    PersonalKind.CODES_ENDED: Words(
        subject=N_("Your emergency codes no longer work"),
        happened=N_("The rest of your emergency codes were made void."),
        advice=N_(
            "Destroy the list of codes. Ask the help desk if you still need codes."
        ),
    ),
    PersonalKind.CODES_EXPIRED: Words(
        subject=N_("Your emergency codes have expired"),
        happened=N_(
            "Your emergency codes have reached their end. The ones that you have not "
            "used no longer work."
        ),
        advice=N_(
            "Destroy the list of codes. Ask the help desk for new ones if you still do "
            "not have your token."
        ),
        facts=(Fact.TOKEN,),
    ),
    PersonalKind.TOKEN_ASSIGNED: Words(
        subject=N_("A token was assigned to you"),
        happened=N_(
            "A token was assigned to you. Anyone who has it and your PIN can "
            "sign in as you."
        ),
        advice=N_("You need not do anything if you have it or expect it."),
    ),
    PersonalKind.TOKEN_UNASSIGNED: Words(
        subject=N_("A token is no longer assigned to you"),
        happened=N_(
            "A token that was assigned to you no longer is. You cannot sign in with it."
        ),
        advice=N_("You need not do anything if you expect this."),
    ),
    PersonalKind.PIN_SET: Words(
        subject=N_("Your PIN was set"),
        happened=N_("The PIN of your token was set or changed."),
        advice=N_("You need not do anything if you did this or asked for it."),
    ),
    PersonalKind.PIN_CLEARED: Words(
        subject=N_("Your PIN was cleared"),
        happened=N_(
            "The PIN of your token was cleared. At the next sign-in with the "
            "token a new one is chosen."
        ),
        advice=N_("Choose a new PIN soon if you asked for this."),
    ),
    PersonalKind.TOKEN_REINSTATED: Words(
        subject=N_("Your token works again"),
        happened=N_(
            "Your token was reported lost, and was enabled again. Its "
            "emergency codes no longer work."
        ),
        advice=N_("You need not do anything if you have your token back."),
    ),
    PersonalKind.RECOVERED_TOKEN_ACCEPTED: Words(
        subject=N_("Your lost token was used"),
        happened=N_(
            "The token that you reported lost was used to sign in as you. It "
            "works again, and its emergency codes no longer do."
        ),
        advice=N_("You need not do anything if you have found your token and used it."),
        facts=(Fact.TOKEN,),
    ),
    PersonalKind.RECOVERED_TOKEN_REFUSED: Words(
        subject=N_("Your lost token was used and refused"),
        happened=N_(
            "The token that you reported lost was used with the right PIN. "
            "The sign-in was refused."
        ),
        advice=N_("Ask the help desk to enable the token again if you have found it."),
        facts=(Fact.TOKEN,),
    ),
    PersonalKind.LOCKED: Words(
        subject=N_("Your sign-in was locked after failures"),
        happened=N_(
            "There were too many failures to sign in as you, so signing in is"
            " locked for a while."
        ),
        advice=N_(
            "If you mistyped, wait, or ask the help desk to unlock you. More "
            "attempts do not help."
        ),
        facts=(),
    ),
    PersonalKind.ADDRESS_CHANGED: Words(
        subject=N_("Your e-mail address was changed"),
        happened=N_(
            "The e-mail address that Sparecode has of you was changed. For "
            "three days both addresses get such mails."
        ),
        advice=N_("You need not do anything if you asked for this."),
        facts=(Fact.ACTOR,),
    ),
    PersonalKind.MANAGER_CHANGED: Words(
        subject=N_("The address of your manager was changed"),
        happened=N_(
            "The address of your manager that Sparecode has was changed. For three "
            "days the former one gets the mails to managers, too."
        ),
        advice=N_("You need not do anything if you expect this."),
        facts=(Fact.ACTOR,),
    ),
    PersonalKind.USER_DISABLED: Words(
        subject=N_("Your account was disabled"),
        happened=N_(
            "Your account in Sparecode was disabled. You cannot sign in with "
            "your token or your emergency codes."
        ),
        advice=N_("You need not do anything if you expect this."),
        facts=(Fact.ACTOR,),
    ),
    PersonalKind.USER_DELETED: Words(
        subject=N_("Your account was deleted"),
        happened=N_(
            "Your account in Sparecode was deleted. You get no more such "
            "mails, even if an account with your name is created again."
        ),
        advice=N_("You need not do anything if you expect this."),
        facts=(Fact.ACTOR,),
    ),
    PersonalKind.ADMINISTRATOR_CREATED: Words(
        subject=N_("A new administrator of Sparecode"),
        happened=N_("A new administrator of Sparecode was created."),
        advice=N_("Check that this was agreed."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.ADMINISTRATOR_CHANGED: Words(
        subject=N_("An administrator of Sparecode was changed"),
        happened=N_(
            "The role, the state or the user of an administrator of Sparecode"
            " was changed."
        ),
        advice=N_("Check that this was agreed."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.ADMINISTRATOR_REMOVED: Words(
        subject=N_("An administrator of Sparecode was removed"),
        happened=N_("An administrator of Sparecode was removed."),
        advice=N_("Check that this was agreed."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.ADMINISTRATOR_PASSWORD: Words(
        subject=N_("Your administrator password was changed"),
        happened=N_(
            "The password of your administrator account was changed, and its "
            "sessions were ended."
        ),
        advice=N_("You need not do anything if you did this or asked for it."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.ADMINISTRATOR_FACTOR: Words(
        subject=N_("Your second factor was changed"),
        happened=N_(
            "A second factor of your administrator account was added or removed."
        ),
        advice=N_("You need not do anything if you did this or asked for it."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.RESET_ANNOUNCED: Words(
        subject=N_("The reset of an administrator is announced"),
        happened=N_(
            "An operator wants to reset the password and the second factor of"
            " an administrator. It will be in force later, unless a super "
            "administrator cancels it."
        ),
        advice=N_("Sign in to cancel it if it was not agreed."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.RESET_DONE: Words(
        subject=N_("An administrator was reset"),
        happened=N_(
            "The password of an administrator was reset, and the second factor removed."
        ),
        advice=N_("Check that this was agreed."),
        facts=(Fact.ADMINISTRATOR, Fact.ACTOR),
    ),
    PersonalKind.NEW_DEVICE: Words(
        subject=N_("Sign-in as administrator from a new device"),
        happened=N_(
            "Your administrator account was used to sign in from a device "
            "that has not done so before."
        ),
        advice=N_("You need not do anything if it was you."),
        facts=(Fact.ADMINISTRATOR,),
    ),
    PersonalKind.APPROVAL_WAITING: Words(
        subject=N_("A request waits for your approval"),
        happened=N_(
            "An administrator has asked for a change that needs the approval "
            "of a second one."
        ),
        advice=N_(
            "Look at it on the page Approvals of the Security Console, and "
            "approve only what was agreed."
        ),
        facts=(Fact.ACTOR, Fact.DELIVERY),
    ),
    PersonalKind.ALARM_RAISED: Words(
        subject=N_("A user says: this was not me"),
        happened=N_(
            "A user of Sparecode has got a notice, and says that it was not them. "
            "Another person may have the user’s token, codes or PIN."
        ),
        advice=N_(
            "Look at the user’s page in the Security Console, and talk to the user by a "
            "way that you trust."
        ),
        facts=(Fact.USER,),
    ),
    PersonalKind.TEST: Words(
        subject=N_("A test of notices by mail"),
        happened=N_("An administrator tests whether mails arrive. Nothing happened."),
        advice=N_("You need not do anything."),
        facts=(Fact.ACTOR,),
    ),
}
