# SPDX-License-Identifier: Apache-2.0
"""`NoticeService`: channels, and the notices that wait for them."""

from collections.abc import Sequence

from sparecode.v1 import notices_pb2 as pb
from sparecode.v1 import notices_pb2_grpc as pb_grpc
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.queries.notices import ChannelView, NoticeView
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.notices.channels import Channels
from sparecode_node.services.notices.previews import NoticePreviews

KINDS = {
    pb.CHANNEL_KIND_WEBHOOK: ChannelKind.WEBHOOK,
    pb.CHANNEL_KIND_SYSLOG: ChannelKind.SYSLOG,
    pb.CHANNEL_KIND_FILE: ChannelKind.FILE,
    pb.CHANNEL_KIND_MAIL: ChannelKind.MAIL,
}
CLASSES = {
    pb.EVENT_CLASS_ADMINISTRATION: EventClass.ADMINISTRATION,
    pb.EVENT_CLASS_EMERGENCY: EventClass.EMERGENCY,
    pb.EVENT_CLASS_TOKENS: EventClass.TOKENS,
    pb.EVENT_CLASS_SESSIONS: EventClass.SESSIONS,
    pb.EVENT_CLASS_AUTHENTICATION: EventClass.AUTHENTICATION,
    pb.EVENT_CLASS_UPKEEP: EventClass.UPKEEP,
}


class NoticeServicer(pb_grpc.NoticeServiceServicer):
    """Translates between the wire, `Channels` and `NoticePreviews`."""

    def __init__(
        self, node_id: str, channels: Channels, previews: NoticePreviews
    ) -> None:
        self._node_id = node_id
        self._previews = previews
        self._channels = channels

    async def ListChannels(
        self, request: pb.ListChannelsRequest, context: Context
    ) -> pb.ListChannelsResponse:
        """Return all channels."""
        read = await self._channels.list(
            calls.session_call(context, "NoticeService/ListChannels"),
            stale_ok=request.stale_ok,
        )
        return pb.ListChannelsResponse(
            channels=[_channel(each) for each in read.value],
            position=conversion.position(read),
        )

    async def CreateChannel(
        self, request: pb.CreateChannelRequest, context: Context
    ) -> pb.CreateChannelResponse:
        """Add a channel."""
        applied = await self._channels.create(
            calls.session_call(
                context, "NoticeService/CreateChannel", request.request_id
            ),
            name=request.name,
            kind=conversion.enum_value("kind", request.kind, KINDS),
            address=request.address,
            classes=_classes(request.classes),
            allow_private=request.allow_private,
            authority=request.authority,
            secret=request.secret,
            sender=request.sender,
            login=request.login,
            contact=request.contact,
        )
        return pb.CreateChannelResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def UpdateChannel(
        self, request: pb.UpdateChannelRequest, context: Context
    ) -> pb.UpdateChannelResponse:
        """Change a channel."""
        private = request.allow_private if request.HasField("allow_private") else None
        applied = await self._channels.update(
            calls.session_call(
                context, "NoticeService/UpdateChannel", request.request_id, request.etag
            ),
            name=request.name,
            enabled=request.enabled if request.HasField("enabled") else None,
            address=request.address if request.HasField("address") else None,
            classes=_classes(request.classes),
            allow_private=private,
            authority=request.authority if request.HasField("authority") else None,
            secret=request.secret,
            sender=request.sender if request.HasField("sender") else None,
            login=request.login if request.HasField("login") else None,
            contact=request.contact if request.HasField("contact") else None,
        )
        return pb.UpdateChannelResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def RemoveChannel(
        self, request: pb.RemoveChannelRequest, context: Context
    ) -> pb.RemoveChannelResponse:
        """Remove a channel."""
        applied = await self._channels.remove(
            calls.session_call(
                context, "NoticeService/RemoveChannel", request.request_id
            ),
            name=request.name,
        )
        return pb.RemoveChannelResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ListNotices(
        self, request: pb.ListNoticesRequest, context: Context
    ) -> pb.ListNoticesResponse:
        """Return a page of notices that are not delivered."""
        read = await self._channels.notices(
            calls.session_call(context, "NoticeService/ListNotices"),
            channel=request.channel,
            dead_only=request.dead_only,
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListNoticesResponse(
            notices=[_notice(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def SendNoticesAgain(
        self, request: pb.SendNoticesAgainRequest, context: Context
    ) -> pb.SendNoticesAgainResponse:
        """Deliver dead letters again."""
        applied = await self._channels.send_again(
            calls.session_call(
                context, "NoticeService/SendNoticesAgain", request.request_id
            ),
            channel=request.channel,
            numbers=tuple(request.numbers),
        )
        return pb.SendNoticesAgainResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def TestChannel(
        self, request: pb.TestChannelRequest, context: Context
    ) -> pb.TestChannelResponse:
        """Send a test notice."""
        tested = await self._channels.test(
            calls.session_call(context, "NoticeService/TestChannel"), name=request.name
        )
        return pb.TestChannelResponse(
            delivered=tested.delivered,
            cause=tested.cause,
            sent=tested.sent,
            received=tested.received,
            node_id=tested.node_id,
        )

    async def PreviewNotices(
        self, request: pb.PreviewNoticesRequest, context: Context
    ) -> pb.PreviewNoticesResponse:
        """Return the mails of notices, with example data."""
        read = await self._previews.write(
            calls.session_call(context, "NoticeService/PreviewNotices"),
            kind=request.kind,
            language=request.language,
            to_manager=request.to_manager,
            stale_ok=request.stale_ok,
        )
        return pb.PreviewNoticesResponse(
            previews=[
                pb.NoticePreview(
                    kind=each.kind,
                    language=each.language,
                    subject=each.subject,
                    text=each.text,
                    html=each.html,
                )
                for each in read.value
            ],
            position=conversion.position(read),
        )


def _classes(numbers: Sequence[pb.EventClass.ValueType]) -> tuple[EventClass, ...]:
    return tuple(conversion.enum_value("classes", each, CLASSES) for each in numbers)


def _channel(view: ChannelView) -> pb.Channel:
    channel = view.channel
    return pb.Channel(
        name=channel.name,
        kind=conversion.enum_number(channel.kind, KINDS),
        enabled=channel.enabled,
        address=channel.address,
        classes=[conversion.enum_number(each, CLASSES) for each in channel.classes],
        allow_private=channel.allow_private,
        authority=channel.authority,
        waiting_count=view.waiting,
        dead_count=view.dead,
        oldest_time=conversion.timestamp(view.oldest_at_ms),
        sender=channel.sender,
        login=channel.login,
        contact=channel.contact,
        etag=view.etag,
    )


def _notice(view: NoticeView) -> pb.Notice:
    return pb.Notice(
        number=view.number,
        notice_id=view.notice_id,
        channel=view.channel,
        event_class=conversion.enum_number(view.event_class, CLASSES),
        action=view.action,
        sequence=view.sequence,
        time=conversion.timestamp(view.at_ms),
        dead=view.dead,
        cause=view.cause,
    )
