# SPDX-License-Identifier: Apache-2.0
"""
The form of emergency access, kept while its administrator signs in.

It is the one that is filled in while a user waits on the telephone, and gives no power
over the cluster. All other forms start again after the sign-in.
"""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.security import (
    KEPT_COOKIE,
    Origin,
    forget_cookie,
    form_token,
    set_cookie,
)
from sparecode_node.console.kit.visits import CARRY, Visit
from sparecode_node.console.pages import emergency_form
from sparecode_node.domain.policy import MINUTE_MS, SECOND_MS
from sparecode_node.services.secrets.form_seals import TEXT_MAX, KeptForm

LIFETIME_MS: Final = 10 * MINUTE_MS
SECRET_BYTES: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A form on its way over the sign-in page."""

    text: str
    browser: str
    """The secret for this browser's cookie."""

    def remember(self, response: Response) -> None:
        """Give the browser the secret, without which nobody can send the form."""
        set_cookie(
            response, KEPT_COOKIE, self.browser, max_age_s=LIFETIME_MS // SECOND_MS
        )


def seal(visit: Visit) -> Seal | None:
    """Return the submitted form, sealed for this browser; None: it is not kept."""
    is_ours = visit.origin is Origin.HERE or (
        visit.origin is Origin.CONSOLE and visit.form.text("action") == CARRY
    )
    if not (visit.is_form and is_ours and visit.route == emergency_form.ROUTE):
        return None
    serial = visit.request.path_params["serial"]
    if not emergency_form.kept_words(serial, visit.form):
        return None
    browser = visit.site.entropy.token_bytes(SECRET_BYTES).hex()
    form = KeptForm(
        serial=serial,
        fields=tuple(
            each for each in visit.form.pairs if each[0] in emergency_form.KEPT
        ),
        ends_at_ms=visit.site.clock.now_ms() + LIFETIME_MS,
    )
    text = visit.site.services.form_seals.seal_form(form, browser)
    return Seal(text=text, browser=browser) if len(text) <= TEXT_MAX else None


def continue_page(visit: Visit, text: str, bearer: str) -> Response | None:
    """
    Return the page that shows the kept form, to be sent by its administrator.

    Return None if the form was not sealed for this browser, or more than ten minutes ago.
    """
    browser = visit.request.cookies.get(KEPT_COOKIE, "")
    kept = visit.site.services.form_seals.unseal_form(text, browser)
    if kept is None or kept.ends_at_ms <= visit.site.clock.now_ms():
        return None
    form = Form(list(kept.fields))
    response = visit.page(
        "continue.html",
        serial=kept.serial,
        words=emergency_form.kept_words(kept.serial, form),
        facts=emergency_form.facts(form),
        codes=emergency_form.submitted(form).codes,
        fields=form.pairs,
        form_token=form_token(bearer),
    )
    forget_cookie(response, KEPT_COOKIE)
    return response
