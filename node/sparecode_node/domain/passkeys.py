# SPDX-License-Identifier: Apache-2.0
"""
Passkeys of administrators: a second factor that a false page cannot use (P8).

A passkey is a key pair on a device. The browser gives it the address of the page, and
the signed answer names that address. The called node checks the answer; apply decides
whether it is new.
"""

import enum
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.policy import MINUTE_MS, FactorRule

PASSKEYS_MAX = 10
"""Maximum passkeys of one administrator."""
PASSKEY_CHALLENGE_MS = 2 * MINUTE_MS
"""How long a browser can answer a challenge."""
LABEL_MAX = 64


class ShownFactor(enum.StrEnum):
    """The second factor that a session has shown. The values are in the tables."""

    NONE = ""
    CODE = "code"
    PASSKEY = "passkey"

    def satisfies(self, rule: FactorRule) -> bool:
        """Return whether a session that has shown this factor may do more than set one."""
        match rule:
            case FactorRule.OPTIONAL:
                return True
            case FactorRule.ANY:
                return self is not ShownFactor.NONE
            case FactorRule.PASSKEY:
                return self is ShownFactor.PASSKEY


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyAnswer:
    """
    An answer that the called node has checked: signature, address, user verification.

    Apply decides about the rest, once in the cluster. An answer that the node did not
    accept has no credential.
    """

    credential_id: bytes = b""
    sign_count: int = 0
    challenge_id: str = ""
    challenge_ends_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A registered passkey. Only its public key is known."""

    credential_id: bytes
    administrator: AdministratorName
    label: str
    """Its owner's name for the device."""
    public_key: bytes
    """A COSE key (RFC 9052)."""
    sign_count: int
    """The last count of uses that the device stated; 0: it states none."""
    added_at_ms: int
    used_at_ms: int | None = None

    def used(self, sign_count: int, now_ms: int) -> "Passkey | None":
        """
        Return the passkey after a use; None if its count did not grow.

        Then a copy of the key may be in use (Web Authentication, section 6.1.1). Synced
        passkeys state no count.
        """
        if (sign_count or self.sign_count) and sign_count <= self.sign_count:
            return None
        return replace(self, sign_count=sign_count, used_at_ms=now_ms)


def is_within(host: str, domain: str) -> bool:
    """Return whether a console at *host* can use the passkeys of *domain*."""
    return host == domain or host.endswith(f".{domain}")
