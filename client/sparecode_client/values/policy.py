# SPDX-License-Identifier: Apache-2.0
"""The policy as a value: what the cluster allows."""

from dataclasses import dataclass
from datetime import timedelta

from sparecode_client.values.results import Commit, ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The policy, as a whole.

    To change it, read it, `dataclasses.replace` what shall be other, and hand it
    to `update_policy`. The node knows all bounds, and names the field at fault.
    """

    version: int
    """Of the value that was read; raised with every change."""
    code_length: int
    """Symbols of an emergency code. Those of before are accepted on."""
    further_code_lengths: str
    """Lengths that are accepted too, with spaces between; each costs two hashes more."""
    code_alphabet: str
    """Digits and capital letters. Cannot change while codes live."""
    codes_per_set_default: int
    codes_per_set_max: int
    """Live codes that a token may have."""
    lifetime_max: timedelta | None
    """How long a set may live; None: no cap."""
    draft_lifetime: timedelta
    set_low_threshold: int
    pin_length_min: int
    pin_length_max: int
    pin_letters: bool
    """Letters in PINs, in whatever case. Cannot be turned off while tokens have such."""
    totp_window_steps: int
    hotp_look_ahead: int
    tokens_per_user_max: int
    lock_from_failures: int
    """So many failures lock a factor, for `lock`; doubling, up to `lock_max`."""
    lock: timedelta
    lock_max: timedelta
    lock_until_unlocked: bool
    """A locked factor waits for an administrator."""
    factor_off_at_failures: int
    session_lifetime: timedelta
    session_idle: timedelta
    """A browser at the Security Console that is not used for so long is signed out."""
    session_unused: timedelta
    """Any session that no call uses for so long, to the minute, has ended."""
    request_retention: timedelta
    requests_max: int
    resynchronize_window_steps: int
    resynchronize_look_ahead: int
    """How far off a token may be where two tokencodes in a row are given."""
    next_tokencode_from_failures: int
    """After so many, a right passcode needs the next tokencode too; 0: never."""
    second_approver: bool
    """Some changes wait for another super administrator, while there is one."""
    backup_recipients: str
    """Who can open backups: age public keys, with a space between two."""
    position: ReadPosition | None = None
    """Of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatedPolicy:
    """The policy has changed, on every node at the same log index."""

    version: int
    commit: Commit
