# SPDX-License-Identifier: Apache-2.0
"""The kinds of notices to people, in words: pages show these, not the names in the policy."""

from typing import Final

from sparecode_node.console.kit.languages import N_
from sparecode_node.domain.personal_kinds import PersonalKind

NOTICE_KINDS: Final = {
    PersonalKind.CODES_ISSUED: N_("Emergency codes were issued"),
    PersonalKind.CODES_OPENED: N_("Codes that went by message were opened"),
    PersonalKind.CODE_FIRST_USED: N_("The first emergency code was used"),
    PersonalKind.CODE_USED: N_("Another emergency code was used"),
    PersonalKind.CODES_LOW: N_("Few emergency codes are left"),
    PersonalKind.CODES_EXHAUSTED: N_("No emergency code is left"),
    PersonalKind.CODES_ENDED: N_("Emergency codes were made void"),
    PersonalKind.CODES_EXPIRED: N_("Emergency codes have expired"),
    PersonalKind.TOKEN_ASSIGNED: N_("A token was assigned"),
    PersonalKind.TOKEN_UNASSIGNED: N_("A token was unassigned"),
    PersonalKind.PIN_SET: N_("A PIN was set or chosen"),
    PersonalKind.PIN_CLEARED: N_("A PIN was cleared"),
    PersonalKind.TOKEN_REINSTATED: N_("A lost token was reinstated"),
    PersonalKind.RECOVERED_TOKEN_ACCEPTED: N_("A lost token was used and accepted"),
    PersonalKind.RECOVERED_TOKEN_REFUSED: N_("A lost token was used and refused"),
    PersonalKind.LOCKED: N_("Failures have locked the sign-in"),
    PersonalKind.ADDRESS_CHANGED: N_("The e-mail address was changed"),
    PersonalKind.MANAGER_CHANGED: N_("The manager’s address was changed"),
    PersonalKind.USER_DISABLED: N_("The user was disabled"),
    PersonalKind.USER_DELETED: N_("The user was deleted"),
    PersonalKind.ADMINISTRATOR_CREATED: N_("An administrator was created"),
    PersonalKind.ADMINISTRATOR_CHANGED: N_("An administrator was changed"),
    PersonalKind.ADMINISTRATOR_REMOVED: N_("An administrator was removed"),
    PersonalKind.ADMINISTRATOR_PASSWORD: N_("An administrator’s password was changed"),
    PersonalKind.ADMINISTRATOR_FACTOR: N_(
        "An administrator’s second factor was changed"
    ),
    PersonalKind.RESET_ANNOUNCED: N_("A reset of an administrator was announced"),
    PersonalKind.RESET_DONE: N_("A reset of an administrator is in force"),
    PersonalKind.NEW_DEVICE: N_("An administrator signed in on a new device"),
    PersonalKind.APPROVAL_WAITING: N_("A change waits for approval"),
    PersonalKind.ALARM_RAISED: N_("A user says: this was not me"),
    PersonalKind.TEST: N_("Test of the channel for mail"),
}
