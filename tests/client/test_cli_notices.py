# SPDX-License-Identifier: Apache-2.0
"""`sparecode notices`: channels, and notices that are not delivered."""

import json
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from standardwebhooks import Webhook

from sparecode.v1 import notices_pb2 as pb
from tests.client import answers
from tests.client.conftest import Cli

SERVICE = "NoticeService"
SIEM = pb.Channel(
    name="siem",
    kind=pb.CHANNEL_KIND_WEBHOOK,
    enabled=True,
    address="https://siem.example/in",
    classes=[pb.EVENT_CLASS_ADMINISTRATION, pb.EVENT_CLASS_EMERGENCY],
    waiting_count=3,
    dead_count=1,
    oldest_time=Timestamp(seconds=1_800_000_000),
)
DEAD = pb.Notice(
    number=7,
    notice_id="c-8-1",
    channel="siem",
    event_class=pb.EVENT_CLASS_EMERGENCY,
    action="SET_LOW",
    dead=True,
    cause="answered 500",
)


@pytest.fixture
def notices(cli: Cli) -> Cli:
    for name in ("CreateChannel", "UpdateChannel", "RemoveChannel", "SendNoticesAgain"):
        answer = getattr(pb, f"{name}Response")(commit=answers.COMMIT)
        cli.node.answer(f"{SERVICE}/{name}", answer)
    cli.node.answer(f"{SERVICE}/ListChannels", pb.ListChannelsResponse(channels=[SIEM]))
    cli.node.answer(f"{SERVICE}/ListNotices", pb.ListNoticesResponse(notices=[DEAD]))
    return cli


def test_a_channel_needs_an_event_and_sends_its_secret(
    notices: Cli, tmp_path: Path
) -> None:
    """(N5) The secret comes from a file, never from the command line."""
    file = tmp_path / "hook.secret"
    file.write_text("whsec_abc\n", encoding="utf-8")
    words = ("notices", "channels", "create", "siem", "https://siem.example/in")
    refused = notices(*words, "--secret-file", str(file))
    assert (refused.exit_code, refused.stdout) == (2, "")
    notices(*words, "--event", "tokens", "--secret-file", str(file))
    (request,) = notices.node.requests(f"{SERVICE}/CreateChannel")
    assert request == pb.CreateChannelRequest(
        request_id=request.request_id,
        name="siem",
        kind=pb.CHANNEL_KIND_WEBHOOK,
        address="https://siem.example/in",
        classes=[pb.EVENT_CLASS_TOKENS],
        secret="whsec_abc",
    )


def test_a_drawn_secret_signs_and_is_another_each_time(notices: Cli) -> None:
    """(N3) It is printed alone, for a file."""
    drawn = [notices("notices", "channels", "new-secret").stdout for _ in range(2)]
    assert len({*drawn}) == 2
    for each in drawn:
        assert each.startswith("whsec_")
        assert Webhook(each.strip())


def test_lists_tell_what_waits_and_what_was_given_up(notices: Cli) -> None:
    """(N2)."""
    shown = json.loads(notices("notices", "channels", "list", "-o", "json").stdout)
    (channel,) = shown["channels"]
    assert (channel["waiting_count"], channel["dead_count"]) == (3, 1)
    assert channel["classes"] == ["administration", "emergency"]
    table = notices("notices", "list", "--dead", "--channel", "siem").stdout
    assert "answered 500" in table
    (request,) = notices.node.requests(f"{SERVICE}/ListNotices")
    assert request.dead_only
    assert request.channel == "siem"


def test_changes_send_only_what_was_named(notices: Cli) -> None:
    """(N5)."""
    notices("notices", "channels", "disable", "siem")
    notices("notices", "channels", "update", "siem", "--public-only")
    notices("notices", "channels", "remove", "siem")
    notices("notices", "send-again", "siem", "7", "8")
    disabled, changed = notices.node.requests(f"{SERVICE}/UpdateChannel")
    assert disabled == pb.UpdateChannelRequest(
        request_id=disabled.request_id, name="siem", enabled=False
    )
    assert changed == pb.UpdateChannelRequest(
        request_id=changed.request_id, name="siem", allow_private=False
    )
    (again,) = notices.node.requests(f"{SERVICE}/SendNoticesAgain")
    assert (again.channel, list(again.numbers)) == ("siem", [7, 8])
    (removed,) = notices.node.requests(f"{SERVICE}/RemoveChannel")
    assert removed.name == "siem"


def test_a_test_shows_the_exchange_and_fails_with_it(notices: Cli) -> None:
    """(N2) A script can tell whether the receiver took it."""
    answer = pb.TestChannelResponse(
        delivered=True,
        sent="POST https://siem.example/in\n\n{}",
        received="HTTP 204\n",
        node_id="n2",
    )
    notices.node.answer(f"{SERVICE}/TestChannel", answer)
    taken = notices("notices", "test", "siem")
    assert taken.exit_code == 0
    for words in ("POST https://siem.example/in", "HTTP 204", "Delivered by n2"):
        assert words in taken.stdout
    answer.delivered, answer.cause = False, "answered 500"
    notices.node.answer(f"{SERVICE}/TestChannel", answer)
    failed = notices("notices", "test", "siem")
    assert failed.exit_code == 3
    assert "NOT DELIVERED by n2: answered 500" in failed.stdout


def test_a_channel_for_mail_names_server_sender_and_contact(
    notices: Cli, tmp_path: Path
) -> None:
    """(N6) Its password comes from a file; without a login there is none."""
    file = tmp_path / "mail.password"
    file.write_text("secret\n", encoding="utf-8")
    words = ("notices", "channels", "create", "mail", "smtps://mail.example")
    settings = ("--kind", "mail", "--from", "a@example.com", "--contact", "Call 1.")
    notices(*words, *settings, "--login", "sparecode", "--secret-file", str(file))
    notices(*words, *settings)
    notices("notices", "channels", "update", "mail", "--contact", "Call 2.")
    signed_in, bare = notices.node.requests(f"{SERVICE}/CreateChannel")
    assert signed_in == pb.CreateChannelRequest(
        request_id=signed_in.request_id,
        name="mail",
        kind=pb.CHANNEL_KIND_MAIL,
        address="smtps://mail.example",
        secret="secret",
        sender="a@example.com",
        login="sparecode",
        contact="Call 1.",
    )
    assert (bare.login, bare.secret) == ("", "")
    (changed,) = notices.node.requests(f"{SERVICE}/UpdateChannel")
    assert changed == pb.UpdateChannelRequest(
        request_id=changed.request_id, name="mail", contact="Call 2."
    )


def test_a_preview_shows_the_mail_of_a_kind(notices: Cli) -> None:
    """(N6) As text, as HTML or as JSON; without a kind, the subjects of all."""
    codes = pb.NoticePreview(
        kind="codes_issued",
        language="de",
        subject="Notfallcodes",
        text="Guten Tag Alex,\n",
        html="<p>Guten Tag</p>\n",
    )
    locked = pb.NoticePreview(kind="locked", subject="Gesperrt")
    answer = pb.PreviewNoticesResponse(previews=[codes])
    notices.node.answer(f"{SERVICE}/PreviewNotices", answer)
    shown = notices("notices", "preview", "codes_issued", "--language", "de")
    assert shown.stdout.startswith("Notfallcodes\n\nGuten Tag Alex,")
    asked = notices.node.requests(f"{SERVICE}/PreviewNotices")[-1]
    assert (asked.kind, asked.language, asked.to_manager) == (
        "codes_issued",
        "de",
        False,
    )
    shown = notices("notices", "preview", "codes_issued", "--html", "--manager")
    assert shown.stdout.startswith("<p>Guten Tag</p>")
    assert notices.node.requests(f"{SERVICE}/PreviewNotices")[-1].to_manager
    answer.previews.append(locked)
    notices.node.answer(f"{SERVICE}/PreviewNotices", answer)
    shown = notices("notices", "preview")
    assert "codes_issued" in shown.stdout
    assert "Gesperrt" in shown.stdout
    assert notices("notices", "preview", "--html").exit_code != 0
