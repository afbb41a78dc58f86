# SPDX-License-Identifier: Apache-2.0
"""
What callers keep sealed and return, so that any node can go on (`sealing`).

Nothing of it is in the state until a call returns it.
"""

from dataclasses import dataclass, field

from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    SetId,
    TokenSerial,
    UserId,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The draft of a generated set, to be saved (I3). Holds verifiers, never codes."""

    draft_id: str
    administrator: AdministratorName
    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    ends_at_ms: int
    verifiers: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactorDraft:
    """A second factor that is not in force until a code confirms it."""

    administrator: AdministratorName
    seed: bytes = field(repr=False)
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFileDraft:
    """A file of tokens between the page with its rows and their import (K4)."""

    administrator: AdministratorName
    form: str
    content: str = field(repr=False)
    password: str = field(repr=False)
    key: str = field(repr=False)
    """Hexadecimal."""
    pin_rule: str
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCookie:
    """What a device cookie shows: an administrator has signed in from a device (L7)."""

    administrator: AdministratorName
    device: str
    credential: str
    """Identifies the password; a new password makes the cookie void."""
    made_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyChallenge:
    """What the browser signs with a passkey, so that an answer serves once (P8)."""

    challenge_id: str
    purpose: str
    """A `Purpose` of `passkey_checks`."""
    browser: str
    """The hash of the secret that the asking browser keeps: of its session or visit."""
    ends_at_ms: int
