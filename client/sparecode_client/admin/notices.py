# SPDX-License-Identifier: Apache-2.0
"""Calls on channels and on the notices that wait for them."""

from collections.abc import Sequence
from datetime import timedelta

from sparecode.v1 import notices_pb2
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    enum_out,
    position_in,
    time_in,
)
from sparecode_client.values.notices import (
    Channel,
    ChannelKind,
    ChannelTest,
    EventClass,
    Notice,
    NoticePreview,
)
from sparecode_client.values.results import Commit, Page


class Notices(Caller):
    """The calls of `NoticeService`."""

    async def list_channels(
        self, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> Page[Channel]:
        """Return all channels, by name, in one page."""
        request = notices_pb2.ListChannelsRequest(stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.notices.ListChannels, request, within=within
        )
        return Page(
            items=tuple(channel_in(each) for each in answer.channels),
            next_page_token="",
            position=position_in(answer.position),
        )

    async def create_channel(  # noqa: PLR0913 - one argument per field.
        self,
        name: str,
        address: str = "",
        *,
        classes: Sequence[EventClass] = (),
        secret: str = "",
        kind: ChannelKind = ChannelKind.WEBHOOK,
        allow_private: bool = False,
        authority: str = "",
        sender: str = "",
        login: str = "",
        contact: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Add a channel, which tells the events after this change.

        *address*: the URL of a webhook, or of a receiver of syslog (`tcp+tls://`); a
        file has none. *classes* and *secret* are for webhooks; the other kinds tell
        every event. The secret signs requests: see `new_webhook_secret`. *authority*:
        the authorities of the receiver's certificate in PEM.

        Mail: *address* is `smtp+starttls://`, `smtps://` or, for clear text,
        `smtp+cleartext://` and a server; *sender* the address that mails are from,
        *login* and *secret* the name and password at the server, and *contact* says how
        people reach the help desk.
        """
        request = notices_pb2.CreateChannelRequest(
            request_id=request_id or new_request_id(),
            name=name,
            kind=enum_out(notices_pb2.ChannelKind, kind),
            address=address,
            classes=_classes_out(classes),
            allow_private=allow_private,
            authority=authority,
            secret=secret,
            sender=sender,
            login=login,
            contact=contact,
        )
        answer = await self._client.unary(
            lambda node: node.notices.CreateChannel, request, within=within
        )
        return commit_in(answer.commit)

    async def update_channel(  # noqa: PLR0913 - one argument per field.
        self,
        name: str,
        *,
        enabled: bool | None = None,
        address: str | None = None,
        classes: Sequence[EventClass] = (),
        allow_private: bool | None = None,
        authority: str | None = None,
        secret: str = "",
        sender: str | None = None,
        login: str | None = None,
        contact: str | None = None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Change a channel; None, and no *classes* or *secret*, keep a value."""
        request = notices_pb2.UpdateChannelRequest(
            request_id=request_id or new_request_id(),
            name=name,
            enabled=enabled,
            address=address,
            classes=_classes_out(classes),
            allow_private=allow_private,
            authority=authority,
            secret=secret,
            sender=sender,
            login=login,
            contact=contact,
        )
        answer = await self._client.unary(
            lambda node: node.notices.UpdateChannel, request, within=within
        )
        return commit_in(answer.commit)

    async def remove_channel(
        self,
        name: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Remove a channel, and the notices that wait for it."""
        request = notices_pb2.RemoveChannelRequest(
            request_id=request_id or new_request_id(), name=name
        )
        answer = await self._client.unary(
            lambda node: node.notices.RemoveChannel, request, within=within
        )
        return commit_in(answer.commit)

    async def list_notices(
        self,
        *,
        channel: str = "",
        dead_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[Notice]:
        """Return a page of notices that are not delivered, oldest first."""
        request = notices_pb2.ListNoticesRequest(
            channel=channel,
            dead_only=dead_only,
            page_size=page_size,
            page_token=page_token,
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.notices.ListNotices, request, within=within
        )
        return Page(
            items=tuple(notice_in(each) for each in answer.notices),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def send_notices_again(
        self,
        channel: str,
        numbers: Sequence[int] = (),
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Deliver dead letters again: those of *numbers* (at most 256), or all."""
        request = notices_pb2.SendNoticesAgainRequest(
            request_id=request_id or new_request_id(), channel=channel, numbers=numbers
        )
        answer = await self._client.unary(
            lambda node: node.notices.SendNoticesAgain, request, within=within
        )
        return commit_in(answer.commit)

    async def test_channel(
        self, name: str, *, within: timedelta | None = None
    ) -> ChannelTest:
        """
        Let a node send a test notice, and return the exchange.

        A receiver that does not take it is no error: see `ChannelTest.delivered`.
        """
        answer = await self._client.unary(
            lambda node: node.notices.TestChannel,
            notices_pb2.TestChannelRequest(name=name),
            within=within,
        )
        return ChannelTest(
            delivered=answer.delivered,
            cause=answer.cause,
            sent=answer.sent,
            received=answer.received,
            node_id=answer.node_id,
        )

    async def preview_notices(
        self,
        kind: str = "",
        *,
        language: str = "",
        to_manager: bool = False,
        within: timedelta | None = None,
    ) -> tuple[NoticePreview, ...]:
        """
        Return the mail of a kind of notice, or of all, with example data.

        *language*: a tag of BCP 47; mails that are not written in it are in English.
        *to_manager*: what the user's manager gets.
        """
        answer = await self._client.unary(
            lambda node: node.notices.PreviewNotices,
            notices_pb2.PreviewNoticesRequest(
                kind=kind, language=language, to_manager=to_manager
            ),
            within=within,
        )
        return tuple(
            NoticePreview(
                kind=each.kind,
                language=each.language,
                subject=each.subject,
                text=each.text,
                html=each.html,
            )
            for each in answer.previews
        )


def _classes_out(
    classes: Sequence[EventClass],
) -> list[notices_pb2.EventClass.ValueType]:
    return [enum_out(notices_pb2.EventClass, each) for each in classes]


def channel_in(channel: notices_pb2.Channel) -> Channel:
    """Convert a channel. Classes that this release does not know are left out."""
    classes = (
        enum_in(EventClass, notices_pb2.EventClass, each) for each in channel.classes
    )
    return Channel(
        name=channel.name,
        kind=enum_in(ChannelKind, notices_pb2.ChannelKind, channel.kind),
        enabled=channel.enabled,
        address=channel.address,
        classes=tuple(each for each in classes if each is not None),
        allow_private=channel.allow_private,
        authority=channel.authority,
        waiting_count=channel.waiting_count,
        dead_count=channel.dead_count,
        oldest_time=time_in(channel, "oldest_time"),
        sender=channel.sender,
        login=channel.login,
        contact=channel.contact,
    )


def notice_in(notice: notices_pb2.Notice) -> Notice:
    """Convert a notice."""
    return Notice(
        number=notice.number,
        notice_id=notice.notice_id,
        channel=notice.channel,
        event_class=enum_in(EventClass, notices_pb2.EventClass, notice.event_class),
        action=notice.action,
        sequence=notice.sequence,
        time=time_in(notice, "time"),
        dead=notice.dead,
        cause=notice.cause,
    )
