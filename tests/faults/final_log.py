# SPDX-License-Identifier: Apache-2.0
"""
The audit log in the end: the same on every node, proved, and told to every receiver.

Each node exports its own log, sealed segments included, and its archive has what retention
has removed. The client library, which shares no code with the nodes, verifies both as one
log against a checkpoint that the cluster signed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sparecode_client import AuditEvent
from sparecode_client.audit.verification import verify
from sparecode_client.values.segments import (
    SegmentState,
    archived_ranges,
    ranges_in,
)
from tests.faults import archived_log
from tests.faults.archived_log import ArchiveError
from tests.faults.doors import Doors
from tests.faults.receivers import (
    CLASSES,
    FILE,
    WEBHOOK,
    Receivers,
    all_files,
    newest_in,
    spoiled,
)
from tests.faults.site import SEGMENT_EVENTS, Site
from tests.system.arrivals import differences, dropped, wanted

DRAIN_S = 300.0
"""For everything that waits to be delivered, and for missing segments to be fetched."""
SHOWN = 5
"""Faults of one kind that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalLog:
    """What the audit log, its segments and its receivers have shown."""

    events: int
    """Events of the audit log."""
    sealed: int
    """Sealed segments."""
    fetched: int
    """Segments that nodes have fetched from others."""
    archived: int
    """Segments that every archive has, proved."""
    removed: int
    """Of these, segments that retention has removed from all nodes."""
    committed: int
    """Events that the webhook wants."""
    arrived: int
    repeated: int
    """Arrivals under an id that had arrived before."""
    refused: int
    """Notices that the webhook did not take at first."""
    dropped: int
    """Notices that the audit log says were dropped."""
    filed: int
    """Lines in the files of all nodes."""
    faults: tuple[str, ...]


async def look(
    doors: Doors, site: Site, receivers: Receivers, folder: Path
) -> FinalLog:
    """Wait until everything has arrived, and compare it with the log of every node."""
    faults: list[str] = []
    checkpoint = await doors.admin.get_checkpoint()
    if waiting := await _until_none(lambda: _waiting(doors)):
        faults.append(f"not delivered after {DRAIN_S:.0f} s: {waiting}")
    if missing := await _until_none(lambda: _missing(doors)):
        faults.append(f"still missing after {DRAIN_S:.0f} s: {missing}")
    if short := await _until_none(lambda: _unarchived(doors)):
        faults.append(f"still not in all archives after {DRAIN_S:.0f} s: {short}")
    status = await doors.admin.get_status()
    told, whole_archives = status.audit_retention, 0
    # Nodes write how many refusals they did not write one by one up to a minute later.
    arrivals = receivers.arrivals.so_far()
    log: list[AuditEvent] = []
    for node in doors.names:
        path = folder / f"audit-{node}.jsonl"
        if error := await doors.export_log(node, path):
            faults.append(f"the audit log of {node} cannot be read: {error}")
            continue
        try:
            await asyncio.to_thread(
                archived_log.join,
                site.archives[node].mountpoint,
                path,
                whole := folder / f"whole-{node}.jsonl",
                sealed=checkpoint.sequence // SEGMENT_EVENTS,
            )
        except ArchiveError as error:
            faults.append(f"the archive of {node}: {error}")
            continue
        whole_archives += 1
        verdict = await asyncio.to_thread(verify, whole, [checkpoint])
        if verdict.problem is not None:
            faults.append(f"the audit log of {node}: {verdict.problem.words}")
        elif (verdict.first, verdict.proved_up_to) != (1, checkpoint.sequence):
            faults.append(
                f"the audit log of {node} is proved from {verdict.first} to "
                f"{verdict.proved_up_to}, of {checkpoint.sequence} events"
            )
        log = log or [event_of(line) for line in whole.read_bytes().splitlines()]
    channel = f"channel {WEBHOOK}"
    committed, untold = wanted(log, channel, CLASSES), dropped(log, channel)
    faults += arrivals.faults[:SHOWN]
    faults += differences(
        arrivals, committed, up_to=checkpoint.sequence, dropped=untold
    )[:SHOWN]
    removed = last_of(told.removed_segments) if told else 0
    filed = await _files(site, log, faults, removed=removed * SEGMENT_EVENTS)
    return FinalLog(
        events=len(log),
        sealed=len(log) // SEGMENT_EVENTS,
        fetched=site.count("segment_fetched"),
        archived=status.sealed_segments if whole_archives == len(doors.names) else 0,
        removed=removed,
        committed=len(committed),
        arrived=len(arrivals.events),
        repeated=arrivals.repeated,
        refused=len(arrivals.refused),
        dropped=untold,
        filed=filed,
        faults=tuple(faults),
    )


async def _until_none(look: Callable[[], Awaitable[str]]) -> str:
    """Return the empty string once there is nothing left, or what is left in the end."""
    left = await look()
    deadline = asyncio.get_running_loop().time() + DRAIN_S
    while left and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)
        left = await look()
    return left


async def _waiting(doors: Doors) -> str:
    channels = (await doors.admin.list_channels()).items
    return ", ".join(
        f"{each.waiting_count} notices to {each.name}, {each.dead_count} dead letters"
        for each in channels
        if each.waiting_count or each.dead_count
    )


async def _missing(doors: Doors) -> str:
    members = (await doors.admin.get_status()).members
    return ", ".join(
        f"{each.node_id} lacks segments {each.missing_segments}"
        if each.reachable
        else f"{each.node_id} is not reachable"
        for each in members
        if each.missing_segments or not each.reachable
    )


async def _unarchived(doors: Doors) -> str:
    """Return the segments that fewer archives have than there are nodes, in words."""
    status = await doors.admin.get_status()
    if (told := status.audit_retention) is None:
        return "no node knows archives"
    # By the copies: no retention is set at the end, so the status names no short ones.
    return ", ".join(
        f"{each.first} to {each.last} in {each.copies}"
        for each in archived_ranges(status, told)
        if each.state in {SegmentState.ARCHIVED, SegmentState.WAITING}
        and each.copies < told.archives_wanted
    )


def last_of(segments: str) -> int:
    """Return the last number of segments in words; 0: there are none."""
    return max((last for _, last in ranges_in(segments)), default=0)


async def _files(
    site: Site, log: list[AuditEvent], faults: list[str], *, removed: int
) -> int:
    """
    Compare the files of every node with the log; return the number of their lines.

    *removed*: the last event that retention has removed.
    """
    begin = next(
        (
            position
            for position, event in enumerate(log)
            if (event.action, event.target) == ("SaveChannel", f"channel {FILE}")
        ),
        len(log),
    )
    events = [f"{each.sequence} {each.action} {each.target}" for each in log[begin:]]

    async def behind() -> str:
        files = await asyncio.to_thread(all_files, site.cluster)
        return ", ".join(
            f"{node} has written event {newest} of {len(log)} into its file"
            for node, lines in files.items()
            if (newest := newest_in(lines)) < len(log)
        )

    if late := await _until_none(behind):
        faults.append(f"{late} after {DRAIN_S:.0f} s")
    files = all_files(site.cluster)
    for node, lines in files.items():
        if problem := spoiled(lines, begin + 1, events, removed):
            faults.append(f"the file of {node}: {problem}")
    return sum(map(len, files.values()))


def event_of(line: bytes) -> AuditEvent:
    """Return the event of a line of an export; it keeps no time."""
    content = json.loads(line)
    return AuditEvent(
        sequence=int(content["sequence"]),
        time=None,
        actor=content["actor"],
        node_id=content["node"],
        action=content["action"],
        target=content["target"],
        outcome=content["outcome"],
        reason=content["reason"],
        detail=content["detail"],
        previous_hash=content["previous_hash"],
        hash=content["hash"],
    )
