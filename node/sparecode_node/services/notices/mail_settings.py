# SPDX-License-Identifier: Apache-2.0
"""The settings that only a channel for mail has, and their bounds (N6)."""

from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from sparecode_node.domain.notices import ChannelKind
from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.notices.addresses import CLEARTEXT

CONTACT_MAX = 200
LOGIN_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """What mails are from, and what all of them say."""

    sender: str
    """The address that mails are from."""
    login: str
    """The name at the mail server; empty: the nodes do not sign in."""
    contact: str
    """How people reach the help desk, in words."""


def check_mail(
    kind: ChannelKind, address: str, settings: MailSettings, *, has_password: bool
) -> None:
    """Refuse settings that cannot be used. Raises `InvalidFieldError`."""
    named = asdict(settings)
    if kind is not ChannelKind.MAIL:
        for name, value in named.items():
            if value:
                raise InvalidFieldError(name, f"must be empty: a {kind} has none")
        return
    if not named["sender"].isascii():
        raise InvalidFieldError("sender", "must be in ASCII: any server must take it")
    fields.email(named["sender"], "sender")
    if not named["sender"]:
        raise InvalidFieldError("sender", "must be the address that mails are from")
    fields.text("login", named["login"], at_most=LOGIN_MAX)
    fields.text("contact", named["contact"], at_least=1, at_most=CONTACT_MAX)
    if not named["login"]:
        return
    if urlsplit(address).scheme == CLEARTEXT:
        raise InvalidFieldError(
            "login", "must be empty: a password is never sent in clear text"
        )
    if not has_password:
        raise InvalidFieldError("secret", "must be the password of the login")
