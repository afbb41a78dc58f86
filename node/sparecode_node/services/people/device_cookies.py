# SPDX-License-Identifier: Apache-2.0
"""
Device cookies: a client shows that its administrator has signed in from it before (L7).

A known device has a count of wrong passwords of its own, so strangers cannot lock its
administrator out. See OWASP, "Slow Down Online Guessing Attacks with Device Cookies".

A cookie is a seal that any node can open: it holds the administrator's name, the id of
the device, the time, and a mark of the password. It does not sign anyone in. It is
void for another name, after 90 days, with another password, under a retired key, and in
a restored cluster. Nothing is stored for it, only for wrong passwords from its device.
"""

import base64
import binascii
import hashlib
import hmac

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.sign_in_waits import DEVICE_COOKIE_MS
from sparecode_node.queries import administrators
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.secrets.sealed_values import DeviceCookie
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing

TEXT_MAX = 1024
"""A longer text is no device cookie."""
DEVICE_BYTES = 16
CREDENTIAL_CHARACTERS = 32


class DeviceCookies:
    """Makes and opens device cookies."""

    def __init__(self, *, sealing: Sealing, clock: Clock, entropy: Entropy) -> None:
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy

    def make(self, administrator: AdministratorName, salt: bytes) -> str:
        """
        Return a cookie for an administrator who has just signed in.

        *salt*: of the password. Each cookie is a new device: a stolen copy shares no
        count with the cookie that replaces it.
        """
        cookie = DeviceCookie(
            administrator=administrator,
            device=self._entropy.token_bytes(DEVICE_BYTES).hex(),
            credential=_credential(salt),
            made_at_ms=self._clock.now_ms(),
        )
        sealed = self._sealing.seal_device_cookie(cookie)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, text: str, administrator: AdministratorName) -> DeviceCookie | None:
        """Return the cookie; None if it is another administrator's, too old, or broken."""
        if not text or len(text) > TEXT_MAX:
            return None
        try:
            sealed = base64.b64decode(
                text + "=" * (-len(text) % 4), altchars=b"-_", validate=True
            )
            cookie = self._sealing.unseal_device_cookie(sealed)
        except (BrokenSealError, binascii.Error, TypeError, ValueError):
            # `TypeError`: a later release may add a field.
            return None
        age_ms = self._clock.now_ms() - cookie.made_at_ms
        if cookie.administrator != administrator or age_ms >= DEVICE_COOKIE_MS:
            return None
        return cookie

    async def known(
        self, transaction: ReadTransaction, text: str, administrator: AdministratorName
    ) -> DeviceCookie | None:
        """
        Return the known device of a cookie; None if the cookie is void.

        A void cookie, such as one of an earlier password, gets the strangers' rate. No
        stranger can make a cookie that opens, so this read shows no one which names exist.
        """
        device = self.open(text, administrator)
        if device is None:
            return None
        current = await administrators.password_parameters(transaction, administrator)
        if current is None or not is_for_password(device, current.salt):
            return None
        return device


def is_for_password(cookie: DeviceCookie, salt: bytes) -> bool:
    """Return whether the cookie was made for the password with this salt."""
    return hmac.compare_digest(cookie.credential, _credential(salt))


def _credential(salt: bytes) -> str:
    """Return the mark of a password: each new password has a new random salt."""
    return hashlib.sha256(salt).hexdigest()[:CREDENTIAL_CHARACTERS]
