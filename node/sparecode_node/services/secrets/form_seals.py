# SPDX-License-Identifier: Apache-2.0
"""
A form that is kept while its administrator signs in.

Any node can open it, and a restored cluster opens none. The browser holds both the seal
and the secret that it is sealed for, in a cookie: nobody else can make or use either.
"""

import base64
import binascii
import hashlib
from dataclasses import asdict, dataclass, field
from typing import Final

from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing

KEPT_FORM: Final = "kept-form"
TEXT_MAX: Final = 32 * 1024
"""A longer form is not kept: the sign-in form has to hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptForm:
    """The fields of the form of emergency access, and the token that it is about."""

    serial: str
    fields: tuple[tuple[str, str], ...] = field(repr=False)
    ends_at_ms: int


class FormSeals(Sealing):
    """Adds to the seals what only forms that are kept need."""

    def seal_form(self, form: KeptForm, browser: str) -> str:
        """Return the form, sealed for the browser that holds the secret *browser*."""
        sealed = self._seal(KEPT_FORM, {**asdict(form), "browser": _hash(browser)})
        return base64.urlsafe_b64encode(sealed).decode()

    def unseal_form(self, text: str, browser: str) -> KeptForm | None:
        """Return the form; None: no member has sealed it for this browser."""
        try:
            sealed = base64.b64decode(text, altchars=b"-_", validate=True)
            content = self._unseal(KEPT_FORM, sealed)
            if not browser or content.pop("browser") != _hash(browser):
                return None
            fields = tuple((name, value) for name, value in content.pop("fields"))
            return KeptForm(**content, fields=fields)
        except (BrokenSealError, binascii.Error, KeyError, TypeError, ValueError):
            # `KeyError` and `TypeError`: another release may have other fields.
            return None


def _hash(browser: str) -> str:
    return hashlib.sha256(browser.encode(errors="replace")).hexdigest()
