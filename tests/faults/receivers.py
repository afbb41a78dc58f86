# SPDX-License-Identifier: Apache-2.0
"""
Who hears of events in a campaign: a webhook, and a file on each node's disk.

The webhook verifies each request. Strikes let it hang, fail, or be closed for a while.
"""

import asyncio
import contextlib
import enum
import json
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from local_cluster.cluster import LocalCluster, LocalNode

from sparecode_client import AsyncAdmin
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from tests.faults.network import CLIENTS_ADDRESS
from tests.services.receiver import AUTHORITY, FAILED, Receiver, receiver
from tests.system.arrivals import Arrivals

WEBHOOK, FILE = "siem", "events"
"""The names of the channels."""
CLASSES = (EventClass.ADMINISTRATION, EventClass.EMERGENCY, EventClass.TOKENS)
FOLDER = "events"
"""In the data folder, so that power cuts and full disks hit the file, too."""
CLOSES_S = 5.0


class Mode(enum.Enum):
    """How the webhook behaves."""

    WORKS = enum.auto()
    HANGS = enum.auto()
    FAILS = enum.auto()
    IS_CLOSED = enum.auto()


def folder_of(node: LocalNode) -> Path:
    """Return the folder for a node's file of events."""
    return node.directory / "data" / FOLDER


def write_files(node: LocalNode) -> None:
    """Let a node write files of events. Before it starts."""
    folder_of(node).mkdir()
    setting = f'event_folder = "{folder_of(node)}"'
    text = node.config.read_text()
    node.config.write_text(text.replace("[node]\n", f"[node]\n{setting}\n", 1))


class Receivers:
    """The webhook, as an async context manager. A strike may use it from its thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hook = Receiver()
        self._mode = Mode.WORKS
        self._met = 0
        self.arrivals = Arrivals(secret=new_webhook_secret(), clocks_jump=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._hook = await self._open.enter_async_context(
            receiver(self._folder, host=CLIENTS_ADDRESS, bind=CLIENTS_ADDRESS)
        )
        self._hook.answer = self._answer
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def create_channels(self, admin: AsyncAdmin) -> None:
        """Let the cluster tell the webhook and the files."""
        await admin.create_channel(FILE, kind=ChannelKind.FILE)
        await admin.create_channel(
            WEBHOOK,
            self._hook.url,
            kind=ChannelKind.WEBHOOK,
            classes=CLASSES,
            secret=self.arrivals.secret,
            allow_private=True,
            authority=AUTHORITY.pem.decode(),
        )

    def _answer(self, _: int) -> bytes | None:
        answer: bytes | None
        match self._mode:
            case Mode.HANGS:
                self._met += 1
                answer = None
            case Mode.FAILS:
                self._met += 1
                headers, _body = self._hook.requests[-1]
                self.arrivals.refuse(headers["webhook-id"])
                answer = FAILED
            case _:
                answer = self.arrivals.take(self._hook)
        self._hook.requests.clear()
        return answer

    # --- For strikes, from another thread

    @property
    def taken(self) -> int:
        """How many notices the webhook has taken, repetitions included."""
        return len(self.arrivals.events) + self.arrivals.repeated

    def begin(self, mode: Mode) -> None:
        """Misbehave from now on."""
        self._met, self._mode = 0, mode
        if mode is Mode.IS_CLOSED:
            self._met = self._in_loop(self._close())

    def end(self) -> int:
        """Work again; return how many requests or connections met the misbehavior."""
        if self._mode is Mode.IS_CLOSED:
            self._in_loop(self._reopen())
        self._mode = Mode.WORKS
        return self._met

    def _in_loop(self, work: Coroutine[object, object, int]) -> int:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSES_S)

    async def _close(self) -> int:
        return self._hook.close()

    async def _reopen(self) -> int:
        await self._hook.open()
        return 0


def lines_of(node: LocalNode) -> list[bytes]:
    """Return the lines of all files of events of a node, oldest first."""
    newest = folder_of(node) / f"{FILE}.jsonl"
    earlier = sorted(
        newest.parent.glob(f"{newest.name}.*"), key=lambda each: -int(each.suffix[1:])
    )
    files = [each for each in (*earlier, newest) if each.exists()]
    return [line for file in files for line in file.read_bytes().splitlines()]


def spoiled(
    lines: Iterable[bytes], first: int, events: Sequence[str], removed: int = 0
) -> str:
    """
    Return what is wrong with a node's files; empty: nothing.

    They must have each of *events* once, in order, and perhaps later ones: those of the
    audit log from the number *first* on, each as its number, action and target. They may
    lack those up to the number *removed*: retention may have removed an event before a
    node that joined, or was down, could write it.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            found.append(summary(content))
        except (ValueError, KeyError, TypeError):
            return f"line {number} is no event: {line[:80]!r}"
    position, end = 0, len(events)
    may_lack = min(end, max(0, removed + 1 - first))
    for seen in found:
        while position < may_lack and seen != events[position]:
            position += 1
        if position < end and seen != events[position]:
            return f"{seen} in place of {events[position]}, event {first + position}"
        position += 1
    missing = end - max(position, may_lack)
    return f"{missing} events are missing at the end" if missing > 0 else ""


def summary(event: dict[str, object]) -> str:
    """Return number, action and target of an event in a file."""
    return f"{event['sequence']} {event['action']} {event['target']}"


def newest_in(lines: Sequence[bytes]) -> int:
    """Return the number of the last event in a node's files; 0: there is none."""
    if not lines:
        return 0
    with contextlib.suppress(ValueError):  # It is being written.
        return int(json.loads(lines[-1])["sequence"])
    return newest_in(lines[:-1])


def all_files(cluster: LocalCluster) -> dict[str, list[bytes]]:
    """Return the lines of every node."""
    return {node.node_id: lines_of(node) for node in cluster.nodes}
