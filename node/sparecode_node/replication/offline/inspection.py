# SPDX-License-Identifier: Apache-2.0
"""Reading a node's journal, and asking the other members, without taking part."""

import asyncio
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.codec import CodecError, decode_entry
from sparecode_node.replication.links.hello import HELLO
from sparecode_node.replication.links.tls import PeerTls, target_name
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.boots import NAME as BOOTS
from sparecode_node.replication.log.boots import read_refused_by
from sparecode_node.replication.log.file import NAME
from sparecode_node.replication.log.format import Identity, RecordKind
from sparecode_node.replication.log.journal import CONFIGURATION
from sparecode_node.replication.members import Configuration, ConfigurationError
from sparecode_node.replication.raft.follower import REGULAR
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.statemachine.commands.epochs import BeginEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The contents of a journal's file."""

    cluster_id: str
    node_id: str
    first_index: int
    last_index: int
    unfinished_bytes: int
    """
    Bytes at its end that are being written, or were torn by a crash: the next start
    cuts them off.
    """
    configuration: Configuration = Configuration()  # noqa: RUF009 - immutable.
    """The newest one in the journal."""
    journal_id: str = ""
    """The journal's name, which members compare with the one that they know."""
    begins: str = ""
    """The cluster that its first entry begins, from a backup or a surviving node."""


class DamagedJournalError(Exception):
    """The journal cannot be read; the message names the place."""


def read_journal(directory: Path) -> JournalFacts:
    """Read the whole journal. Raises `DamagedJournalError`, and `OSError`."""
    path = directory / NAME
    data = path.read_bytes()
    configurations = [(0, Configuration())]
    identity, first, last, end = Identity("", ""), 0, 0, form.FILE_HEADER_BYTES
    first_command = b""
    try:
        for batch in form.read_batches(data, form.read_file_header(data)):
            end = batch.end
            for kind, value in form.read_records(batch):
                match kind:
                    case RecordKind.IDENTITY:
                        identity = value
                    case RecordKind.BASE:
                        first = last = value[0]
                    case RecordKind.ADD:
                        last = value[1]
                        first = first or last
                        first_command = first_command or value[0]
                        configurations += _configured(value[0], last)
                    case RecordKind.TRUNCATE:
                        last = value - 1
                        configurations = [
                            each for each in configurations if each[0] <= last
                        ]
                    case RecordKind.CONFIGURATION:
                        configurations.append((0, value))
    except (form.FormatError, ConfigurationError) as error:
        raise DamagedJournalError(f"{path} {error}") from error
    if not last:
        raise DamagedJournalError(f"{path}: the first batch is damaged")
    return JournalFacts(
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        first_index=first,
        last_index=last,
        unfinished_bytes=len(data) - end,
        configuration=configurations[-1][1],
        journal_id=_journal_id(data),
        begins=_begun_by(first_command),
    )


def _journal_id(data: bytes) -> str:
    """Return the name of a journal, which its first batch holds."""
    first = next(form.read_batches(data, form.read_file_header(data)))
    kinds = dict(form.read_records(first))
    return str(kinds.get(RecordKind.JOURNAL_ID, ""))


def _begun_by(command: bytes) -> str:
    """Return the cluster that an entry begins, or an empty text."""
    if command[:1] != REGULAR:
        return ""
    try:
        calls = decode_entry(command[1:])
    except CodecError:
        return ""  # The state machine reports it.
    return "".join(
        each.command.cluster_id
        for each in calls
        if isinstance(each.command, BeginEpoch)
    )


def _configured(command: bytes, index: int) -> list[tuple[int, Configuration]]:
    """Return the configuration of an entry, if it holds one."""
    if command[:1] != CONFIGURATION:
        return []
    return [(index, Configuration.from_bytes(command[1:]))]


def refused_as_older_copy(directory: Path, journal: JournalFacts) -> str:
    """Return the member that has refused this node as an older copy; empty: none has."""
    try:
        return read_refused_by((directory / BOOTS).read_bytes(), journal.journal_id)
    except (OSError, ValueError, KeyError):
        return ""  # A damaged file counts as missing when the node starts, too.


def is_in_use(directory: Path) -> bool:
    """Return whether a node runs on the journal's directory. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


NO_JOURNAL = "none"
"""Shown by a node without a journal. No journal has this name."""


def hello_of(cluster_id: str, journal: JournalFacts | None) -> bytes:
    """Return what a node with this journal shows when it opens a link."""
    journal_id = journal.journal_id if journal is not None else ""
    hello = peers_pb2.Hello(cluster_id=cluster_id, journal_id=journal_id or NO_JOURNAL)
    return hello.SerializeToString()


async def ask_members(
    addresses: Mapping[NodeId, str],
    tls: PeerTls,
    *,
    timeout_s: float,
    hello: bytes | None = None,
) -> tuple[MemberStatus, ...]:
    """
    Return the statuses of members; the certificate is a member's.

    With *hello*, a member that would refuse a link of this node refuses the call.
    """
    metadata = () if hello is None else ((HELLO, hello),)
    return tuple(
        await asyncio.gather(
            *(
                _ask(member, address, tls, timeout_s, metadata)
                for member, address in addresses.items()
            )
        )
    )


async def _ask(
    member: NodeId,
    address: str,
    tls: PeerTls,
    timeout_s: float,
    metadata: Sequence[tuple[str, bytes]],
) -> MemberStatus:
    name = ("grpc.ssl_target_name_override", target_name(member))
    async with grpc.aio.secure_channel(
        address, tls.channel_credentials(), options=(name,)
    ) as channel:
        return await peer_messages.ask_status(
            channel, member, digest=False, timeout_s=timeout_s, metadata=metadata
        )
