# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients: agents that are known by their address and a shared secret."""

import json
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity, NameKey
from sparecode_node.domain.policy import DAY_MS

RADIUS_PREFIX = "radius:"
NETWORKS_MAX = 16
"""Maximum source networks of one RADIUS client."""
OVERLAP_MAX_MS = 30 * DAY_MS
"""The longest time for which a replaced secret still works: 30 days."""
REPLACED_SECRETS_MAX = 3
"""Maximum replaced secrets of one client that still work."""
SESSION_TIMEOUT_MAX_S = 2**31 - 1
TEXT_MAX = 128
"""Maximum characters of a text attribute."""
ATTRIBUTE_MAX = 253
"""The octets of an attribute's value (RFC 2865, 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptAttributes:
    """What an Access-Accept tells an agent, over RADIUS and RadSec."""

    filter_id: str = ""
    """Filter-Id; empty: none."""
    class_attribute: str = ""
    """Class; empty: none."""
    session_timeout_s: int = 0
    """Session-Timeout in seconds; 0: none."""

    def updated(
        self,
        *,
        filter_id: str | None,
        class_attribute: str | None,
        session_timeout_s: int | None,
    ) -> "AcceptAttributes":
        """Return the attributes with other values. None keeps a value."""
        return AcceptAttributes(
            filter_id=self.filter_id if filter_id is None else filter_id,
            class_attribute=self.class_attribute
            if class_attribute is None
            else class_attribute,
            session_timeout_s=self.session_timeout_s
            if session_timeout_s is None
            else session_timeout_s,
        )

    def changes_to(self, other: "AcceptAttributes") -> list[str]:
        """Return the attributes that have another value in *other*, in words."""
        timeout = f"{other.session_timeout_s} s" if other.session_timeout_s else "none"
        return [
            words
            for name, words in (
                ("filter_id", f"Filter-Id {_quoted(other.filter_id)}"),
                ("class_attribute", f"Class {_quoted(other.class_attribute)}"),
                ("session_timeout_s", f"Session-Timeout {timeout}"),
            )
            if getattr(self, name) != getattr(other, name)
        ]


def _quoted(value: str) -> str:
    """Return a value for the audit log; it may hold the signs that separate facts there."""
    return json.dumps(value, ensure_ascii=False) if value else "none"


NO_ATTRIBUTES = AcceptAttributes()


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusSettings:
    """What a RADIUS client may do."""

    networks: tuple[str, ...]
    """
    Its source addresses, as IPv4 and IPv6 networks in one spelling.

    No two clients have the same network; the most specific one that fits wins.
    """
    allow_unsigned: bool = False
    """Also answer requests without Message-Authenticator. Unsafe (CVE-2024-3596)."""
    allow_unsigned_proxied: bool = False
    """Also those with Proxy-State, which that attack needs."""
    unsigned_until_signed: bool = False
    """Only until a signed request has been judged (`auto`); see `requires_signatures`."""
    repeats_with_new_authenticator: bool = False
    """It repeats a request to the next server under a new identifier (pam_radius)."""
    prompts_for_passcode: bool = False
    """A signed request with an empty password gets a challenge that asks for one."""


def radius_identity(name_key: NameKey) -> AgentIdentity:
    """Return the identity of the RADIUS client with this folded name."""
    return AgentIdentity(f"{RADIUS_PREFIX}{name_key}")
