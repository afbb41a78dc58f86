# SPDX-License-Identifier: Apache-2.0
"""
What the links of notices hold, by which users say that it was not them (N9).

Any node can open it, and a restored cluster opens none. It is deterministic, so a mail
that is sent again has the same link.
"""

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Final

from sparecode_node.domain.ids import UserId
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing

ALARM_LINK: Final = "alarm-link"
TEXT_MAX = 1024
"""A longer text is of no link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmLink:
    """Which notice to which user a link is about."""

    user_id: UserId
    notice_id: str
    kind: str
    """What the notice tells."""
    told_at_ms: int
    """When that happened."""


class AlarmSeals(Sealing):
    """Adds to the seals what only the links of notices need."""

    def seal_link(self, link: AlarmLink) -> str:
        """Return the token of a link."""
        sealed = self._seal(ALARM_LINK, asdict(link))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def unseal_link(self, token: str) -> AlarmLink | None:
        """Return what a token is about; None: no member of this cluster made it."""
        if not token or len(token) > TEXT_MAX:
            return None
        try:
            sealed = base64.b64decode(
                token + "=" * (-len(token) % 4), altchars=b"-_", validate=True
            )
            return AlarmLink(**self._unseal(ALARM_LINK, sealed))
        except (BrokenSealError, binascii.Error, TypeError, ValueError):
            # `TypeError`: a later release may add a field.
            return None
