# SPDX-License-Identifier: Apache-2.0
"""
Forms that are kept while their administrator signs in, for one browser.

A form is kept only if this table has its page and what its button does: the others start
again after the sign-in. A field that the table does not name is left out.
"""

from collections.abc import Callable, Mapping
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
from sparecode_node.console.kit.visits import CARRY, Visit, route_of
from sparecode_node.console.pages import emergency_form, users
from sparecode_node.domain.policy import MINUTE_MS, SECOND_MS
from sparecode_node.services.secrets.form_seals import TEXT_MAX, KeptForm

LIFETIME_MS: Final = 10 * MINUTE_MS
SECRET_BYTES: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What is kept of the forms of one page."""

    fields: frozenset[str]
    """The fields that are sent on; none is a secret."""
    words: Callable[[Mapping[str, str], Form], str]
    """Return what sending the form does, from its path and its fields; empty: keep none."""
    facts: Callable[[Form], list[tuple[str, str]]]
    """Return the values that a person reads before sending the form, with labels."""


KEEPERS: Final = {
    emergency_form.ROUTE: Keeper(
        fields=emergency_form.KEPT,
        words=emergency_form.kept_words,
        facts=emergency_form.facts,
    ),
    "/new/user": Keeper(
        fields=frozenset({*users.LABELS, "request_id"}),
        words=users.kept_words,
        facts=users.facts,
    ),
}
"""By route."""


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
    keeper = KEEPERS.get(visit.route)
    if not visit.is_form or not is_ours or keeper is None:
        return None
    if not keeper.words(visit.request.path_params, visit.form):
        return None
    browser = visit.site.entropy.token_bytes(SECRET_BYTES).hex()
    fields = tuple(each for each in visit.form.pairs if each[0] in keeper.fields)
    text = visit.site.services.form_seals.seal_form(
        KeptForm(
            path=visit.path,
            fields=fields,
            ends_at_ms=visit.site.clock.now_ms() + LIFETIME_MS,
        ),
        browser,
    )
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
    route, parameters = route_of(visit.request, kept.path, "POST")
    keeper = KEEPERS.get(route)
    if keeper is None:
        return None
    response = visit.page(
        "continue.html",
        to=kept.path,
        words=keeper.words(parameters, form),
        facts=keeper.facts(form),
        codes=emergency_form.submitted(form).codes,
        fields=form.pairs,
        form_token=form_token(bearer),
    )
    forget_cookie(response, KEPT_COOKIE)
    return response
