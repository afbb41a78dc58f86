# SPDX-License-Identifier: Apache-2.0
"""
Etags: what an update method replaces, as a short hash (RFC 9110, 8.8.3; AIP-154).

Apply compares them, so what they cover is a rule of the feature level. Lists to which
an update adds and from which it removes are not covered: no update overwrites them.
"""

import dataclasses
import hashlib
import json
from typing import Final

USER: Final = ("display_name", "email", "enabled", "language", "manager_email")
TOKEN: Final = ("expires_at_ms",)
ADMINISTRATOR: Final = ("role", "enabled")
AGENT: Final = ("protects", "enabled", "restricted")
CHANNEL: Final = ("version",)
"""It also rises when a node disables the channel, or the secret is another one."""


def etag(record: object, names: tuple[str, ...] = (), *more: object) -> str:
    """Return the etag of fields of a record, and of more values; empty: no record."""
    if record is None:
        return ""
    values = [*(getattr(record, name) for name in names), *more]
    text = json.dumps(values, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
