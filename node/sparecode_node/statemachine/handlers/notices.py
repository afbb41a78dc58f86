# SPDX-License-Identifier: Apache-2.0
"""Handlers of channels and of the notices that wait for them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.notices import (
    CAUSE_MAX,
    CHANNELS_MAX,
    SETTLED_MAX,
    STREAMS,
    Channel,
    ChannelKind,
    EventClass,
)
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.notices import (
    AcknowledgeNotices,
    FailNotices,
    RemoveChannel,
    SaveChannel,
    SendNoticesAgain,
)
from sparecode_node.statemachine.etags import outdated
from sparecode_node.statemachine.tables import notices as tables


def save_channel(applying: Applying, command: SaveChannel) -> Rejected | None:
    """Apply `SaveChannel`."""
    known = tables.find(applying.db, command.channel)
    refused = _check(applying, command, known)
    if refused is not None:
        return refused
    channel = Channel(
        name=command.name,
        channel=command.channel,
        kind=command.kind,
        enabled=command.enabled,
        address=command.address,
        classes=tuple(EventClass(each) for each in command.classes),
        allow_private=command.allow_private,
        authority=command.authority,
        sealed_secret=b"" if command.sealed_secret is None else command.sealed_secret,
        key_id=command.key_id,
        version=applying.index,
        sender=command.sender,
        login=command.login,
        contact=command.contact,
    )
    if known is not None and command.sealed_secret is None:
        channel = replace(
            channel, sealed_secret=known.sealed_secret, key_id=known.key_id
        )
    applying.detail = _words(channel, known, new_secret=bool(command.sealed_secret))
    tables.save(applying.db, channel)
    return None


def _check(
    applying: Applying, command: SaveChannel, known: Channel | None
) -> Rejected | None:
    kept = known is not None and command.sealed_secret is None
    if not kept and command.key_id != applying.keys.active:
        return Rejected(Reason.STALE_PARAMETERS)
    if command.version and known is None:
        return _unknown(command.channel)
    if known is not None and not command.version:
        return Rejected(
            Reason.CHANNEL_EXISTS, f"channel {command.name} already exists", "name"
        )
    if known is not None and known.version != command.version:
        return outdated(applying.target)
    if known is not None and known.kind is not command.kind:
        return Rejected(
            Reason.CHANNEL_SETTINGS,
            f"channel {known.name} is of kind {known.kind}: remove it, and create another one",
            "kind",
        )
    is_mail = command.kind is ChannelKind.MAIL
    if bool(command.classes) == is_mail or not {*command.classes} <= {*EventClass}:
        return Rejected(
            Reason.CHANNEL_SETTINGS,
            "people hear of what concerns them: mail has no classes of events"
            if is_mail
            else "a channel tells at least one of: " + " ".join(EventClass),
            "classes",
        )
    if known is None and tables.count(applying.db) >= CHANNELS_MAX:
        return Rejected(
            Reason.CHANNELS_FULL,
            f"there are {CHANNELS_MAX} channels already: remove one first",
        )
    if known is None and is_mail:
        mail = tables.mail_channel(applying.db)
        if mail is not None:
            return Rejected(
                Reason.CHANNEL_EXISTS,
                f"channel {mail} sends mail already: people would hear twice",
                "kind",
            )
    return None


def _words(channel: Channel, known: Channel | None, *, new_secret: bool) -> str:
    """Return the settings of a channel in words: an approver decides by them."""
    words = [_receiver(channel)]
    if channel.kind is ChannelKind.MAIL or channel.sender or channel.login:
        words.append(f"from {channel.sender}")
        words.append(f"signs in as {channel.login}" if channel.login else "no sign-in")
    if channel.classes:
        words.append(f"tells {' '.join(channel.classes)}")
    if channel.allow_private:
        words.append("the address may be private")
    if channel.authority:
        # As `sha256sum` shows of the file that the author sent.
        named = hashlib.sha256(channel.authority.encode()).hexdigest()
        words.append(f"certificate of its own authority with SHA-256 {named}")
    if channel.contact:
        words.append(f"contact {channel.contact}")
    if not channel.enabled:
        words.append("disabled")
    elif known is not None and not known.enabled:
        words.append("enabled again")
    if new_secret:
        words.append("new secret")
    return ", ".join(words)


def _receiver(channel: Channel) -> str:
    """Return where a channel tells its events, in words."""
    if channel.kind is ChannelKind.FILE:
        return "file in the folder that each node's node.toml names"
    return f"{channel.kind} to {channel.address}"


def remove_channel(applying: Applying, command: RemoveChannel) -> Rejected | None:
    """Apply `RemoveChannel`."""
    known = tables.find(applying.db, command.channel)
    if known is None:
        return _unknown(command.channel)
    waiting = tables.remove(applying.db, command.channel)
    applying.detail = _receiver(known)
    if waiting:
        applying.detail += f", {plural(waiting, 'notice')} discarded"
    return None


def acknowledge_notices(
    applying: Applying, command: AcknowledgeNotices
) -> Rejected | None:
    """
    Apply `AcknowledgeNotices`. Notices that are gone already are passed over.

    What has not happened yet cannot be acknowledged: it would never be told.
    """
    known = tables.find(applying.db, command.channel)
    if known is None:
        return _unknown(command.channel)
    if known.version != command.version:
        return outdated(applying.target)
    if known.kind in STREAMS:
        refused = _beyond(command.numbers, tables.newest_event(applying.db))
        if refused is None:
            newest = max(command.numbers, default=0)
            tables.advance(applying.db, command.channel, newest)
        return refused
    refused = _beyond(command.numbers, tables.newest_number(applying.db))
    if refused is None:
        tables.acknowledge(applying.db, command.channel, command.numbers)
    return refused


def _beyond(numbers: Sequence[int], newest: int) -> Rejected | None:
    """Refuse numbers that no notice or event has had yet, and too many of them."""
    if len(numbers) > SETTLED_MAX:
        return Rejected(
            Reason.NOTICE_UNKNOWN,
            f"{len(numbers)} notices are too many at a time: name {SETTLED_MAX}",
            "numbers",
        )
    for number in numbers:
        if not 0 < number <= newest:
            return Rejected(
                Reason.NOTICE_UNKNOWN,
                f"there is no notice {number}: the newest one is {newest}",
                "numbers",
            )
    return None


def fail_notices(applying: Applying, command: FailNotices) -> Rejected | None:
    """Apply `FailNotices`."""
    known = tables.find(applying.db, command.channel)
    if known is None:
        return _unknown(command.channel)
    if known.version != command.version:
        return outdated(applying.target)
    refused = _beyond(command.numbers, tables.newest_number(applying.db))
    if refused is not None:
        return refused
    cause = command.cause[:CAUSE_MAX]
    dead = tables.fail(applying.db, command.channel, command.numbers, cause)
    applying.detail = f"{plural(dead, 'notice')} not delivered: {cause}"
    if command.disable and known.enabled:
        tables.save(applying.db, replace(known, enabled=False, version=applying.index))
        applying.detail += ", the receiver wants no more: disabled"
    return None


def send_notices_again(
    applying: Applying, command: SendNoticesAgain
) -> Rejected | None:
    """Apply `SendNoticesAgain`."""
    if tables.find(applying.db, command.channel) is None:
        return _unknown(command.channel)
    refused = _beyond(command.numbers, tables.newest_number(applying.db))
    if refused is not None:
        return refused
    again = tables.revive(
        applying.db, command.channel, command.numbers, applying.now_ms
    )
    if not again:
        # No event: a call that changes nothing would fill the channels with notices.
        applying.unrecorded = True
        return Rejected(
            Reason.NOTICE_UNKNOWN,
            f"nothing to send again: no dead letter of channel {command.channel}"
            + (" has these numbers" if command.numbers else ""),
            "numbers" if command.numbers else "channel",
        )
    applying.detail = plural(again, "notice")
    return None


def _unknown(channel: NameKey) -> Rejected:
    return Rejected(Reason.CHANNEL_UNKNOWN, f"there is no channel {channel}", "name")
