# SPDX-License-Identifier: Apache-2.0
"""What stands in a user's way, on pages: each obstacle with a link to its remedy."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from sparecode_node.console.kit import languages, rendering
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.token_menu import TURN_OFF
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.people.explanations import (
    METHOD,
    ExplainedBlocker,
    UserExplanation,
)

May = Callable[[str], bool]

_REMEDIES = {
    Reason.TOKEN_DISABLED: ("enable", N_("Enable"), "TokenService/EnableToken"),
    Reason.TOKEN_EXPIRED: ("replace", N_("Replace"), "TokenService/ReplaceToken"),
    Reason.TOKEN_NOT_ASSIGNED: ("assign", N_("Assign"), "TokenService/AssignToken"),
    Reason.PIN_NOT_SET: ("set-pin", N_("Set PIN"), "TokenService/SetPin"),
    Reason.TOKEN_OUT_OF_STEP: (
        "resynchronize",
        N_("Resynchronize"),
        "TokenService/ResynchronizeToken",
    ),
    Reason.RECOVERED_TOKEN_REFUSED: (
        "reinstate",
        N_("Token is back"),
        TURN_OFF,
    ),
}
"""The page of a token that removes an obstacle, its link, and its method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing in the way, for a page."""

    words: Markup | str
    remedy: str = ""
    """The address of the page that removes it; empty: the role may not, or there is none."""
    link: str = ""
    """The words of that link."""
    advice: str = ""
    """What to do, if there is no link."""
    is_lock: bool = False
    concerns_codes: bool = False
    """Whether it stands in the way of emergency codes, at every agent or at some."""


async def of_user(visit: Visit, username: str) -> UserExplanation:
    """Return why a user is, or was, refused."""
    return await visit.read(
        METHOD,
        lambda call, stale_ok: visit.site.services.explanations.explain(
            call, username, stale_ok=stale_ok
        ),
    )


async def of_token(visit: Visit, serial: str) -> UserExplanation:
    """Return what stands in the way of a token, and its user's attempts."""
    return await visit.read(
        METHOD,
        lambda call, stale_ok: visit.site.services.explanations.explain_token(
            call, serial, stale_ok=stale_ok
        ),
    )


def obstacles(visit: Visit, explanation: UserExplanation) -> list[Obstacle]:
    """Return the obstacles of a user, each with the remedy that the role may use."""
    codes_stopped = any(each.stops_codes for each in explanation.blockers)
    return [
        _obstacle(visit, each, explanation.username, codes_stopped=codes_stopped)
        for each in explanation.blockers
    ]


def _obstacle(
    visit: Visit, blocker: ExplainedBlocker, username: str, *, codes_stopped: bool
) -> Obstacle:
    remedy, link = _remedy(visit.may, blocker, username)
    words = _words(blocker)
    if blocker.factor == Factor.TOKEN and not codes_stopped:
        # Tokencodes are not the emergency access tokencodes, which sound alike.
        words += " " + _("Emergency codes, if the user has any, are not locked.")
    return Obstacle(
        words=words,
        remedy="" if remedy == visit.path else remedy,
        link=link,
        advice="" if remedy and remedy != visit.path else blocker.next_step,
        is_lock=blocker.reason == Reason.LOCKED and blocker.stops_codes,
        concerns_codes=blocker.stops_codes or bool(blocker.agents),
    )


def _words(blocker: ExplainedBlocker) -> Markup | str:
    """Return what stands in the way, in the language of the page."""
    reason, serial = Reason(blocker.reason), blocker.serial
    if reason is Reason.LOCKED and blocker.factor:
        return _lock(blocker)  # Its time is shown in the browser's time zone.
    if reason is Reason.TOKEN_EXPIRED and blocker.since_ms is not None:
        return _(
            "Token %(serial)s expired on %(time)s, and its codes ended with it.",
            serial=serial,
            time=rendering.time(blocker.since_ms),
        )
    if reason is Reason.TOKENCODE_MAYBE_SPENT and blocker.ends_at_ms is not None:
        return _(
            "Until %(time)s, each sign-in with token %(serial)s takes two tokencodes in "
            "a row: this cluster was restored, or took the user back, and does not know "
            "how the token was used before.",
            serial=serial,
            time=rendering.time_of_day(blocker.ends_at_ms),
        )
    if languages.current() == languages.ENGLISH:
        return blocker.words
    if reason is Reason.USER_NOT_ALLOWED:
        return _(
            "The allow lists of these agents exclude the user: %(agents)s.",
            agents=", ".join(blocker.agents),
        )
    words = {
        Reason.USER_DISABLED: _("The user is disabled: every passcode is refused."),
        Reason.TOKEN_NOT_ASSIGNED: (
            _("Token %(serial)s is not assigned to a user.", serial=serial)
            if serial
            else _("The user has no token.")
        ),
        Reason.TOKEN_DISABLED: _(
            "Token %(serial)s is disabled, and so are its codes.", serial=serial
        ),
        Reason.PIN_NOT_SET: _(
            "Token %(serial)s needs a PIN and has none.", serial=serial
        ),
        Reason.TOKEN_OUT_OF_STEP: _(
            "Token %(serial)s needs to be resynchronized.", serial=serial
        ),
        Reason.RECOVERED_TOKEN_REFUSED: _(
            "Token %(serial)s counts as lost: its tokencodes are refused.",
            serial=serial,
        ),
    }
    return words.get(reason) or _(blocker.words)


def _lock(blocker: ExplainedBlocker) -> Markup | str:
    failures = rendering.count(blocker.failures, "wrong passcode")
    what = _("Tokencodes") if blocker.factor == Factor.TOKEN else _("Emergency codes")
    if blocker.ends_at_ms is None:
        return _(
            "%(what)s are locked after %(failures)s, until an administrator unlocks "
            "the user.",
            what=what,
            failures=failures,
        )
    return _(
        "%(what)s are locked until %(time)s after %(failures)s.",
        what=what,
        time=rendering.time_of_day(blocker.ends_at_ms),
        failures=failures,
    )


def _remedy(may: May, blocker: ExplainedBlocker, username: str) -> tuple[str, str]:
    """Return address and words of the link; both empty: the role may not use it."""
    reason = Reason(blocker.reason)
    person = f"/users/{quote(username, safe='')}"
    if reason is Reason.LOCKED and may("UserService/UnlockUser"):
        return person, _("Unlock")
    if reason is Reason.USER_DISABLED and may("UserService/UpdateUser"):
        return person, _("Enable the user")
    if reason is Reason.USER_NOT_ALLOWED and may("AgentService/UpdateAgent"):
        return "/agents", _("Agents")
    action, words, method = _REMEDIES.get(reason, ("", "", ""))
    if action and blocker.serial and may(method):
        return f"/tokens/{quote(blocker.serial, safe='')}/{action}", _(words)
    return "", ""
