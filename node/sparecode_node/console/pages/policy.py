# SPDX-License-Identifier: Apache-2.0
"""
The policy editor, with the arithmetic of guessing (I6).

The rules of `domain` check the input while it is typed, and again when it is saved.
"""

from dataclasses import fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain, sentence
from sparecode_node.console.pages.odds import Odds, guess_odds
from sparecode_node.console.pages.policy_fields import GROUPS, PolicyField
from sparecode_node.domain.policy import Policy, policy_problem, public_name
from sparecode_node.services.errors import InvalidFieldError

_NUMBER_CHARACTERS_MAX = 15


async def edit(visit: Visit) -> Response:
    """Show the policy; check the input; save it."""
    problem = ""
    values: dict[str, Any] = {}
    if visit.is_form:
        visit.require("PolicyService/UpdatePolicy")
        try:
            values = _values(visit)
            version = visit.form.whole("version", _("the version"))
        except EXPLAINED as error:
            visit.add(explain(error))
        else:
            if visit.form.text("action") == "save":
                answer = await _save(visit, version, values)
                if answer is not None:
                    return answer
    policy = await visit.read(
        "PolicyService/GetPolicy",
        lambda call, stale_ok: visit.site.services.policies.get(
            call, stale_ok=stale_ok
        ),
    )
    typed = replace(policy, **values)
    refusal = policy_problem(typed)
    odds: tuple[Odds, ...] = ()
    if refusal is None:
        odds = guess_odds(typed)
    else:
        problem = sentence(f"{refusal.field.replace('_', ' ')} {refusal.words}")
    return visit.page(
        "policy.html",
        policy=policy,
        groups=GROUPS,
        odds=odds,
        problem=problem,
        display_value=display_value,
        boxes=" ".join(
            knob.name for _group, knobs in GROUPS for knob in knobs if knob.is_box
        ),
        may_save=visit.may("PolicyService/UpdatePolicy"),
    )


async def _save(visit: Visit, version: int, values: dict[str, Any]) -> Response | None:
    by_public_name = {public_name(field.name): field.name for field in fields(Policy)}
    return await change(
        visit,
        "PolicyService/UpdatePolicy",
        lambda call: visit.site.services.policies.update(
            call, version=version, values=values
        ),
        to="/policy",
        words=_(
            "The policy is changed. It is now version %(version)s.", version=version + 1
        ),
        fields=by_public_name,
    )


def display_value(policy: Policy, knob: PolicyField) -> str:
    """Return a field's value as the editor shows it."""
    value = getattr(policy, knob.name)
    if value is None:
        return ""
    if knob.unit_ms and isinstance(value, int):
        return f"{(Decimal(value) / knob.unit_ms).normalize():f}"
    return str(value)


def _values(visit: Visit) -> dict[str, Any]:
    """Return the input by the field names of `Policy`. Raises `InvalidFieldError`."""
    values: dict[str, Any] = {}
    for _group, knobs in GROUPS:
        for knob in knobs:
            if knob.is_box:
                values[knob.name] = visit.form.flag(knob.name)
            elif knob.name in visit.form.values:
                values[knob.name] = _value(visit, knob)
    return values


def _value(visit: Visit, knob: PolicyField) -> int | str | None:
    typed = visit.form.text(knob.name)
    if knob.is_text:
        return typed.upper() if knob.is_capital else typed
    if not typed and knob.may_be_empty:
        return None
    if not knob.unit_ms:
        return visit.form.whole(knob.name, "this")
    try:
        number = Decimal(typed[:_NUMBER_CHARACTERS_MAX])
        value = int(number * knob.unit_ms)
    except (InvalidOperation, ValueError, OverflowError):
        raise InvalidFieldError(
            knob.name, _("enter a number of %(unit)s", unit=_(knob.unit))
        ) from None
    if value < 0:
        raise InvalidFieldError(knob.name, _("must not be negative"))
    return value
