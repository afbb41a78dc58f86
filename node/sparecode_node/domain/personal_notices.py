# SPDX-License-Identifier: Apache-2.0
"""
Notices to people: what happens to a person's codes, tokens and accounts (N6).

A notice says what happened, and holds no code, PIN or link that signs in. So an attacker
gains nothing by reading it, and the person learns of what the attacker does.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.policy import HOUR_MS

COUNTED_MS = HOUR_MS
"""Notices of one kind to one person are counted for this long (N7)."""
PER_HOUR = 5
"""Maximum notices of one kind to one person in an hour; later ones are left out."""


class PersonalKind(enum.StrEnum):
    """What a notice tells a person. The values are in the state."""

    CODES_ISSUED = "codes_issued"
    TEST = "test"
    """Sent only by a test of the channel."""


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


PER_HOUR_OF: Mapping[PersonalKind, int] = {}
"""Kinds that a stranger can cause have a lower maximum."""


def per_hour(kind: PersonalKind) -> int:
    """Return the maximum notices of a kind to one person in an hour."""
    return PER_HOUR_OF.get(kind, PER_HOUR)
