# SPDX-License-Identifier: Apache-2.0
"""
Previews of notices to people, with example data.

The HTML of a mail is shown in a frame without scripts, forms, links to elsewhere, or
access to the page: whatever a template holds acts on nothing (`kit/security`).
"""

from typing import Final
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.languages import languages as known_languages
from sparecode_node.console.kit.notice_kinds import NOTICE_KINDS
from sparecode_node.console.kit.security import LETTER_PATH
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind
from sparecode_node.services.notices.letters import languages
from sparecode_node.services.notices.previews import NoticePreview

METHOD: Final = "NoticeService/PreviewNotices"
LETTER: Final = LETTER_PATH


async def show(visit: Visit) -> Response:
    """Show the mail of a kind of notice, as text and as HTML."""
    visit.require(METHOD)
    preview = await _preview(visit)
    named = known_languages()
    return visit.page(
        "previews.html",
        preview=preview,
        kinds={each.value: words for each, words in NOTICE_KINDS.items()},
        tongues={tag: named.get(tag, tag) for tag in languages()},
        recipients={"": _("The person"), "manager": _("The manager")},
        recipient="manager" if _to_manager(visit) else "",
        letter=f"{LETTER}?{urlencode(_chosen(visit))}",
    )


async def letter(visit: Visit) -> Response:
    """Return the HTML of a mail, for the frame of the page."""
    visit.require(METHOD)
    return HTMLResponse((await _preview(visit)).html)


async def _preview(visit: Visit) -> NoticePreview:
    chosen = _chosen(visit)
    found = await visit.read(
        METHOD,
        lambda call, stale_ok: visit.site.services.notice_previews.write(
            call,
            kind=chosen["kind"],
            language=chosen["tongue"],
            to_manager=bool(chosen["recipient"]),
            stale_ok=stale_ok,
        ),
    )
    return found[0]


def _chosen(visit: Visit) -> dict[str, str]:
    """Return what is shown: the first kind, unless the address names another one."""
    kind, tongue = visit.query.word("kind"), visit.query.word("tongue")
    return {
        "kind": kind if kind in set(PersonalKind) else PersonalKind.CODES_ISSUED.value,
        "tongue": tongue if tongue in languages() else "en",
        "recipient": "manager" if _to_manager(visit) else "",
    }


def _to_manager(visit: Visit) -> bool:
    kind = visit.query.word("kind") or PersonalKind.CODES_ISSUED
    return visit.query.word("recipient") == "manager" and kind in KINDS_OF_USERS
