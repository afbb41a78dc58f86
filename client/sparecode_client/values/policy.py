# SPDX-License-Identifier: Apache-2.0
"""The policy: all settings of the cluster, as one value."""

from dataclasses import dataclass
from datetime import timedelta

from sparecode_client.values.results import Commit, ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The whole policy.

    To change it, read it, replace fields with `dataclasses.replace`, and pass the
    result to `update_policy`. The node checks all bounds and names the wrong field.
    """

    version: int
    """Version of this value; each change raises it."""
    code_length: int
    """Symbols of a new emergency code. Codes already issued stay valid."""
    further_code_lengths: str
    """Other accepted lengths, separated by spaces; each costs two more hashes."""
    code_alphabet: str
    """Digits and capital letters. Cannot change while there are live codes."""
    codes_per_set_default: int
    codes_per_set_max: int
    """Maximum number of live codes of a token."""
    lifetime_max: timedelta | None
    """Maximum lifetime of a set; None: no limit."""
    draft_lifetime: timedelta
    set_low_threshold: int
    pin_length_min: int
    pin_length_max: int
    pin_letters: bool
    """Whether PINs may have letters, in either case. Cannot be turned off while a token
    has such a PIN."""
    totp_window_steps: int
    hotp_look_ahead: int
    tokens_per_user_max: int
    lock_from_failures: int
    """Lock a factor after this many failures: for `lock` at first, then twice as long each
    time, up to `lock_max`."""
    lock: timedelta
    lock_max: timedelta
    lock_until_unlocked: bool
    """Whether a locked factor stays locked until an administrator unlocks it."""
    factor_off_at_failures: int
    """Disable a factor after this many failures in total."""
    session_lifetime: timedelta
    session_idle: timedelta
    """End a session that was not used for this long, to the minute."""
    session_unused: timedelta
    """A further limit of the time without use. The lower of both counts."""
    request_retention: timedelta
    requests_max: int
    resynchronize_window_steps: int
    """How far off a TOTP or SecurID token may be when it is resynchronized."""
    resynchronize_look_ahead: int
    """How far off a HOTP token may be when it is resynchronized."""
    next_tokencode_from_failures: int
    """After this many failures, a right passcode also needs the next tokencode; 0: never."""
    second_approver: bool
    """Whether sensitive changes need another super administrator, if there is one."""
    backup_recipients: str
    """age public keys of those who can decrypt backups, separated by spaces."""
    pin_blocklist: bool | None = None
    """Whether new PINs that are easy to guess are refused. None: as for `reset_delay`."""
    issued_sets_per_hour: int | None = None
    """Sets that each administrator may issue within an hour without an approval. None: as
    for `reset_delay`."""
    issued_sets_per_day: int | None = None
    """The same within a day."""
    unlocks_per_day: int | None = None
    """Unlocks of each user within a day without an approval, by all administrators
    together. None: as for `reset_delay`."""
    privileged_session_lifetime: timedelta | None = None
    """Maximum duration of a super administrator's session. None: as for `reset_delay`."""
    privileged_session_idle: timedelta | None = None
    """End a super administrator's session that was not used for this long."""
    administrators_second_factor: str | None = None
    """Second factor that administrators need: optional, any, passkey. None: as for
    `reset_delay`."""
    passkey_domain: str | None = None
    """Domain of the consoles, to which passkeys belong; empty: no passkeys."""
    silent_notices: str | None = None
    """Kinds of notices that people do not get by mail, separated by spaces. None: as for
    `reset_delay`."""
    manager_notices: str | None = None
    """Kinds of notices that the manager of the user gets, too. None: as above."""
    codes_by_message: bool | None = None
    """Whether codes may go to their user as a sealed message. None: as for
    `reset_delay`."""
    codes_to_manager: bool | None = None
    """Whether they may also go to the user's manager. None: as for `reset_delay`."""
    alarm_ends_codes: bool | None = None
    """Whether a user's alarm about a notice voids the user's live codes. None: as for
    `reset_delay`."""
    audit_retention: timedelta | None = None
    """Remove archived audit events that are older; 0: never. None: as for
    `reset_delay`."""
    audit_archive_copies: int | None = None
    """How many archives must have them. None: as for `reset_delay`."""
    reset_delay: timedelta | None = None
    """How long a local reset of an administrator is announced before it is in force. None:
    the node is older; in a change: leave it as it is."""
    former_code_retention: timedelta | None = None
    """How long codes of former sets are recognized, so that they do not count as guesses.
    None: as above."""
    rotate_after_removal: bool | None = None
    """Whether removing a member also starts a rotation of the ring's key. None: as above."""
    authorities_due_after_removal: bool | None = None
    """
    Whether authorities are due after the removal of a member that has had their keys.

    None: as above.
    """
    replace_authorities_after_removal: bool | None = None
    """Whether a member makes the successors of authorities that are due. None: as above."""
    position: ReadPosition | None = None
    """None in a policy that was not read from a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatedPolicy:
    """Result of a change of policy. It takes effect on every node at the same log index."""

    version: int
    commit: Commit
