# SPDX-License-Identifier: Apache-2.0
"""
Channels: a new one, and the settings of one that exists (N5).

The secret of a webhook is drawn for the form and shown in it, because the change may
wait for an approval. No page shows it after that. The password of a mail server is
typed, and never shown.
"""

from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.notices import Channel, ChannelKind, EventClass
from sparecode_node.domain.outcomes import Reason, Rejected
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


async def add(visit: Visit) -> Response:
    """Create a channel."""
    visit.require(CREATE)
    if visit.is_form:
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
    return _page(visit, None)


async def _create(visit: Visit, call: CallContext) -> Applied:
    kind = _kind_in(visit)
    is_webhook, is_mail = kind is ChannelKind.WEBHOOK, kind is ChannelKind.MAIL
    return await visit.site.services.channels.create(
        call,
        name=visit.form.text("name"),
        kind=kind,
        address=visit.form.text("address"),
        classes=_classes_in(visit) if is_webhook else (),
        secret=_secret_in(visit, kind),
        allow_private=visit.form.flag("allow_private"),
        authority=_authority_in(visit),
        sender=visit.form.text("sender") if is_mail else "",
        login=visit.form.text("login") if is_mail else "",
        contact=visit.form.text("contact") if is_mail else "",
    )


async def edit(visit: Visit) -> Response:
    """Change a channel, or remove it."""
    visit.require(UPDATE)
    channel = await _channel(visit, visit.request.path_params["name"])
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
    else:
        answer = None
    return _page(visit, channel) if answer is None else answer


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


async def _channel(visit: Visit, name: str) -> Channel:
    """Return a channel that this page can change. Raises `Refused`: there is none."""
    views = await visit.read(
        "NoticeService/ListChannels",
        lambda call, stale_ok: visit.site.services.channels.list(
            call, stale_ok=stale_ok
        ),
    )
    for view in views:
        if view.channel.name == name and view.channel.kind.value in KINDS:
            return view.channel
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


def _page(visit: Visit, channel: Channel | None) -> Response:
    drawn = "" if channel else visit.site.services.channels.new_secret()
    return visit.page(
        "channel.html",
        channel=channel,
        kinds=KINDS,
        classes=CLASSES,
        told=channel.classes if channel else SUGGESTED,
        has_classes=channel is None or channel.kind is ChannelKind.WEBHOOK,
        has_mail=channel is None or channel.kind is ChannelKind.MAIL,
        has_address=channel is None or channel.kind is not ChannelKind.FILE,
        secret=drawn,
        boxes=" ".join(
            ["enabled", "allow_private", *(f"tells_{each.value}" for each in CLASSES)]
        ),
    )
