# SPDX-License-Identifier: Apache-2.0
"""
The feature level: what a release can read and do, as one number.

A replica that does not know a command must not skip it: it stops. So a command or a
field that the oldest member does not know must not enter the log. Each member tells the
others the level that it knows. When all members know a higher level than the cluster
has, the primary raises the level of the cluster with a command. The level is therefore
part of the state, and it never goes back. docs/operations.md tells operators about it.

Level 1 is release 0.1.0. To begin level N + 1, after a release of level N:

1. Set `schema.VERSION` to N + 1, and run `make level`. It writes the messages of the
   new level to `replication/levels/level_(N + 1).binpb`; those of level N stay.
2. Add to log_entry.proto and to its classes, and run `make level` again. A new command
   or field needs nothing else: a node refuses to propose what level N cannot read.
3. A rule that decides otherwise than in level N compares `Applying.feature_level` with
   a constant of this module, so that replicas of both releases decide alike. The words
   of refusals and events are part of a rule: they are in the audit log and its hashes.
4. The tables of a level have its number, too. If they change, add the way there and
   back to `MIGRATIONS` of tables/formats.py. Write nothing that is new below the level.
5. When a commit with all of it is on main, name it in `BASELINES` of
   tests/compatibility/baseline.py, and keep its golden folder: see golden.py there.
"""

import sqlite3

from sparecode_node.statemachine.tables import meta, schema

FIRST = 1
"""The level of release 0.1.0, and of a state that has no other."""

NEWEST = schema.VERSION
"""
The level that this software knows.

A release that adds to the log or changes the tables raises it by one.
"""

MEMBERS_ARE_POWER = 2
"""
From this level on, only super administrators admit and remove members and rotate keys,
and admitting a member needs a second approver: a member has the key ring (P1, P3).
Rejecting a waiting request needs a permission.
"""

EXACT_APPROVALS = 2
"""
From this level on, a waiting request about an administrator is void as soon as that
administrator has changed. A change of another's link to a user waits, too (P3, I10).
Equal requests of one administrator are one request.
"""

REPEATED_SIGN_INS = 2
"""A repeated sign-in opens no session, and is refused alike for any content (Q1)."""

AUTHENTICATION_IDS = 2
"""
From here on, the events of a decision on a passcode name the id that the agent got (U1).
"""

EQUAL_REFUSALS = 2
"""Equal refusals of one minute share their audit events (U1)."""

SHARED_REQUESTS = 2
"""
The callers share the table of request ids (Q3).

Each has a share, changes that stop an attack have a reserve, and what was refused
before it was judged is not remembered.
"""

SNAPSHOTS_WITHOUT_DIGESTS = 2
"""Members that compare the digest of a snapshot with its manifest are gone."""

DURABLE_ROTATIONS = 2
"""A removal records that the ring's key is due, until a new one is active (P6)."""

DUE_AUTHORITIES = 2
"""
The state knows which members have had authorities' keys, and a removal records that
these authorities are due (P6a).
"""

MEMBER_KEYS = 2
"""
From this level on, the state has the public key of each member, and its renewed
certificate is for that key (P5a).
"""

CLIENT_WAITS = 2
"""From this level on, known clients of an administrator have counts of their own (L7)."""


PIN_BLOCKLIST = 2
"""From here on, the policy can turn off the blocklist of PINs (K2)."""

ALLOWANCES = 2
"""
From this level on, each administrator has an allowance of issued sets, and each user one
of unlocks (P3a).

A permit to issue is for the users of its tokens, too, and each token uses it once.
"""

STANDING_APPROVERS = 2
"""
From this level on, an approval counts only while its approver could approve, and a super
administrator whose own password was reset can still approve later (P3).
"""

REAUTHENTICATIONS = 2
"""
From this level on, changes of power need a password and a second factor that are at
most five minutes old (P7).
"""

SESSION_LIMITS = 2
"""
From this level on, every unused session ends after the policy's `session_idle`, and
those of super administrators end earlier (P2).
"""

PASSKEYS = 2
"""
From this level on, administrators have passkeys, and the policy can require a second
factor (P8).
"""

BROWSER_LOGINS = 2
"""From here on, an administrator can approve the sign-in of a program (P9)."""

DELAYED_RESETS = 2
"""From here on, a local reset waits for the policy's `reset_delay` (P4)."""


FREE_TIGHTENING = 2
"""From here on, a policy that allows fewer guesses counts no live codes (I6)."""


COUNTED_CODES = 2
"""
From here on, live codes are counted before a change of the policy is proposed, and apply
adds only those issued since: it answers nobody while it counts (I6).
"""


FOUND_UNUSED = 2
"""
From here on, the primary looks for values that are sealed with a key before it retires
the key, and apply only knows whether one came later (P5).
"""


UNIQUE_SEEDS = 2
"""From here on, a token is refused whose seed another token has (K5)."""


KNOWN_SECRETS = 2
"""
From here on, an administrator who saw or chose a token's seed or PIN, or assigned the
token, needs an approval to issue for it and to make it usable, without a time limit
(I10).
"""


UNJUDGED_PINS = 2
"""
From here on, the PIN before a code that is no longer live is not judged: it is neither
charged nor told, so such a code tells no PIN (A5).
"""


FORMER_CODES = 2
"""
From here on, the codes of all former sets of a user are recognized, as tags (A5).

Below, those of the newest sets are; older ones count as guesses.
"""


STEADY_REQUESTS = 2
"""
From here on, request ids age by the primary's monotonic time, too, so a clock that
jumps ahead forgets none (Q3).
"""


SKIPPED_ENTRIES = 2
"""
From here on, a majority of the members can skip an entry that stops the nodes (E3).
"""


RADIUS_CLIENTS = 2
"""From here on, agents can be RADIUS clients."""


HTTP_DOOR = 2
"""From here on, agents can call by HTTP: the audit log names the door of both steps."""


CHANNELS = 2
"""From here on, channels tell events to other systems (N1)."""


AUDIT_SEGMENTS = 2
"""From here on, old audit events are sealed, and leave the state (U1)."""


PERSONAL_NOTICES = 2
"""From here on, former addresses are kept, so that they hear of changes (N8)."""


STALE_REPEATS = 2
"""A repeat that names its user by a replaced tag is prepared again, not refused (Q1)."""


SEALED_CODES = 2
"""From here on, codes can go to their user by message (I13)."""


ALARMS = 2
"""From here on, users can say of a notice that it was not them (N9)."""

BRIEF_EVENTS = 2
"""
The event of a change of an allow list names its first users, and hashes all. Each text
of an event has a bound (U1).
"""


ETAGS = 2
"""From here on, a change can depend on what its caller was shown (P10)."""

SET_ENDS = 2
"""
From here on, users hear of sets that end by time (N6): of those that are issued from here
on, or whose token's end changes.
"""


MAYBE_SPENT = 2
"""
From here on, a restore and a reclaim record which time steps may have been spent by a
drift that is not known here (E1). HOTP tokens are out of step from the opening on.
"""


class FeatureLevelError(Exception):
    """The cluster has a level that this software does not know."""

    def __init__(self, level: int) -> None:
        super().__init__(
            f"the cluster has feature level {level}, and this software knows "
            f"{NEWEST}: install the release that the other members run"
        )


def read(db: sqlite3.Connection) -> int:
    """Return the level of a state. Raises `FeatureLevelError` for an unknown level."""
    level: int = meta.read(db, "feature_level", FIRST)
    if level > NEWEST:
        raise FeatureLevelError(level)
    return level


def raise_to(db: sqlite3.Connection, level: int) -> int:
    """
    Raise the level of a state and return it. The level never goes back.

    Raises `FeatureLevelError` for an unknown level. The members tell what they know, so
    no member causes this by mistake. The replica must stop: it cannot know what follows.
    """
    if level > NEWEST:
        raise FeatureLevelError(level)
    if level > read(db):
        meta.write(db, "feature_level", level)
    return read(db)


ATTEMPTS_OUTLAST_POLICIES = 2
"""
From here on, a change of the policy makes no attempt stale unless passcodes are read
otherwise under it (T2).
"""


MOVES = 2
"""
From here on, a restore keeps the ids that the cluster had: tickets of moves name them.
"""
