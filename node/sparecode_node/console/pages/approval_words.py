# SPDX-License-Identifier: Apache-2.0
"""
What waits for approval, in the words of the page.

The replicated state describes requests in the words of the audit log. Those of the
policy name fields and units; here they have the labels of the policy editor.
"""

import re
from typing import Final

from sparecode_node.console.kit import rendering
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.navigation import role_words
from sparecode_node.console.pages.policy_fields import GROUPS
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.policy import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    public_name,
)
from sparecode_node.domain.sealed_codes import TO_MANAGER, TO_USER
from sparecode_node.queries.approvals import ApprovalView

_FIELDS: Final = {
    public_name(field.name): field for _group, fields in GROUPS for field in fields
}
_CHANGE: Final = re.compile(r"(?:^|, )([a-z_]+) (.*?) -> (.*?)(?=, [a-z_]+ .*? -> |$)")
_SPAN: Final = re.compile(r"(\d+)([dhm])|([\d.]+)s")
_UNITS: Final = {"d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS}
_POLICY: Final = re.compile(r"version \d+: ")
_CHANNEL: Final = {
    re.compile("webhook to (?P<value>.+)"): N_("Webhook to %(value)s"),
    re.compile("syslog to (?P<value>.+)"): N_("Syslog to %(value)s"),
    re.compile("mail to (?P<value>.+)"): N_("Mail by the server %(value)s"),
    re.compile("from (?P<value>.+)"): N_("sender %(value)s"),
    re.compile("signs in as (?P<value>.+)"): N_("signs in as %(value)s"),
    re.compile("tells (?P<value>.+)"): N_("tells %(value)s"),
    re.compile("no sign-in"): N_("no sign-in"),
    re.compile("the address may be private"): N_("the address may be private"),
    re.compile("certificate of its own authority with SHA-256 (?P<value>.+)"): N_(
        "certificate of its own authority, whose file has the SHA-256 %(value)s"
    ),
    re.compile("contact (?P<value>.+)"): N_("contact %(value)s"),
    re.compile("enabled again"): N_("enabled again"),
    re.compile("new secret"): N_("new secret"),
}
"""The parts of a channel's settings."""
CHANNEL_ACTIONS: Final = ("SaveChannel", "RemoveChannel")


def target_of(approval: ApprovalView) -> str:
    """Return what a request is about; empty: its action says it."""
    if approval.action == "UpdatePolicy":
        return ""
    if approval.action in CHANNEL_ACTIONS:
        return approval.target.removeprefix("channel ")
    return approval.target


def lines_of(approval: ApprovalView) -> tuple[str, ...]:
    """Return what a request would change, a line for each change."""
    words = approval.description
    if approval.action == "UpdatePolicy" and (begun := _POLICY.match(words)):
        changes, separator, rest = words[begun.end() :].partition("; ")
        named = tuple(
            _changed(name, old, new) for name, old, new in _CHANGE.findall(changes)
        )
        return (*(named or (changes,)), *([rest] if separator else []))
    part = _channel_part if approval.action == "SaveChannel" else _part
    return (", ".join(part(each) for each in words.split(", ")),) if words else ()


def _channel_part(words: str) -> str:
    for pattern, text in _CHANNEL.items():
        if found := pattern.fullmatch(words):
            return _(text, **found.groupdict())
    return _part(words)


def _changed(name: str, old: str, new: str) -> str:
    field = _FIELDS.get(name)
    return _(
        "%(field)s: from %(old)s to %(new)s",
        field=_(field.words) if field else name,
        old=_value(name, old),
        new=_value(name, new),
    )


def _value(name: str, value: str) -> str:
    """Return a value of the policy in words; *value* as the audit log writes it."""
    field = _FIELDS.get(name)
    words = {"none": _("none"), "yes": _("yes"), "no": _("no")}
    if value in words:
        return words[value]
    if field is None:
        return value
    if value in field.choices:
        return _(field.choices[value])
    if field.unit_ms and (span := _SPAN.fullmatch(value)):
        many, unit, seconds = span.groups()
        if unit:
            return rendering.span(int(many) * _UNITS[unit])
        return f"{seconds} s"
    return value


def _part(words: str) -> str:
    if words in set(Role):
        return role_words(words)
    known = {
        TO_USER: _("by message to the user"),
        TO_MANAGER: _("by message to the user’s manager"),
        "no user": _("no user"),
        "enabled": _("Enabled"),
        "disabled": _("Disabled"),
    }
    return known.get(words, words)
