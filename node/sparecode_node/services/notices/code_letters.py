# SPDX-License-Identifier: Apache-2.0
"""The mail with the link to sealed codes (I13). It holds no code and no PIN."""

import datetime as dt
from collections.abc import Sequence

from babel import Locale
from babel.dates import format_datetime

from sparecode_node.domain.users import User
from sparecode_node.services.notices.letters import (
    Letter,
    best_language,
    catalogue_of,
    environment,
)


def write_code_letter(
    user: User,
    *,
    serial: str,
    links: Sequence[str],
    ends_at_ms: int,
    contact: str,
) -> Letter:
    """
    Write the mail. Raises `TemplateError` for a broken template.

    *links*: of all consoles, the preferred one first; each opens the same codes.
    """
    language = best_language(user.language)
    locale = Locale.parse(language, sep="-")
    texts = catalogue_of(language)
    subject = texts.gettext("Your emergency codes are ready")
    values = {
        "_": texts.gettext,
        "language": language,
        "direction": locale.text_direction,
        "subject": subject,
        "greeting": texts.gettext("Hello %(person)s,")
        % {"person": user.display_name or user.username},
        "serial": serial,
        "links": links,
        "ends": format_datetime(
            dt.datetime.fromtimestamp(ends_at_ms / 1000, tz=dt.UTC),
            "long",
            tzinfo=dt.UTC,
            locale=locale,
        ),
        "contact": contact,
    }
    return Letter(
        subject=subject,
        text=environment().get_template("codes.txt").render(values),
        html=environment().get_template("codes.html").render(values),
        language=language,
    )
