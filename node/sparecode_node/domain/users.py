# SPDX-License-Identifier: Apache-2.0
"""Users: people who sign in with tokens."""

import unicodedata
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import FIRST_KEY, KeyId, NameKey, UserId

USERNAME_LENGTH_MAX = 128
LANGUAGE_LENGTH_MAX = 35
"""Room for every tag of BCP 47 (RFC 5646, section 4.4.1)."""

NEW_USER = 1
"""The `auth_version` of a user who never had a token."""


def fold(name: str) -> NameKey:
    """
    Return the key of a name: equal names have equal keys.

    Apply NFKC and casefold until neither changes anything, since each can undo the
    other (Unicode, 3.13, "compatibility caseless match"). Strip spaces around the name.
    """
    folded = name
    while (again := _folded_once(folded)) != folded:
        folded = again
    return NameKey(folded)


def _folded_once(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who signs in with tokens."""

    user_id: UserId
    username: str
    name_key: NameKey
    name_tag: bytes
    """Keyed hash of the name key; authentication looks the user up by it (A6)."""
    display_name: str
    email: str
    enabled: bool
    auth_version: int
    """Raised by every change of the user's PINs, tokens, sets, salts or keys (T2)."""
    pin_salt: bytes
    code_salt: bytes
    tag_key_id: KeyId = FIRST_KEY
    """Key of the ring that the name tag was made with."""
    language: str = ""
    """Of what is written for the user, a tag of BCP 47; empty: not known."""
    manager_email: str = ""
    """The address of the user's manager; empty: none is on file."""
    email_since_ms: int = 0
    """When the address was last set, changed or removed; 0: long ago."""
    manager_since_ms: int = 0
    """The same, of the manager's address."""

    def changed(self) -> "User":
        """Return the user with the next version: candidates made for it become stale."""
        return replace(self, auth_version=self.auth_version + 1)
