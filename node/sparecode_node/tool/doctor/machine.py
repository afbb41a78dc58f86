# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine: disk, ports, and the clocks of the other members."""

import os
import socket
import statistics
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from sparecode_node.config_section import Address
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.offline.inspection import ask_members
from sparecode_node.replication.raft.admission import explained, is_final
from sparecode_node.replication.settings import MAX_CLOCK_OFFSET_S
from sparecode_node.services.ambient import Clock
from sparecode_node.services.load.condition import DISK_FLOOR_BYTES, DISK_WARNING_SHARE
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

SYNCS = 20
SYNC_WARN_S = 0.01
SYNC_FAIL_S = 0.5
CLOCK_WARN_S = 0.5
ANSWER_S = 3.0
_MIB = 1024**2


def check_disk(data_dir: Path) -> Iterator[Finding]:
    """Check the data folder and its disk."""
    try:
        mode = data_dir.stat().st_mode & 0o777
    except FileNotFoundError:
        yield fail(
            "data folder",
            f"{data_dir} does not exist: run `sparecode-node init`, or mount its disk",
        )
        return
    except OSError as error:
        yield fail("data folder", f"{data_dir}: {error.strerror}")
        return
    if mode & 0o077:
        yield warn(
            "data folder",
            f"{data_dir}: other users have access (mode {mode:04o}); restrict it with: "
            f"chmod 700 {data_dir}",
        )
    else:
        yield ok("data folder", f"{data_dir}, mode {mode:04o}")
    disk = os.statvfs(data_dir)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    words = f"{free // _MIB:,} MiB of {size // _MIB:,} MiB are free"
    if free < DISK_FLOOR_BYTES:
        yield fail("disk", f"{words}: the node will stop; free some space")
    elif free < DISK_WARNING_SHARE * size:
        yield warn("disk", f"{words}: free some space")
    else:
        yield ok("disk", words)
    try:
        times = _time_syncs(data_dir / ".doctor")
    except OSError as error:
        yield fail("disk sync", f"cannot write to {data_dir}: {error.strerror}")
        return
    median, slowest = statistics.median(times), max(times)
    words = f"median {median * 1000:.1f} ms, slowest of {SYNCS} {slowest * 1000:.1f} ms"
    if median >= SYNC_FAIL_S:
        yield fail("disk sync", f"{words}: too slow for elections; use another disk")
    elif median >= SYNC_WARN_S:
        yield warn(
            "disk sync",
            f"{words}: every change waits for a sync; below 10 ms is healthy",
        )
    else:
        yield ok("disk sync", words)


def _time_syncs(path: Path) -> list[float]:
    """Append and sync, as the journal does; return the time of each, in seconds."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        times = []
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(descriptor, b"\0" * 512)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
        return times
    finally:
        os.close(descriptor)
        path.unlink()


def check_ports(
    listeners: Mapping[str, Address], *, running: bool, udp: Iterable[Address] = ()
) -> Finding:
    """
    Check that the ports are free, or that the node is running and uses them.

    *udp*: the addresses for RADIUS.
    """
    taken = [
        f"{name} {address}"
        for name, address in listeners.items()
        if not _is_free(address)
    ]
    taken += [
        f"radius {address} (UDP)"
        for address in udp
        if not _is_free(address, socket.SOCK_DGRAM)
    ]
    if running:
        return ok(
            "ports", f"the node is running; ports in use: {', '.join(taken) or 'none'}"
        )
    if taken:
        return fail(
            "ports",
            f"the node is not running, but its ports are in use: {', '.join(taken)}; stop "
            "the other program, or change `listen` in node.toml",
        )
    return ok("ports", "all free; the node is not running")


def _is_free(address: Address, kind: int = socket.SOCK_STREAM) -> bool:
    host = address.host.strip("[]")
    try:
        addresses = socket.getaddrinfo(host, address.port, type=kind)
        for family, _, protocol, _, place in addresses:
            with socket.socket(family, kind, protocol) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                elif family == socket.AF_INET6:  # As the listener does.
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
    except OSError:
        return False
    return True


async def check_peers(
    addresses: Mapping[NodeId, str],
    tls: PeerTls,
    clock: Clock,
    *,
    other_voters: Collection[NodeId],
    votes: bool,
    hello: bytes | None = None,
) -> list[Finding]:
    """
    Check whether the other members can be reached and accept this node; their clocks.

    *votes* is whether this node is a voter: only voters count for the quorum. *hello*
    is what this node shows when it opens a link; None: the members do not judge it.
    """
    if not addresses:
        return [ok("members", "no other members are known here")]
    began_ms = clock.now_ms()
    members = await ask_members(addresses, tls, timeout_s=ANSWER_S, hello=hello)
    ended_ms = clock.now_ms()
    findings, offsets_s = [], {}
    for member in members:
        if member.refusal:
            findings.append(
                fail(
                    "members",
                    f"{member.node_id} refuses this node: {explained(member.refusal)}",
                )
            )
            continue
        if not member.reachable:
            findings.append(
                warn(
                    "members",
                    f"{member.node_id} at {addresses[member.node_id]} does not answer: "
                    "it is down, cannot be reached, or refuses this certificate",
                )
            )
            continue
        # The member read its clock at some time in between.
        early, late = member.clock_ms - ended_ms, member.clock_ms - began_ms
        off_s = 0.0 if early <= 0 <= late else min(early, late, key=abs) / 1000
        offsets_s[member.node_id] = off_s
    findings += check_clocks(offsets_s)
    if any(is_final(member.refusal) for member in members):
        return findings  # No quorum would help this node.
    reached = {member.node_id for member in members if member.reachable}
    findings += _quorum(
        len(reached & set(other_voters)) + votes, len(other_voters) + votes
    )
    return findings


def check_clocks(offsets_s: Mapping[NodeId, float]) -> Iterable[Finding]:
    """Compare the clocks of the other members with this machine's."""
    for node_id, off_s in offsets_s.items():
        words = f"{node_id} answers; its clock is {off_s:+.1f} s off"
        if abs(off_s) > MAX_CLOCK_OFFSET_S:
            yield fail(
                "clock", f"{words}: too far for a primary; synchronize it with NTP"
            )
        elif abs(off_s) > CLOCK_WARN_S:
            yield warn("clock", f"{words}: synchronize it with NTP")
        else:
            yield ok("clock", words)
    low, high = min(offsets_s.values(), default=0), max(offsets_s.values(), default=0)
    # Several clocks hardly go wrong alike.
    if (
        len(offsets_s) > 1
        and min(abs(low), abs(high)) > MAX_CLOCK_OFFSET_S > high - low
    ):
        yield fail(
            "clock",
            f"all others agree: this machine's clock is the wrong one, by {-low:+.1f} s; "
            "set it: docs/runbooks/wrong-clock.md",
        )


def _quorum(reached: int, voters: int) -> Iterable[Finding]:
    if voters and 2 * reached <= voters:
        yield fail(
            "members",
            f"{reached} of {voters} voters can be reached, which is not a quorum: start "
            "the others, or check the network",
        )
