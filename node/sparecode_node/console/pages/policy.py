# SPDX-License-Identifier: Apache-2.0
"""
The policy editor, with the arithmetic of guessing (I6).

The rules of `domain` check the input while it is typed, and again when it is saved.
Only the fields that the person has changed are sent, with the version of the policy that
the page showed. So a colleague's change in between is neither reverted nor hidden.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from babel.units import format_unit
from starlette.responses import Response

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.rendering import number, span
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, Problem, explain, sentence
from sparecode_node.console.pages.odds import Odds, guess_odds
from sparecode_node.console.pages.policy_fields import FIELDS, GROUPS, PolicyField
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import (
    BOUNDS,
    ORDERED,
    TIME_MS_MAX,
    UNLIMITED,
    Policy,
    PolicyProblem,
    policy_problem,
    public_name,
)
from sparecode_node.services.errors import InvalidFieldError, Refused

_NUMBER_CHARACTERS_MAX = 15

_FIELD_NAMES = {public_name(field.name): field.name for field in fields(Policy)}
"""The names of fields on the page, by their public names."""


async def edit(visit: Visit) -> Response:
    """Show the policy; check the input; save it."""
    problem = ""
    values: dict[str, Any] = {}
    version = 0
    if visit.is_form:
        visit.require("PolicyService/UpdatePolicy")
        try:
            version = visit.form.whole("etag", _("the version"))
            values = _changed_values(visit)
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
    # A form whose outcome is unknown must be sent again as it was.
    if 0 < version < policy.version and not visit.must_send_again:
        visit.is_outdated = True
        visit.add(replace(explain(Refused(Rejected(Reason.VERSION))), status=200))
    typed = replace(policy, **_as_stored(values))
    refusal = policy_problem(typed)
    odds: tuple[Odds, ...] = ()
    if refusal is None:
        odds = guess_odds(typed)
    else:
        problem, name = _in_words_of_the_page(refusal, typed), _name_of(refusal)
        if named := visit.problems.get(name):
            visit.problems[name] = replace(named, words=problem)
        elif name in FIELDS:
            # Nothing was refused by a check, and the script shows only good answers.
            visit.add(Problem(words=problem, field=name, status=200))
    return visit.page(
        "policy.html",
        policy=policy,
        groups=GROUPS,
        odds=odds,
        problem=problem,
        display_value=display_value,
        boxes=" ".join(
            knob.name for knob in FIELDS.values() if knob.is_box or knob.kinds
        ),
        may_save=visit.may("PolicyService/UpdatePolicy"),
    )


def _name_of(refusal: PolicyProblem) -> str:
    """Return the field's name on the page."""
    return _FIELD_NAMES.get(refusal.field, refusal.field)


def _in_words_of_the_page(refusal: PolicyProblem, typed: Policy) -> str:
    """Return the refusal with labels, units in words, and no public name."""
    name = _name_of(refusal)
    if name not in FIELDS:
        return sentence(f"{refusal.field.replace('_', ' ')} {refusal.words}")
    knob, value = FIELDS[name], getattr(typed, name)
    label = _(knob.words)
    if name in BOUNDS and not BOUNDS[name][0] <= value <= BOUNDS[name][1]:
        least, most = BOUNDS[name]
        return _(
            "“%(label)s” must be %(least)s to %(most)s, not %(value)s.",
            label=label,
            least=span(least) if knob.unit_ms else number(least),
            most=span(most) if knob.unit_ms else number(most),
            value=_in_its_unit(knob, value),
        )
    for low, high in ORDERED:
        if low == name and value > getattr(typed, high):
            return _(
                "“%(label)s” must not be more than “%(other)s”: %(value)s is more than %(most)s.",
                label=label,
                other=_(FIELDS[high].words),
                value=_in_its_unit(knob, value),
                most=_in_its_unit(FIELDS[high], getattr(typed, high)),
            )
    return _("“%(label)s” %(words)s.", label=label, words=refusal.words)


def _in_its_unit(knob: PolicyField, value: int) -> str:
    """Return a number in the unit in which the page has it: "1 minute"."""
    if not knob.unit_ms:
        return number(value)
    return format_unit(
        (Decimal(value) / knob.unit_ms).normalize(),
        f"duration-{knob.unit.removesuffix('s')}",
        locale=languages.locale(),
    )


async def _save(visit: Visit, version: int, values: dict[str, Any]) -> Response | None:
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
        fields=_FIELD_NAMES,
    )


def display_value(policy: Policy, knob: PolicyField) -> str:
    """Return a field's value as the editor shows it."""
    value = getattr(policy, knob.name)
    if value is None:
        return ""
    if knob.unit_ms and isinstance(value, int):
        return f"{(Decimal(value) / knob.unit_ms).normalize():f}"
    return str(value)


def _changed_values(visit: Visit) -> dict[str, Any]:
    """Return the changed input by field names. Raises `InvalidFieldError`."""
    values: dict[str, Any] = {}
    for name, knob in FIELDS.items():
        if knob.kinds:
            boxes = [key for key in visit.form.shown if key.startswith(f"{name} ")]
            if any(visit.form.has_changed(name, key.split()[1]) for key in boxes):
                values[name] = " ".join(visit.form.all(name))
        elif visit.form.has_changed(name):
            values[name] = visit.form.flag(name) if knob.is_box else _value(visit, knob)
    return values


def _as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a change makes of these values: 0 is no limit where there is one."""
    return {
        name: None if name in UNLIMITED and value == 0 else value
        for name, value in values.items()
    }


def _value(visit: Visit, knob: PolicyField) -> int | str:
    typed = visit.form.text(knob.name)
    if knob.is_text:
        return typed.upper() if knob.is_capital else typed
    if not typed and knob.may_be_empty:
        return 0  # None would leave it as it is.
    if not knob.unit_ms:
        return visit.form.whole(knob.name, "this")
    try:
        value = int(Decimal(typed[:_NUMBER_CHARACTERS_MAX]) * knob.unit_ms)
    except (InvalidOperation, ValueError, OverflowError):
        raise InvalidFieldError(
            knob.name, _("enter a number of %(unit)s", unit=_(knob.unit))
        ) from None
    if value < 0:
        raise InvalidFieldError(knob.name, _("must not be negative"))
    if value > TIME_MS_MAX:
        raise InvalidFieldError(knob.name, _("is too large"))
    return value
