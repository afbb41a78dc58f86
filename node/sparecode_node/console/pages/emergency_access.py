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
from dataclasses import replace

from starlette.responses import Response

from sparecode_node.console.kit import rendering, sheet_pdf
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.recovery import CASES, RECOVERY
from sparecode_node.console.kit.visits import CARRY, Visit
from sparecode_node.console.kit.words import EXPLAINED, Problem, explain
from sparecode_node.console.pages import (
    code_messages,
    emergency_form,
    emergency_subject,
    unsaved_codes,
)
from sparecode_node.console.pages.emergency_form import FormValues
from sparecode_node.console.pages.emergency_subject import SERVICE, Subject
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.emergency.emergency_access import (
    IssuedCodes,
)
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Refused,
)
from sparecode_node.statemachine.results import Applied, EmergencyAccessSaved

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
    "by_message": "kind",
    "to_manager": "kind",
}
"""Fields of requests and their names on the page."""


async def manage(visit: Visit) -> Response:
    """Show the page; generate codes; save them."""
    serial = visit.request.path_params["serial"]
    if visit.request.method == "POST":
        values = emergency_form.submitted(visit.form)
        action = visit.form.text("action")
        if values.kind in code_messages.KINDS and action in ("generate", "replace"):
            visit.add(code_messages.nothing_shown())
        elif action == "generate" and emergency_form.is_unsaved(visit, values):
            values = replace(values, replacing=True)
        elif action in ("generate", "replace"):
            drawn = await _generate(visit, serial, values)
            response = await _form(
                visit, await emergency_subject.find(visit, serial), drawn
            )
            if drawn is not values:
                unsaved_codes.remember(visit, response, serial)
            return response
        elif action in ("save", *TURN_OFF):
            if action in TURN_OFF:
                values = replace(values, online=False, reinstate=TURN_OFF[action])
            answer = await _save(visit, serial, values, sure=action in TURN_OFF)
            if isinstance(answer, Response):
                unsaved_codes.forget(visit, answer, serial)
                return answer
            values = answer
        return await _form(visit, await emergency_subject.find(visit, serial), values)
    subject = await emergency_subject.find(visit, serial)
    response = await _form(visit, subject, emergency_form.suggested(visit, subject))
    unsaved_codes.forget(visit, response, serial)
    return response


async def _form(visit: Visit, subject: Subject, values: FormValues) -> Response:
    ends = subject.token.expires_at_ms
    expired = ends is not None and ends <= visit.site.clock.now_ms()
    return visit.page(
        "emergency_access.html",
        subject=subject,
        token=subject.token,
        access=subject.access,
        policy=subject.policy,
        messages=await code_messages.choices(visit, subject.token.serial, values.kind),
        values=values,
        expired=expired,
        recoveries=RECOVERY,
        cases=CASES,
        # The browser may convert an untouched suggestion to its own time zone.
        suggested=visit.request.method == "GET",
        carry=CARRY,
        unsaved="" if visit.is_form else unsaved_codes.words(visit, subject),
        generating=visit.is_form
        and visit.form.text("action") in ("generate", "replace"),
        may_save=visit.may(f"{SERVICE}/SaveEmergencyAccess"),
        may_unlock=subject.locked and visit.may(UNLOCK),
    )


async def _generate(visit: Visit, serial: str, values: FormValues) -> FormValues:
    """Draw codes; they are not active until saved."""
    try:
        if emergency_form.is_past(visit, values):
            # Codes that cannot be saved would only be read out in vain.
            words = _("This time is in the past. Choose a later one.")
            visit.add(Problem(words=words, field="expires"))
            return values
        count = visit.form.whole("count", _("the number of tokencodes"))
        policy = (await emergency_subject.find(visit, serial)).policy
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


async def _save(
    visit: Visit, serial: str, values: FormValues, *, sure: bool
) -> Response | FormValues:
    """Commit the form; return its values if that is refused."""
    unlocked = ""
    try:
        before = await emergency_subject.find(visit, serial)
        if before.strands and not (values.online or values.reinstate or sure):
            return replace(values, stranding=True)
        unlocked = await _unlock(visit, before, values)
        done = await _commit(visit, serial, values)
    except OutcomeUnknownError as error:
        # Sending the same id and content again returns the outcome.
        visit.add(explain(error))
        return replace(values, unlocked=unlocked)
    except ApprovalNeededError as error:
        visit.add(Problem(words=_waiting(error.approval_id, values), status=409))
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


def _waiting(approval_id: int, values: FormValues) -> str:
    """Return what a form waits for; the page *Approvals* tells the reason (P3)."""
    if values.online:
        return _(
            "Not saved yet: another super administrator must approve it (approval %(approval_id)s). The page Approvals shows why. Nothing is lost: save again after the approval.",
            approval_id=approval_id,
        )
    return _(
        "Not done yet: another super administrator must approve it (approval %(approval_id)s). The page Approvals shows why. It is done with the approval; until then nothing is changed.",
        approval_id=approval_id,
    )


async def _saved_before(visit: Visit, serial: str, values: FormValues) -> str:
    """Return who has saved codes since these were generated; empty: not known."""
    try:
        now = await emergency_subject.find(visit, serial)
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
    if values.kind in code_messages.KINDS:
        return await code_messages.issue(
            visit,
            serial,
            replace(
                emergency_form.terms(visit.form, values), keep_unused_codes=values.keep
            ),
            values.request_id,
            to_manager=code_messages.KINDS[values.kind],
        )
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
        terms=replace(
            emergency_form.terms(visit.form, values), keep_unused_codes=values.keep
        ),
    )


async def _issue_fixed(visit: Visit, serial: str, values: FormValues) -> IssuedCodes:
    if values.lifetime == "never":
        raise InvalidFieldError(
            "expires", _("a temporary fixed tokencode must end: choose “Expires on”")
        )
    return await visit.site.services.emergency.issue_fixed(
        visit.call(f"{SERVICE}/IssueFixedTokencode", request_id=values.request_id),
        serial=serial,
        terms=emergency_form.terms(visit.form, values),
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
        after = await emergency_subject.find(visit, before.token.serial)
    issued = done if isinstance(done, IssuedCodes) else None
    token = (after or before).token
    return visit.page(
        "emergency_sent.html" if issued and issued.message else "emergency_saved.html",
        token=token,
        lost=after.token.lost if after else None,
        stays_refused=after.stays_refused if after else False,
        saved=issued.saved if issued else done,
        issued=issued,
        fixed=values.kind == "fixed",
        recovery=_(RECOVERY[emergency_form.recovery(values)][0]) if issued else "",
        obstacles=after.obstacles if after else (),
        unlocked=unlocked,
        pdf_password=sheet_pdf.password(visit.site.entropy),
        pdf_lacks_username=await sheet_pdf.lacks_letters(token.username),
        pdf_lacks_name=await sheet_pdf.lacks_letters(token.display_name),
    )
