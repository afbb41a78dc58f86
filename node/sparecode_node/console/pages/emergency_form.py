# SPDX-License-Identifier: Apache-2.0
"""The values of the form of emergency access: suggested, submitted, and their meaning."""

from dataclasses import dataclass, field
from typing import Final

from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.lifetime import suggested_end
from sparecode_node.console.kit.recovery import RECOVERY
from sparecode_node.console.kit.rendering import count
from sparecode_node.console.kit.visits import CARRY, Visit
from sparecode_node.console.pages import sheet_files
from sparecode_node.console.pages.emergency_subject import Subject
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.services.emergency.emergency_access import (
    Lifetime,
    SetTerms,
    ShownCode,
)
from sparecode_node.services.errors import InvalidFieldError

ROUTE: Final = "/tokens/{serial}/emergency-access"
CHOICES: Final = {
    "keep": N_("Keep the unused codes issued earlier"),
    "weaken": N_("Replace “Deny authentication with token” with a weaker option"),
    "unlock": N_("Unlock as well, when I save"),
}
KEPT: Final = frozenset(
    {
        *("action", "request_id", "unlock_id", "draft", "draft_ends_at_ms", "code"),
        *("online", "kind", "count", "recovery", "reinstate", *CHOICES),
        *("lifetime", "expires_date", "expires_time", "expires_zone"),
    }
)
"""What is kept of the form while its administrator signs in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormValues:
    """The form's values: submitted or suggested."""

    online: bool
    kind: str
    count: str
    lifetime: str
    expires_date: str
    expires_time: str
    expires_zone: str
    recovery: str
    keep: bool
    weaken: bool
    reinstate: bool
    unlock: bool
    unlock_id: str
    """The request id of the unlocking: sent twice, it is applied once (Q1)."""
    request_id: str
    unlocked: str = ""
    """What became of the unlocking, in words."""
    replacing: bool = False
    """Whether to ask before new codes replace those on the page."""
    stranding: bool = False
    """Whether to ask before the user is left without a way to sign in."""
    days: int = 0
    """Days of the suggested lifetime; see `SuggestedEnd`."""
    draft: str = field(default="", repr=False)
    draft_ends_at_ms: int = 0
    codes: tuple[ShownCode, ...] = ()


def is_unsaved(visit: Visit, values: FormValues) -> bool:
    """Return whether the page has codes that can still be saved."""
    return bool(values.codes and values.draft) and (
        values.draft_ends_at_ms > visit.site.clock.now_ms()
    )


def suggested(visit: Visit, subject: Subject) -> FormValues:
    """Return the form's values at the first visit."""
    policy = subject.policy
    ends = suggested_end(policy, visit.site.clock.now_ms())
    lost = subject.access.lost
    return FormValues(
        online=True,
        kind="set",
        count=str(policy.codes_per_set_default),
        lifetime="until",
        expires_date=f"{ends.at:%Y-%m-%d}",
        expires_time=f"{ends.at:%H:%M}",
        expires_zone="UTC",
        days=ends.days,
        recovery=(subject.access.recovery if lost else RecoveryPolicy.DENY).value,
        keep=False,
        weaken=False,
        reinstate=False,
        unlock=False,
        unlock_id=visit.new_id(),
        request_id=visit.new_id(),
    )


def submitted(form: Form) -> FormValues:
    """Return the values of a submitted form."""
    ends = form.text("draft_ends_at_ms")
    return FormValues(
        online=form.flag("online"),
        kind=form.text("kind", "set"),
        count=form.text("count"),
        lifetime=form.text("lifetime", "never"),
        expires_date=form.text("expires_date"),
        expires_time=form.text("expires_time"),
        expires_zone=form.text("expires_zone", "UTC"),
        recovery=form.text("recovery"),
        keep=form.flag("keep"),
        weaken=form.flag("weaken"),
        reinstate=form.flag("reinstate"),
        unlock=form.flag("unlock"),
        unlock_id=form.text("unlock_id"),
        request_id=form.text("request_id"),
        draft=form.text("draft"),
        draft_ends_at_ms=int(ends) if ends.isascii() and ends.isdecimal() else 0,
        codes=sheet_files.codes_in(form),
    )


def kept_words(serial: str, form: Form) -> str:
    """Return what sending the form does; empty: it must not outlive its session."""
    values, action = submitted(form), form.text("action")
    if action in ("generate", "replace"):
        return _("Generate codes for token %(serial)s", serial=serial)
    if action == CARRY:
        return _("Show the codes for token %(serial)s, to be saved", serial=serial)
    if action in ("off", "off-and-reinstate") or not values.online:
        return _("Turn off emergency access of token %(serial)s", serial=serial)
    if values.kind == "fixed":
        return _("Issue a fixed tokencode for token %(serial)s", serial=serial)
    if values.kind == "set":
        codes = count(len(values.codes), "code")
        return _("Issue %(codes)s for token %(serial)s", codes=codes, serial=serial)
    # A message may need an approval, and goes to another person at once.
    return ""


def facts(form: Form) -> list[tuple[str, str]]:
    """Return what the form says, with labels, for the page that sends it on."""
    values, action = submitted(form), form.text("action")
    if action in ("off", "off-and-reinstate") or not values.online:
        reinstated = values.reinstate or action == "off-and-reinstate"
        return [(_("Reinstate the token"), _("yes") if reinstated else _("no"))]
    ends = f"{values.expires_date} {values.expires_time} {values.expires_zone}"
    chosen = [
        words for policy, (words, _why) in RECOVERY.items() if policy == values.recovery
    ]
    drawn = [(_("Number of tokencodes"), values.count)]
    return [
        *(drawn if action in ("generate", "replace") else []),
        (
            _("Expires on"),
            _("No expiration") if values.lifetime == "never" else ends,
        ),
        (_("If Token Becomes Available"), _(chosen[0]) if chosen else values.recovery),
        *((_(words), _("yes")) for name, words in CHOICES.items() if form.flag(name)),
    ]


def is_past(visit: Visit, values: FormValues) -> bool:
    """Return whether the codes would end before now. Raises `InvalidFieldError`."""
    ends_at_ms = lifetime(visit.form, values).ends_at_ms
    return ends_at_ms is not None and ends_at_ms <= visit.site.clock.now_ms()


def terms(form: Form, values: FormValues) -> SetTerms:
    """Return the terms of a set. Raises `InvalidFieldError`."""
    return SetTerms(
        lifetime=lifetime(form, values),
        recovery=recovery(values),
        weaken_recovery_policy=values.weaken,
    )


def lifetime(form: Form, values: FormValues) -> Lifetime:
    """Return the lifetime of a set. Raises `InvalidFieldError`."""
    if values.lifetime == "never":
        return Lifetime()
    return Lifetime(ends_at_ms=form.moment_ms("expires"))


def recovery(values: FormValues) -> RecoveryPolicy:
    """Return what happens to a token that is found. Raises `InvalidFieldError`."""
    try:
        return RecoveryPolicy(values.recovery)
    except ValueError:
        raise InvalidFieldError(
            "recovery", _("choose what happens if the token becomes available")
        ) from None
