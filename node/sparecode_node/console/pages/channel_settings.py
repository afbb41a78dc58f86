# SPDX-License-Identifier: Apache-2.0
"""
Channels: a new one, and the settings of one that exists (N5).

The kind of a new channel is chosen first, so that its page has no other fields. If
another kind is chosen afterwards, all input stays in the form.

The secret of a webhook is drawn for the form and shown in it, because the change may
wait for an approval. No page shows it after that. The password of a mail server is
typed, and never shown.
"""

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.reauthentication import ask, is_confirmed
from sparecode_node.domain.notices import Channel, ChannelKind, EventClass
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries.notices import ChannelView
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.statemachine.results import Applied

CREATE: Final = "NoticeService/CreateChannel"
UPDATE: Final = "NoticeService/UpdateChannel"
REMOVE: Final = "NoticeService/RemoveChannel"

KINDS: Final = {
    ChannelKind.WEBHOOK.value: N_("Webhook"),
    ChannelKind.SYSLOG.value: N_("Syslog over TLS"),
    ChannelKind.FILE.value: N_("Files on each node"),
    ChannelKind.MAIL.value: N_("Mail to the people concerned"),
}
"""Kinds that this page sets up."""
DESCRIPTIONS: Final = {
    ChannelKind.WEBHOOK.value: N_("Sends the events that you choose to a web address."),
    ChannelKind.SYSLOG.value: N_("Sends every event to a SIEM."),
    ChannelKind.FILE.value: N_(
        "Writes every event into a folder that each node names in its node.toml."
    ),
    ChannelKind.MAIL.value: N_(
        "Tells the people whom an event concerns. A cluster has one such channel."
    ),
}
EXAMPLES: Final = {
    ChannelKind.WEBHOOK: "https://siem.example.com/in",
    ChannelKind.SYSLOG: "tcp+tls://siem.example.com:6514",
    ChannelKind.MAIL: "smtp+starttls://mail.example.com",
}
"""Addresses."""
CLASSES: Final = {
    EventClass.ADMINISTRATION: N_("Administrators, policy, members, keys, agents"),
    EventClass.EMERGENCY: N_("Emergency codes, and tokens that come back"),
    EventClass.TOKENS: N_("Users, tokens and PINs"),
    EventClass.SESSIONS: N_("Sign-ins of administrators, and refused calls"),
    EventClass.AUTHENTICATION: N_("Every decision on a passcode"),
    EventClass.UPKEEP: N_("What the cluster does by itself"),
}
SUGGESTED: Final = (EventClass.ADMINISTRATION, EventClass.EMERGENCY)
"""What the form of a new webhook has ticked."""
FIELDS: Final = {"secret": "webhook_secret"}
MAIL_FIELDS: Final = {"secret": "mail_password"}
"""The fields of the form, by the names that the service reports."""

OTHER_KINDS: Final = "kinds"
"""The action that leads from the fields to the choice of the kind."""
FIELDS_OF_KIND: Final = "fields"
"""The action that leads back, with all input."""
_ADDRESS: Final = ("address", "allow_private", "authority")
_WEBHOOK: Final = ("webhook_secret", *(f"tells_{each.value}" for each in CLASSES))
_MAIL: Final = ("sender", "contact", "login")
_SHOWN: Final = {
    ChannelKind.WEBHOOK: ("name", *_ADDRESS, *_WEBHOOK),
    ChannelKind.SYSLOG: ("name", *_ADDRESS),
    ChannelKind.FILE: ("name",),
    ChannelKind.MAIL: ("name", *_ADDRESS, *_MAIL),
}
"""The fields of each kind; other input is carried along, but for the password."""
_BOXES: Final = ("enabled", "allow_private", *_WEBHOOK[1:])


async def add(visit: Visit) -> Response:
    """Ask for the kind of a new channel, then for its settings; create it."""
    visit.require(CREATE)
    kind, action = visit.form.text("kind"), visit.form.text("action")
    if visit.is_form and action not in (OTHER_KINDS, FIELDS_OF_KIND):
        answer = await change(
            visit,
            CREATE,
            lambda call: _create(visit, call),
            to="/channels",
            words=_("The channel is created. Test it now."),
            fields=_fields(visit.form.text("kind")),
        )
        if answer is not None:
            return answer
    if action == OTHER_KINDS or kind not in KINDS:
        return _kinds_page(visit, kind)
    draws = kind == ChannelKind.WEBHOOK and "webhook_secret" not in visit.form.values
    if draws and not is_confirmed(visit):
        return ask(visit)
    return _page(visit, ChannelKind(kind), None)


async def _create(visit: Visit, call: CallContext) -> Applied:
    kind = _kind_in(visit)
    is_webhook, is_mail = kind is ChannelKind.WEBHOOK, kind is ChannelKind.MAIL
    has_address = kind is not ChannelKind.FILE
    return await visit.site.services.channels.create(
        call,
        name=visit.form.text("name"),
        kind=kind,
        address=visit.form.text("address") if has_address else "",
        classes=_classes_in(visit) if is_webhook else (),
        secret=_secret_in(visit, kind),
        allow_private=has_address and visit.form.flag("allow_private"),
        authority=_authority_in(visit) if has_address else "",
        sender=visit.form.text("sender") if is_mail else "",
        login=visit.form.text("login") if is_mail else "",
        contact=visit.form.text("contact") if is_mail else "",
    )


async def edit(visit: Visit) -> Response:
    """Change a channel, or remove it."""
    visit.require(UPDATE)
    name = visit.request.path_params["name"]
    view = await _view(visit, name)
    channel, answer = view.channel, None
    if visit.is_form and visit.form.text("action") == "remove":
        answer = await change(
            visit,
            REMOVE,
            lambda call: _remove(visit, call, channel),
            to="/channels",
            words=_("The channel is removed."),
        )
    elif visit.is_form:
        answer = await change(
            visit,
            UPDATE,
            lambda call: _update(visit, call, channel),
            to="/channels",
            words=_("The channel is changed."),
            fields=_fields(channel.kind),
        )
    if answer is not None:
        return answer
    if visit.is_outdated:
        view = await _view(visit, name)
    return _page(visit, channel.kind, view)


async def _remove(visit: Visit, call: CallContext, channel: Channel) -> Applied:
    if not visit.form.flag("sure"):
        raise InvalidFieldError("sure", _("confirm the removal first"))
    return await visit.site.services.channels.remove(call, name=channel.name)


async def _update(visit: Visit, call: CallContext, channel: Channel) -> Applied:
    is_webhook = channel.kind is ChannelKind.WEBHOOK
    is_mail = channel.kind is ChannelKind.MAIL
    return await visit.site.services.channels.update(
        call,
        name=channel.name,
        enabled=visit.form.flag("enabled"),
        address=visit.form.text("address"),
        classes=_classes_in(visit) if is_webhook else (),
        secret=_secret_in(visit, channel.kind),
        allow_private=visit.form.flag("allow_private"),
        authority=_authority_in(visit),
        sender=visit.form.text("sender") if is_mail else None,
        login=visit.form.text("login") if is_mail else None,
        contact=visit.form.text("contact") if is_mail else None,
    )


def _fields(kind: str) -> dict[str, str]:
    return MAIL_FIELDS if kind == ChannelKind.MAIL.value else FIELDS


def _secret_in(visit: Visit, kind: ChannelKind) -> str:
    """Return the secret for a channel of this kind, as typed; empty: none was."""
    match kind:
        case ChannelKind.WEBHOOK:
            return visit.form.text("webhook_secret")
        case ChannelKind.MAIL:
            return visit.form.secret("mail_password")
        case _:
            return ""


async def _view(visit: Visit, name: str) -> ChannelView:
    """Return a channel that this page can change. Raises `Refused`: there is none."""
    views = await visit.read(
        "NoticeService/ListChannels",
        lambda call, stale_ok: visit.site.services.channels.list(
            call, stale_ok=stale_ok
        ),
    )
    for view in views:
        if view.channel.name == name and view.channel.kind.value in KINDS:
            return view
    raise Refused(
        Rejected(Reason.CHANNEL_UNKNOWN, f"there is no channel {name} of these kinds")
    )


def _kind_in(visit: Visit) -> ChannelKind:
    kind = visit.form.text("kind")
    if kind not in KINDS:
        raise InvalidFieldError("kind", _("choose one of the kinds"))
    return ChannelKind(kind)


def _classes_in(visit: Visit) -> tuple[EventClass, ...]:
    """Return the ticked classes. Raises `InvalidFieldError`: none is."""
    classes = tuple(
        each for each in EventClass if visit.form.flag(f"tells_{each.value}")
    )
    if not classes:
        # For a change none means that they stay as they are.
        raise InvalidFieldError("classes", _("choose at least one class of events"))
    return classes


def _authority_in(visit: Visit) -> str:
    """Return the certificates as typed; browsers end lines with carriage returns."""
    return visit.form.text("authority").replace("\r\n", "\n")


def _carried(visit: Visit, shown: Sequence[str]) -> list[tuple[str, str]]:
    """Return the input of fields that the page does not show."""
    known = {field for fields in _SHOWN.values() for field in fields}
    return [
        (name, value)
        for name, value in visit.form.pairs
        if visit.is_form and name in known and name not in shown
    ]


def _kinds_page(visit: Visit, kind: str) -> Response:
    return visit.page(
        "channel_kind.html",
        kinds=KINDS,
        descriptions=DESCRIPTIONS,
        kind=kind if kind in KINDS else ChannelKind.WEBHOOK.value,
        carried=_carried(visit, ()),
        boxes=visit.form.text("boxes"),
    )


def _page(visit: Visit, kind: ChannelKind, view: ChannelView | None) -> Response:
    shown, channel = _SHOWN[kind], view.channel if view else None
    # A box that no page has shown is not unticked.
    boxes = {
        each for each in _BOXES if each in shown or (channel and each == "enabled")
    }
    if visit.is_form:
        boxes |= {*visit.form.text("boxes").split()} & {*_BOXES}
    is_webhook = kind is ChannelKind.WEBHOOK
    return visit.page(
        "channel.html",
        channel=channel,
        etag=view.etag if view else "",
        kind=kind.value,
        kinds=KINDS,
        descriptions=DESCRIPTIONS,
        example=EXAMPLES.get(kind, ""),
        carried=[] if channel else _carried(visit, shown),
        classes=CLASSES,
        told=channel.classes if channel else SUGGESTED,
        has_classes=is_webhook,
        has_mail=kind is ChannelKind.MAIL,
        has_address=kind is not ChannelKind.FILE,
        secret=(
            visit.site.services.channels.new_secret()
            if is_webhook and not channel
            else ""
        ),
        boxes=" ".join(sorted(boxes)),
    )
