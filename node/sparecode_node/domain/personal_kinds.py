# SPDX-License-Identifier: Apache-2.0
"""The kinds of notices to people. Here, as the policy names those that are silent (N6)."""

import enum


class PersonalKind(enum.StrEnum):
    """What a notice tells a person. The values are in the state and in the policy."""

    CODES_ISSUED = "codes_issued"
    CODES_OPENED = "codes_opened"
    CODE_FIRST_USED = "code_first_used"
    CODE_USED = "code_used"
    CODES_LOW = "codes_low"
    CODES_EXHAUSTED = "codes_exhausted"
    CODES_ENDED = "codes_ended"
    CODES_EXPIRED = "codes_expired"
    TOKEN_ASSIGNED = "token_assigned"
    TOKEN_UNASSIGNED = "token_unassigned"
    PIN_SET = "pin_set"
    PIN_CLEARED = "pin_cleared"
    TOKEN_REINSTATED = "token_reinstated"
    RECOVERED_TOKEN_ACCEPTED = "recovered_token_accepted"
    RECOVERED_TOKEN_REFUSED = "recovered_token_refused"
    LOCKED = "locked"
    ADDRESS_CHANGED = "address_changed"
    MANAGER_CHANGED = "manager_changed"
    USER_DISABLED = "user_disabled"
    USER_DELETED = "user_deleted"
    ADMINISTRATOR_CREATED = "administrator_created"
    ADMINISTRATOR_CHANGED = "administrator_changed"
    ADMINISTRATOR_REMOVED = "administrator_removed"
    ADMINISTRATOR_PASSWORD = "administrator_password"
    ADMINISTRATOR_FACTOR = "administrator_factor"
    RESET_ANNOUNCED = "reset_announced"
    RESET_DONE = "reset_done"
    NEW_DEVICE = "new_device"
    APPROVAL_WAITING = "approval_waiting"
    ALARM_RAISED = "alarm_raised"
    TEST = "test"
    """Sent only by a test of the channel."""


KINDS_OF_USERS = tuple(PersonalKind)[
    : list(PersonalKind).index(PersonalKind.ADMINISTRATOR_CREATED)
]
"""What happens to users, and not to administrators. Managers can hear of it."""
