# SPDX-License-Identifier: Apache-2.0
"""
The thread that owns the engine, the journal, the state and its connection.

It meets the asyncio loop in two queues: jobs come through a pipe that wakes its poller,
and results go through `call_soon_threadsafe`. It waits only in the poller and for the
disk.
"""

import asyncio
import collections
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import (
    Fatal,
    NoPrimaryError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
    SnapshotRefusedError,
)
from sparecode_node.replication.raft.engine import now
from sparecode_node.replication.raft.guard import Wire
from sparecode_node.replication.raft.membership_changes import Change
from sparecode_node.replication.raft.read_index import ReadPoint, Word
from sparecode_node.replication.raft.stalls import Stalls
from sparecode_node.replication.replica.observer import (
    ObservedStorage,
    Observer,
    Unobserved,
)
from sparecode_node.replication.replica.replica import (
    Replica,
    ReplicaConfig,
    ReplicaStatus,
)
from sparecode_node.replication.replicator import Proposal, Stamper
from sparecode_node.replication.settings import PROPOSALS_QUEUED_MAX
from sparecode_node.replication.snapshots.store import Manifest, measure_newest
from sparecode_node.statemachine.results import Result

log = logging.getLogger(__name__)

_T = TypeVar("_T")

INBOX_MAX = 16384
"""Jobs waiting for the engine; if there are more, a link from a peer is reset."""

GRACE_S = 0.25
"""
The engine answers at the deadline. After this time more, it is held up, by the disk for
example.
"""

BEAT_S = 0.05
"""Between two signs of life of the event loop, which reads the members' messages."""

OpenState: TypeAlias = Callable[
    [], AbstractContextManager[tuple[AppliedState, Stamper]]
]
"""Opens the state in the engine's thread, and closes it there."""

Job: TypeAlias = Callable[[Replica], object]


@dataclass(slots=True)
class LoopCalls:
    """Calls from the engine's thread into the loop: one wake-up for many calls."""

    loop: asyncio.AbstractEventLoop
    _calls: collections.deque[Callable[[], object]] = field(
        default_factory=collections.deque
    )
    _scheduled: bool = False

    def post(self, call: Callable[[], object]) -> None:
        """Run *call* in the loop, after the calls posted before."""
        self._calls.append(call)
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # The loop is closed, so no caller waits any more.
                self._calls.clear()

    def _run(self) -> None:
        self._scheduled = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()


class EngineThread:
    """Runs a `Replica`. Its methods are for the loop that started it."""

    def __init__(
        self,
        config: ReplicaConfig,
        directory: Path,
        *,
        open_state: OpenState,
        wire: Callable[[LoopCalls], Wire],
        wall_ms: Callable[[], int],
        on_status: Callable[[ReplicaStatus], object],
        on_fatal: Callable[[str], object],
        observer: Observer | None = None,
    ) -> None:
        """
        Only store the arguments; `start` opens the files.

        *on_fatal* is called in the loop, once, when the engine has stopped itself; the
        process must end then.
        """
        self._config = config
        self._directory = directory
        self._open_state = open_state
        self._make_wire = wire
        self._wall_ms = wall_ms
        self._on_status = on_status
        self._on_fatal = on_fatal
        self._observer = observer or Unobserved()
        self._jobs: collections.deque[Job] = collections.deque()
        self._woken = False
        self._stopping = False
        self._calls: LoopCalls | None = None
        self._status = ReplicaStatus()
        self._position: tuple[object, ...] = ()
        self._look_at_s = 0.0
        self._futures: set[asyncio.Future[Any]] = set()
        self._thread: threading.Thread | None = None
        self._stamper: Stamper | None = None
        self._matching = ThreadPoolExecutor(1, thread_name_prefix="matching")
        self._matching_now = 0
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._read_end = self._write_end = -1
        self._beaten_at_s = 0.0
        self._beat: asyncio.TimerHandle | None = None

    # --- In the loop

    async def start(self) -> None:
        """
        Start the thread; return when the replica is open.

        Raises `StartRefusedError`, or what opening the state raises.
        """
        loop = asyncio.get_running_loop()
        self._calls = LoopCalls(loop)
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._show_life(loop)
        started: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(self._calls, started), name="engine", daemon=True
        )
        self._thread.start()
        try:
            await started
        except BaseException:
            await self.stop()
            raise

    def _show_life(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the engine again and again that the loop is not held up."""
        self._beaten_at_s = now()
        self._beat = loop.call_later(BEAT_S, self._show_life, loop)

    async def stop(self) -> None:
        """Stop the engine; return when the journal and the state are closed."""
        self._stopping = True
        if self._beat is not None:
            self._beat.cancel()
        self._wake()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        for end in (self._read_end, self._write_end):
            if end >= 0:
                os.close(end)
        self._read_end = self._write_end = -1
        self._abandon()

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """Propose, if this replica leads. Raises `ProposeError`."""
        if proposal.tokencodes and self._status.is_leader:  # Else another node matches.
            loop = asyncio.get_running_loop()
            until_s = loop.time() + timeout_s
            proposal = await self._matched(proposal)
            timeout_s = until_s - loop.time()
            if timeout_s <= 0:
                raise OverloadedError("the deadline passed while it was matched")
        return await self._ask(
            lambda replica, answer: replica.submit(
                proposal, timeout_s=timeout_s, callback=answer
            ),
            timeout_s,
            together=True,
        )

    async def _matched(self, proposal: Proposal) -> Proposal:
        """
        Return the proposal with matched tokencodes. Raises `ProposeError`.

        In the engine's thread, the search would delay heartbeats and all other calls.
        """
        if self._stopping:
            raise NoPrimaryError("the engine is not running")
        if self._matching_now >= PROPOSALS_QUEUED_MAX:
            raise OverloadedError("too many tokencodes wait to be matched")
        self._matching_now += 1
        try:
            matched = await asyncio.get_running_loop().run_in_executor(
                self._matching, self._match, proposal
            )
        finally:
            self._matching_now -= 1
        if isinstance(matched, ProposeError):
            raise matched
        return matched

    async def read(self, *, timeout_s: float, word: Word | None = None) -> ReadPoint:
        """Return the index to read at, if this replica leads. Raises `ProposeError`."""
        return await self._ask(
            lambda replica, answer: replica.read(
                timeout_s=timeout_s, callback=answer, word=word
            ),
            timeout_s,
        )

    async def transfer(self, target: NodeId | None, *, timeout_s: float) -> NodeId:
        """Return the node that was told to lead, once this node does not lead any more."""

        def ask(replica: Replica, answer: Callable[[str | Exception], None]) -> None:
            replica.transfer(target, timeout_s=timeout_s, callback=answer)

        return NodeId(await self._ask(ask, timeout_s))

    async def change_members(self, change: Change, *, timeout_s: float) -> int:
        """
        Return the index of the committed change, if this replica leads.

        Raises `ProposeError`.
        """

        def ask(replica: Replica, answer: Callable[[int | Exception], None]) -> None:
            replica.change_members(change, timeout_s=timeout_s, callback=answer)

        return await self._ask(ask, timeout_s)

    async def run(self, job: Callable[[Replica], _T], *, timeout_s: float | None) -> _T:
        """
        Return the result of *job*, run in the engine's thread.

        Raises what the job raises as `SnapshotRefusedError`. A caller that gives up
        does not cancel the job. So *timeout_s* is None if the caller must not touch
        anything before the job is done: the wait then ends with the engine.
        """
        return await self._ask(
            lambda replica, answer: answer(_tried(job, replica)), timeout_s
        )

    async def install(self, manifest: Manifest) -> None:
        """
        Install a received snapshot; the wait ends with the engine.

        Raises `SnapshotRefusedError`, and what ends the engine.
        """

        def ask(replica: Replica, answer: Callable[[Exception | None], None]) -> None:
            try:
                replica.install(manifest, answer)
            except SnapshotRefusedError as error:
                answer(error)

        await self._ask(ask, None)

    async def _ask(
        self,
        ask: Callable[[Replica, Callable[[_T | Exception], None]], object],
        timeout_s: float | None,
        *,
        together: bool = False,
    ) -> _T:
        """
        Start a request in the engine's thread; return the answer.

        *together*: with the others of this turn of the loop, which share an entry then.
        """
        calls = self._calls
        if self._thread is None or self._stopping or calls is None:
            raise NoPrimaryError("the engine is not running")
        if len(self._futures) >= PROPOSALS_QUEUED_MAX or not self.has_room():
            raise OverloadedError("too many callers wait on this node")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

        def answer(outcome: _T | Exception) -> None:
            calls.post(lambda: _resolve(future, outcome))

        def job(replica: Replica) -> None:
            ask(replica, answer)

        if together:
            self._jobs.append(job)
            asyncio.get_running_loop().call_soon(self._wake)
        else:
            self.post(job)
        try:
            async with asyncio.timeout(
                None if timeout_s is None else timeout_s + GRACE_S
            ):
                return await future
        except TimeoutError as error:
            raise OutcomeUnknownError("the engine did not answer in time") from error

    def has_room(self) -> bool:
        """Return whether the engine keeps up; if not, give it no jobs that can wait."""
        return len(self._jobs) < INBOX_MAX

    def post(self, job: Job) -> None:
        """Run *job* in the engine's thread, after the jobs posted before."""
        self._jobs.append(job)
        self._wake()

    def _wake(self) -> None:
        if not self._woken and self._write_end >= 0:
            self._woken = True
            os.write(self._write_end, b"w")

    def _abandon(self) -> None:
        """Answer the callers that the engine will not answer any more."""
        for future in tuple(self._futures):
            _resolve(future, OutcomeUnknownError("the engine has stopped"))

    def _stopped_itself(self, message: str) -> None:
        self._abandon()
        self._on_fatal(message)

    # --- In the matching thread

    def _match(self, proposal: Proposal) -> Proposal | NotAppliedError:
        if self._stopping or self._stamper is None:
            return NoPrimaryError("the engine is not running")
        return self._stamper.match(proposal)

    # --- In the thread

    def _beside(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """
        Run *work* in a thread of its own, and then *then* in this one.

        What *work* raises is raised here, too.
        """

        def done(running: Future[object]) -> None:
            def go_on(_replica: Replica) -> None:
                running.result()
                then()

            self.post(go_on)

        self._writing.submit(work).add_done_callback(done)

    def _run(self, calls: LoopCalls, started: asyncio.Future[None]) -> None:
        opened = False
        try:
            storage = ObservedStorage(self._directory, self._observer)
            try:
                # The state is read beside it: each may have gigabytes.
                measuring = self._writing.submit(measure_newest, storage)
                with self._open_state() as (state, stamper):
                    self._stamper = stamper
                    replica = Replica(
                        self._config,
                        storage=storage,
                        state=state,
                        stamper=stamper,
                        wire=self._make_wire(calls),
                        wall_ms=self._wall_ms,
                        beside=self._beside,
                        measured=measuring.result,
                    )
                    opened = True
                    calls.post(lambda: _resolve(started, None))
                    try:
                        self._serve(replica, calls)
                    finally:
                        self._stopping = True
                        self._matching.shutdown()  # It reads the state.
                        self._writing.shutdown()  # It may replace the state.
            finally:
                self._writing.shutdown()
                storage.close()
        except BaseException as error:
            # The only place that catches every exception: this replica must not go
            # on, and its process must know.
            self._stopping = True
            if not opened:
                failure = error
                calls.post(lambda: _fail(started, failure))
                return
            log.critical("engine_stopped", exc_info=error)
            message = str(error) if isinstance(error, Fatal) else repr(error)
            calls.post(lambda: self._stopped_itself(message))

    def _serve(self, replica: Replica, calls: LoopCalls) -> None:
        engine = replica.engine
        engine.listen(self._read_end, lambda: self._run_jobs(replica))
        # Before the engine waits: callers that wait for an index go on first.
        engine.addOnTickCallback(lambda: self._publish(replica, calls))
        stalls = Stalls(engine, engine.guard.campaign, self._config.raft)
        try:
            while not self._stopping:
                self._look_for(stalls)
                replica.tick(self._config.raft.tick_s)
        finally:
            engine.stop_listening(self._read_end)
            replica.stop()

    def _look_for(self, stalls: Stalls) -> None:
        """Take out of all silences what this node could not hear."""
        at, deaf_after_s = now(), BEAT_S + self._config.raft.heartbeat_s
        stalls.look(at, deaf=at - self._beaten_at_s > deaf_after_s)

    def _run_jobs(self, replica: Replica) -> None:
        os.read(self._read_end, 4096)
        self._woken = False
        for _ in range(len(self._jobs)):
            self._jobs.popleft()(replica)

    def _publish(self, replica: Replica, calls: LoopCalls) -> None:
        """Publish a changed status: at once what callers wait for, the rest once a tick."""
        position, now_s = replica.position(), now()
        if position == self._position and now_s < self._look_at_s:
            return
        self._position = position
        self._look_at_s = now_s + self._config.raft.tick_s
        status = replica.status()
        if status != self._status:
            self._status = status
            calls.post(lambda: self._on_status(status))


def _tried(job: Callable[[Replica], _T], replica: Replica) -> _T | Exception:
    try:
        return job(replica)
    except SnapshotRefusedError as error:
        return error


def _resolve(future: asyncio.Future[_T], outcome: _T | Exception) -> None:
    if future.done():  # The caller has given up.
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
