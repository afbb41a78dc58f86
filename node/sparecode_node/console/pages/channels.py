# SPDX-License-Identifier: Apache-2.0
"""Channels: what waits for them, dead letters, and tests."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt, change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.channel_settings import KINDS
from sparecode_node.services.notices.outcomes import ChannelTest

TEST_S = 20.0
"""For a test notice with its answer."""


async def show(visit: Visit) -> Response:
    """List channels and dead letters; test a channel, or send its dead letters again."""
    tested: ChannelTest | None = None
    services, name = visit.site.services, visit.form.text("channel")
    if visit.is_form and visit.form.text("action") == "test":
        tested = await attempt(
            visit,
            "NoticeService/TestChannel",
            lambda call: services.channels.test(call, name=name),
            within_s=TEST_S,
        )
    elif visit.is_form:
        answer = await change(
            visit,
            "NoticeService/SendNoticesAgain",
            lambda call: services.channels.send_again(call, channel=name),
            to="/channels",
            words=_("The dead letters are sent again."),
        )
        if answer is not None:
            return answer
    channels = await visit.read(
        "NoticeService/ListChannels",
        lambda call, stale_ok: services.channels.list(call, stale_ok=stale_ok),
    )
    dead = await visit.read(
        "NoticeService/ListNotices",
        lambda call, stale_ok: services.channels.notices(
            call,
            dead_only=True,
            page_token=visit.query.word("page"),
            stale_ok=stale_ok,
        ),
    )
    return visit.page(
        "channels.html",
        channels=channels,
        dead=dead,
        tested=tested,
        tested_name=name,
        kinds=KINDS,
    )
