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
    to_manager: bool = False,
) -> Letter:
    """
    Write the mail. May raise any error, and its words may quote a link: see `guarded`.

    *links*: of all consoles, the preferred one first; each opens the same codes.
    *to_manager*: the user's manager reads it, in the user's language as other notices.
    """
    language = best_language(user.language)
    locale = Locale.parse(language, sep="-")
    texts = catalogue_of(language)
    named = {"person": user.display_name or user.username}
    subject = texts.gettext("Your emergency codes are ready")
    if to_manager:
        subject = texts.gettext("To the manager: emergency codes are ready")
    values = {
        "_": texts.gettext,
        "language": language,
        "direction": locale.text_direction,
        "subject": subject,
        "greeting": texts.gettext("Hello,")
        if to_manager
        else texts.gettext("Hello %(person)s,") % named,
        "happened": texts.gettext(
            "The help desk has issued emergency codes for a token of %(person)s. Each "
            "stands in for the token once. You get them as the manager of %(person)s."
        )
        % named
        if to_manager
        else texts.gettext(
            "The help desk has issued emergency codes for your token. Each stands in for "
            "the token once."
        ),
        "handing": texts.gettext(
            "Give the codes to %(person)s in person, and to no one else."
        )
        % named
        if to_manager
        else "",
        "warning": texts.gettext(
            "Do not forward this mail: the first one to open the page gets the codes. If "
            "%(person)s has not asked for codes, or the page says that they were opened "
            "before, tell the help desk at once:"
        )
        % named
        if to_manager
        else texts.gettext(
            "Do not forward this mail: the first one to open the page gets the codes. If "
            "you have not asked for codes, or the page says that they were opened before, "
            "tell the help desk at once:"
        ),
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
