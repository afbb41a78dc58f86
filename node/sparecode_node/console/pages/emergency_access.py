# SPDX-License-Identifier: Apache-2.0
"""
The page *Manage Emergency Access Tokencodes*.

One form, two buttons. *Generate Codes* draws codes; they are only on the page, with
a sealed draft. *Save* commits the draft, on any node. The browser sends the codes
back with *Save* so that the answer can show and print them: no node keeps them, and
no node gets them from another source.
"""

import base64
import binascii
import contextlib
from dataclasses import dataclass, field, replace

from starlette.responses import Response

from sparecode_node.console.kit import explanations, rendering, sheet_pdf
from sparecode_node.console.kit.explanations import Obstacle
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.lifetime import suggested_end
from sparecode_node.console.kit.recovery import RECOVERY
from sparecode_node.console.kit.visits import CARRY, Visit
from sparecode_node.console.kit.words import EXPLAINED, Problem, explain
from sparecode_node.console.pages import code_messages, sheet_files, tokens
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import Policy
from sparecode_node.queries.views import EmergencyAccessView, TokenView
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.emergency.emergency_access import (
    IssuedCodes,
    Lifetime,
    SetTerms,
    ShownCode,
)
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Refused,
)
from sparecode_node.statemachine.results import Applied, EmergencyAccessSaved

SERVICE = "EmergencyAccessService"
UNLOCK = "UserService/UnlockUser"
TURN_OFF = {"off": False, "off-and-reinstate": True}
"""The buttons of the question before a user is left without a way to sign in."""

FIELDS = {
    "serial": "",
    "lifetime": "expires",
    "lifetime.end_time": "expires",
    "recovery_policy": "recovery",
    "weaken_recovery_policy": "weaken",
    "draft": "codes",
}
"""Fields of requests and their names on the page."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The token of the page in its present state."""

    token: TokenView
    access: EmergencyAccessView
    policy: Policy
    obstacles: tuple[Obstacle, ...]
    """What stands in the way of its codes now; also what stops them from being issued."""
    other_tokens: tuple[str, ...]
    """Serials of the user's other tokens that work, if this one counts as lost."""

    @property
    def locked(self) -> bool:
        """Whether codes saved now are refused because of wrong passcodes (L5)."""
        return any(each.is_lock for each in self.obstacles)

    @property
    def stays_refused(self) -> bool:
        """Whether the token is refused after emergency access is off (R2)."""
        recovers = self.access.recovery is RecoveryPolicy.ALLOW_AND_DISABLE
        return self.access.lost and not recovers and bool(self.token.username)

    @property
    def strands(self) -> bool:
        """Whether turning it off leaves the user without a way to sign in."""
        return self.stays_refused and not self.other_tokens


async def manage(visit: Visit) -> Response:
    """Show the page; generate codes; save them."""
    serial = visit.request.path_params["serial"]
    if visit.request.method == "POST":
        values = _submitted(visit.form)
        action = visit.form.text("action")
        if values.kind == code_messages.KIND and action in ("generate", "replace"):
            visit.add(code_messages.nothing_shown())
        elif action == "generate" and _unsaved(visit, values):
            values = replace(values, replacing=True)
        elif action in ("generate", "replace"):
            values = await _generate(visit, serial, values)
        elif action in ("save", *TURN_OFF):
            if action in TURN_OFF:
                values = replace(values, online=False, reinstate=TURN_OFF[action])
            answer = await _save(visit, serial, values, sure=action in TURN_OFF)
            if isinstance(answer, Response):
                return answer
            values = answer
        return await _form(visit, await _find(visit, serial), values)
    subject = await _find(visit, serial)
    return await _form(visit, subject, _suggested(visit, subject))


async def _find(visit: Visit, serial: str) -> Subject:
    services = visit.site.services
    token = await tokens.find(visit, serial)
    access = await visit.read(
        f"{SERVICE}/GetEmergencyAccess",
        lambda call, stale_ok: services.emergency.get(call, serial, stale_ok=stale_ok),
    )
    policy = await visit.read(
        "PolicyService/GetPolicy",
        lambda call, stale_ok: services.policies.get(call, stale_ok=stale_ok),
    )
    explanation = await explanations.of_token(visit, serial)
    obstacles = explanations.obstacles(visit, explanation)
    return Subject(
        token=token,
        access=access,
        policy=policy,
        obstacles=tuple(each for each in obstacles if each.concerns_codes),
        other_tokens=await _other_tokens(visit, token) if access.lost else (),
    )


async def _other_tokens(visit: Visit, token: TokenView) -> tuple[str, ...]:
    """Return the serials of the user's other tokens that are accepted, or have codes."""
    if not token.username:
        return ()
    others = await visit.read(
        "TokenService/ListTokens",
        lambda call, stale_ok: visit.site.services.tokens.list(
            call, username=token.username, stale_ok=stale_ok
        ),
    )
    now_ms = visit.site.clock.now_ms()
    return tuple(
        each.serial
        for each in others.items
        if each.serial != token.serial
        and each.enabled
        and (each.expires_at_ms is None or each.expires_at_ms > now_ms)
        and (not each.lost or each.live_codes)
    )


def _unsaved(visit: Visit, values: FormValues) -> bool:
    """Return whether the page has codes that can still be saved."""
    return bool(values.codes and values.draft) and (
        values.draft_ends_at_ms > visit.site.clock.now_ms()
    )


async def _form(visit: Visit, subject: Subject, values: FormValues) -> Response:
    ends = subject.token.expires_at_ms
    expired = ends is not None and ends <= visit.site.clock.now_ms()
    return visit.page(
        "emergency_access.html",
        subject=subject,
        token=subject.token,
        access=subject.access,
        policy=subject.policy,
        message_obstacle=await code_messages.obstacle(visit, subject.token.serial),
        values=values,
        expired=expired,
        recoveries=RECOVERY,
        # The browser may convert an untouched suggestion to its own time zone.
        suggested=visit.request.method == "GET",
        carry=CARRY,
        may_save=visit.may(f"{SERVICE}/SaveEmergencyAccess"),
        may_unlock=subject.locked and visit.may(UNLOCK),
    )


def _suggested(visit: Visit, subject: Subject) -> FormValues:
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


def _submitted(form: Form) -> FormValues:
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


async def _generate(visit: Visit, serial: str, values: FormValues) -> FormValues:
    """Draw codes; they are not active until saved."""
    try:
        if _is_past(visit, values):
            # Codes that cannot be saved would only be read out in vain.
            words = _("This time is in the past. Choose a later one.")
            visit.add(Problem(words=words, field="expires"))
            return values
        count = visit.form.whole("count", _("the number of tokencodes"))
        policy = (await _find(visit, serial)).policy
        if not 1 <= count <= policy.codes_per_set_max:
            raise InvalidFieldError(
                "count",
                _(
                    "enter a number from 1 to %(most)s",
                    most=policy.codes_per_set_max,
                ),
            )
        generated = await visit.site.services.emergency.generate(
            visit.call(f"{SERVICE}/GenerateTokencodes"), serial=serial, count=count
        )
    except EXPLAINED as error:
        visit.add(explain(error, FIELDS))
        return values
    return replace(
        values,
        draft=base64.b64encode(generated.draft).decode(),
        draft_ends_at_ms=generated.draft_ends_at_ms,
        codes=generated.codes,
        request_id=visit.new_id(),
    )


def _is_past(visit: Visit, values: FormValues) -> bool:
    """Return whether the codes would end before now. Raises `InvalidFieldError`."""
    ends_at_ms = _lifetime(visit.form, values).ends_at_ms
    return ends_at_ms is not None and ends_at_ms <= visit.site.clock.now_ms()


async def _save(
    visit: Visit, serial: str, values: FormValues, *, sure: bool
) -> Response | FormValues:
    """Commit the form; return its values if that is refused."""
    unlocked = ""
    try:
        before = await _find(visit, serial)
        if before.strands and not (values.online or values.reinstate or sure):
            return replace(values, stranding=True)
        unlocked = await _unlock(visit, before, values)
        done = await _commit(visit, serial, values)
    except OutcomeUnknownError as error:
        # Sending the same id and content again returns the outcome.
        visit.add(explain(error))
        return replace(values, unlocked=unlocked)
    except ApprovalNeededError as error:
        visit.add(
            Problem(
                words=_(
                    "You have assigned this token, enrolled it, or set or cleared its PIN, so another super administrator must approve (approval %(approval_id)s). Nothing is lost: save again after the approval.",
                    approval_id=error.approval_id,
                ),
                status=409,
            )
        )
        return replace(values, request_id=visit.new_id(), unlocked=unlocked)
    except EXPLAINED as error:
        problem = explain(error, FIELDS)
        if isinstance(error, Refused) and (
            error.rejected.reason is Reason.DRAFT_STALE
        ):  # These codes can no longer be saved: do not ask before replacing them.
            words = await _saved_before(visit, serial, values)
            problem = replace(problem, words=words or problem.words)
            values = replace(values, draft="", draft_ends_at_ms=0, codes=())
        visit.add(problem)
        return replace(values, request_id=visit.new_id(), unlocked=unlocked)
    return await _saved(visit, before, values, done, unlocked)


async def _saved_before(visit: Visit, serial: str, values: FormValues) -> str:
    """Return who has saved codes since these were generated; empty: not known."""
    try:
        now = await _find(visit, serial)
    except EXPLAINED:
        return ""
    newest = max(now.access.sets, key=lambda each: each.issued_at_ms, default=None)
    generated_at_ms = values.draft_ends_at_ms - now.policy.draft_lifetime_ms
    if newest is None or newest.issued_at_ms < generated_at_ms:
        return ""
    distance = rendering.within(newest.issued_at_ms, visit.site.clock.now_ms())
    if visit.session and newest.issuer == visit.session.administrator:
        return _(
            "These codes cannot be saved: you have saved codes for this token already, %(distance)s, perhaps in another tab. Generate codes again to replace those.",
            distance=distance,
        )
    return _(
        "These codes cannot be saved: %(issuer)s has saved others for this token, %(distance)s. Generate codes again to replace those.",
        issuer=newest.issuer,
        distance=distance,
    )


async def _unlock(visit: Visit, subject: Subject, values: FormValues) -> str:
    """
    Unlock the user if the form says so, and return that in words.

    First of all: with live codes of their own, administrators need an approval (I10).
    """
    username = subject.token.username
    if not (values.online and values.unlock and username):
        return ""
    try:
        await visit.site.services.users.unlock(
            visit.call(UNLOCK, request_id=values.unlock_id), username=username
        )
    except ApprovalNeededError as error:
        return _(
            "Another super administrator must approve that %(username)s is unlocked (approval %(approval_id)s).",
            username=username,
            approval_id=error.approval_id,
        )
    return _("%(username)s is unlocked, too.", username=username)


async def _commit(
    visit: Visit, serial: str, values: FormValues
) -> Applied | IssuedCodes:
    if not values.online:
        return await visit.site.services.emergency.disable(
            visit.call(
                f"{SERVICE}/DisableEmergencyAccess", request_id=values.request_id
            ),
            serial=serial,
            reinstate_token=values.reinstate,
        )
    if values.kind == "fixed":
        return await _issue_fixed(visit, serial, values)
    if values.kind == code_messages.KIND:
        terms = replace(_terms(visit.form, values), keep_unused_codes=values.keep)
        return await code_messages.issue(visit, serial, terms, values.request_id)
    saved = await _save_set(visit, serial, values)
    return IssuedCodes(saved=saved, codes=values.codes, withheld=not values.codes)


async def _save_set(
    visit: Visit, serial: str, values: FormValues
) -> EmergencyAccessSaved:
    if not values.draft:
        raise InvalidFieldError("codes", _("generate the codes first, then save them"))
    if visit.form.whole("count", _("the number of tokencodes")) != len(values.codes):
        raise InvalidFieldError(
            "count",
            _(
                "you have generated %(values)s codes: generate again, or restore the number",
                values=len(values.codes),
            ),
        )
    try:
        draft = base64.b64decode(values.draft, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidFieldError("codes", _("generate the codes again")) from None
    return await visit.site.services.emergency.save(
        visit.call(f"{SERVICE}/SaveEmergencyAccess", request_id=values.request_id),
        serial=serial,
        draft=draft,
        terms=replace(_terms(visit.form, values), keep_unused_codes=values.keep),
    )


async def _issue_fixed(visit: Visit, serial: str, values: FormValues) -> IssuedCodes:
    if values.lifetime == "never":
        raise InvalidFieldError(
            "expires", _("a temporary fixed tokencode must end: choose “Expires on”")
        )
    return await visit.site.services.emergency.issue_fixed(
        visit.call(f"{SERVICE}/IssueFixedTokencode", request_id=values.request_id),
        serial=serial,
        terms=_terms(visit.form, values),
    )


async def _saved(
    visit: Visit,
    before: Subject,
    values: FormValues,
    done: Applied | IssuedCodes,
    unlocked: str,
) -> Response:
    """
    Show what was committed, and the codes for the last time.

    The page appears even if the token cannot be read now, because the commit stands.
    """
    after: Subject | None = None
    with contextlib.suppress(*EXPLAINED):
        after = await _find(visit, before.token.serial)
    issued = done if isinstance(done, IssuedCodes) else None
    token = (after or before).token
    return visit.page(
        "emergency_sent.html" if issued and issued.message else "emergency_saved.html",
        token=token,
        lost=after.token.lost if after else None,
        saved=issued.saved if issued else done,
        issued=issued,
        fixed=values.kind == "fixed",
        recovery=_(RECOVERY[_recovery(values)][0]) if issued else "",
        obstacles=after.obstacles if after else (),
        unlocked=unlocked,
        pdf_password=sheet_pdf.password(visit.site.entropy),
        pdf_lacks_username=await sheet_pdf.lacks_letters(token.username),
        pdf_lacks_name=await sheet_pdf.lacks_letters(token.display_name),
    )


def _terms(form: Form, values: FormValues) -> SetTerms:
    return SetTerms(
        lifetime=_lifetime(form, values),
        recovery=_recovery(values),
        weaken_recovery_policy=values.weaken,
    )


def _lifetime(form: Form, values: FormValues) -> Lifetime:
    if values.lifetime == "never":
        return Lifetime()
    return Lifetime(ends_at_ms=form.moment_ms("expires"))


def _recovery(values: FormValues) -> RecoveryPolicy:
    try:
        return RecoveryPolicy(values.recovery)
    except ValueError:
        raise InvalidFieldError(
            "recovery", _("choose what happens if the token becomes available")
        ) from None
