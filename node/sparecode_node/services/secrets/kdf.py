# SPDX-License-Identifier: Apache-2.0
"""
Slow hashing of passcodes and passwords: Argon2id (RFC 9106), off the event loop (T3).

libsodium computes it. It uses the widest vectors of the processor, and holds no lock of
Python's meanwhile. It offers neither more than one lane of Argon2 nor a secret key or
associated data. No release of Sparecode has used these, so the hashes equal those of
release 0.1.0, which argon2-cffi computed.

The pools have two lanes, so that issuing codes does not slow authentication (I12): a pool
with a worker per usable core for passcodes and passwords, and one worker of low priority for
codes and PINs that administrators set. Both queues are bounded: requests that do not
fit are shed before any hash is computed. Callers share them (`load/fair_queue`, L8).
"""

import asyncio
import contextlib
import enum
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from nacl import exceptions
from nacl.pwhash import argon2id

from sparecode_node.services.errors import HashingOverloadedError
from sparecode_node.services.load.fair_queue import NEWCOMER, FairQueue, Share
from sparecode_node.services.secrets.cores import usable_cores

log = logging.getLogger(__name__)

NICE, NICE_ISSUING, NICE_MAX = 5, 15, 19
"""Heartbeats, answers and shedding go before any hash; passcodes before issuing."""

RETRY_S = 1.0
"""A shed caller may retry after about this long: the queue has moved on."""
GOLDEN_RATIO = (5**0.5 - 1) / 2

HASHES_MIN = 2
"""An attempt of an agent needs at least this many."""

TOGETHER_MAX = 4
WAITING_EACH = 4
"""
Size of a group that is handed over together: one request for each four of the same
caller in the queue, and four at most.

Attempts that are hashed at the same moment share a message to the primary and an entry
of the log, which otherwise cost as much processor time as a third of the hashes. While
requests wait in the queue, hashing lacks that time. So a finished request waits for
others: fewer than a quarter of those of its own caller that are in the queue. One of a
caller with few requests waits for none (L8).
"""

HASH_BYTES = 32
SALT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Parameters:
    """Argon2id's parameters. The number of lanes is always one."""

    memory_kib: int
    passes: int


PRODUCTION = Argon2Parameters(memory_kib=19 * 1024, passes=2)
"""As OWASP recommends (T3). docs/performance.md says what a hash costs."""

TESTING = Argon2Parameters(memory_kib=8, passes=1)
"""The smallest that Argon2 allows. Protects nothing."""

PROFILES = {"production": PRODUCTION, "testing": TESTING}


class Secret(enum.StrEnum):
    """The kind of secret. It is hashed too: a PIN never has the hash of a code or password."""

    PIN = "pin"
    CODE = "code"
    PASSWORD = "password"


class Lane(enum.Enum):
    """Where a hash is computed."""

    AUTHENTICATING = "authenticating"
    ISSUING = "issuing"


@dataclass(frozen=True, slots=True, kw_only=True)
class KdfInput:
    """One hash to compute."""

    secret: Secret
    salt: bytes
    text: str = field(repr=False)
    """Normalized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLoad:
    """The load of a lane, and its work since the start."""

    taken: int
    """Hashes that wait or are being computed."""
    bound: int
    """The most that may."""
    computed: int
    shed: int
    """Hashes that did not fit into the queue, were not computed in time, or got no memory."""


class Kdf:
    """Computes hashes in bounded pools, and counts them."""

    def __init__(
        self,
        profile: Argon2Parameters,
        *,
        workers: int | None = None,
        waiting_max: int = 64,
        issuing_max: int = 400,
    ) -> None:
        workers = workers or usable_cores()
        self._profile = profile
        priorities = _Priorities()
        self._lanes = {
            Lane.AUTHENTICATING: _Lane(
                ThreadPoolExecutor(
                    workers,
                    thread_name_prefix="kdf",
                    initializer=functools.partial(priorities.lower, NICE),
                ),
                bound=workers + waiting_max,
                workers=workers,
            ),
            Lane.ISSUING: _Lane(
                ThreadPoolExecutor(
                    1,
                    thread_name_prefix="kdf-issuing",
                    initializer=functools.partial(priorities.lower, NICE_ISSUING),
                ),
                bound=issuing_max,
            ),
        }

    @property
    def profile(self) -> Argon2Parameters:
        """The parameters of every hash."""
        return self._profile

    def load(self, lane: Lane) -> "LaneLoad":
        """Return the load of *lane*. Safe in any thread."""
        state = self._lanes[lane]
        return LaneLoad(
            taken=state.taken,
            bound=state.bound,
            computed=state.computed,
            shed=state.shed,
        )

    def evaluations(self, lane: Lane = Lane.AUTHENTICATING) -> int:
        """Return how many hashes were computed in *lane* since the start."""
        return self._lanes[lane].computed

    async def derive(
        self,
        inputs: Sequence[KdfInput],
        *,
        lane: Lane,
        share: Share,
        timeout_s: float,
    ) -> tuple[bytes, ...]:
        """
        Return the hash of every input: all of them or none.

        *share*: whose request it is. Callers take turns (L8).
        Raises `HashingOverloadedError` if they do not fit into the queue, give way to
        a caller with fewer, are not computed within *timeout_s*, or get no memory.
        """
        return await self._lanes[lane].run(
            [functools.partial(hashed, self._profile, each) for each in inputs],
            share,
            timeout_s,
        )

    def check_room(self, lane: Lane, share: Share = NEWCOMER) -> None:
        """
        Raise `HashingOverloadedError` if a request would be shed, before it is prepared.

        Without *share*: if even that of a caller with no other request would be.
        """
        self._lanes[lane].check_room(share)

    def close(self) -> None:
        """Drop waiting hashes, and wait for those being computed."""
        for lane in self._lanes.values():
            lane.close()


class _Priorities:
    """Lowers the priority of the pools' threads, if the system allows it."""

    def __init__(self) -> None:
        self._warned = False
        self._warning = threading.Lock()

    def lower(self, nice: int) -> None:
        """Give this thread a lower priority than its process. Linux has one per thread."""
        try:
            nice += os.getpriority(os.PRIO_PROCESS, os.getpid())
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(nice, NICE_MAX))
        except OSError as error:
            # A sandbox may refuse it. An exception here would break the pool for good,
            # and no user could authenticate. Without it, heartbeats wait for hashes.
            with self._warning:
                warned, self._warned = self._warned, True
            if not warned:
                log.warning("priority_not_lowered", extra={"cause": str(error)})


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """Hashes that one worker computes, one after the other."""

    jobs: Sequence[Callable[[], bytes]]
    share: Share
    future: "Future[list[bytes]]" = field(default_factory=Future)


class _Lane:
    """A pool, and its queue, which callers share (L8)."""

    def __init__(
        self, pool: ThreadPoolExecutor, *, bound: int, workers: int | None = None
    ) -> None:
        """
        Begin with nothing in the queue.

        *workers*: if this many are busy, the hashes of one request become one job, and
        finished requests wait for others; None: neither.
        """
        self._pool = pool
        self._workers = workers
        self.computed = 0
        self.shed = 0
        self.bound = bound
        self.taken = 0
        self._queue: FairQueue[_Work] = FairQueue()
        self._finished: list[tuple[_Work, list[bytes]]] = []
        """Computed, and not handed over yet."""
        self._turns = 0
        """Turns that the pool was given, and no worker has begun yet."""
        self._hinted = 0
        self._warned = False
        # Workers use all of this, too. Held for a moment, never over an await.
        self._lock = threading.Lock()

    def check_room(self, share: Share) -> None:
        """Shed a request that would be shed later anyway."""
        with self._lock:
            if self._displaced(share, HASHES_MIN) is not None:
                return
            self.shed += 1
        raise self._busy()

    async def run(
        self, jobs: Sequence[Callable[[], bytes]], share: Share, timeout_s: float
    ) -> tuple[bytes, ...]:
        """Run all *jobs*, or shed them all."""
        works = self._enter(jobs, share)
        futures = [work.future for work in works]
        all_done = _future_of_all(futures)
        try:
            async with asyncio.timeout(timeout_s):
                await all_done
        except TimeoutError:
            with self._lock:
                self.shed += len(jobs)
            raise self._busy() from None
        finally:
            for future in futures:
                future.cancel()  # Does not affect finished and running jobs.
        # The rest of a displaced request is cancelled, or runs on: wait for none of it.
        if any(map(_is_displaced, futures)):
            raise self._busy()
        try:
            return tuple(itertools.chain.from_iterable(f.result() for f in futures))
        except MemoryError as error:
            # Memory returns as other hashes end, so the caller may try again.
            with self._lock:
                self.shed += len(jobs)
                warned, self._warned = self._warned, True
            if not warned:
                log.warning("hash_without_memory", extra={"cause": str(error)})
            raise self._busy() from None

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        with self._lock:
            waiting = self._queue.clear()
        for work in waiting:
            work.future.cancel()
        self._pool.shutdown()  # Turns find an empty queue, and hand over what is finished.

    def _enter(
        self, jobs: Sequence[Callable[[], bytes]], share: Share
    ) -> Sequence[_Work]:
        """Put *jobs* into the queue. Raises `HashingOverloadedError`."""
        with self._lock:
            displaced = self._displaced(share, len(jobs))
            if displaced is None:
                self.shed += len(jobs)
                raise self._busy()
            for work in displaced:
                self._queue.remove(work)
                self.shed += len(work.jobs)
                self.taken -= len(work.jobs)
            # Passing jobs to other threads costs time, and gains nothing if all are busy.
            busy = self._workers is not None and self.taken >= self._workers
            parts = [jobs] if busy else [[job] for job in jobs]
            works = [_Work(part, share) for part in parts]
            for work in works:
                self._queue.put(work, share, len(work.jobs))
            self.taken += len(jobs)
            turns = max(0, self._queue.waiting - self._turns)
            self._turns += turns
        for work in displaced:
            work.future.set_exception(_DisplacedError())
        for work in works:
            # A canceled job leaves the queue at once, a running one when it is done.
            work.future.add_done_callback(functools.partial(self._canceled, work))
        for _ in range(turns):
            self._pool.submit(self._take_turn)
        return works

    def _displaced(self, share: Share, size: int) -> list[_Work] | None:
        return self._queue.displaced(share, size, self.bound - self.taken)

    def _busy(self) -> HashingOverloadedError:
        """
        Return the error, with a different retry time for each caller.

        Callers that were shed together and retry together would be shed again.
        Multiples of the golden ratio spread evenly, for any number of callers.
        """
        self._hinted += 1
        return HashingOverloadedError(
            retry_after_s=RETRY_S * (0.5 + self._hinted * GOLDEN_RATIO % 1)
        )

    def _canceled(self, work: _Work, future: "Future[list[bytes]]") -> None:
        if future.cancelled():
            with self._lock:
                self._queue.remove(work)
                self.taken -= len(work.jobs)

    def _take_turn(self) -> None:
        """Compute, in a worker thread, the hashes whose turn it is."""
        with self._lock:
            self._turns -= 1
            work = self._queue.take()
        # Else it was cancelled, and its own callback counts it.
        if work is not None and work.future.set_running_or_notify_cancel():
            self._compute(work)
        self._hand_over()

    def _compute(self, work: _Work) -> None:
        try:
            results = [job() for job in work.jobs]
        except Exception as error:  # noqa: BLE001 - Its caller gets it.
            with self._lock:
                self.taken -= len(work.jobs)
            work.future.set_exception(error)
        else:
            with self._lock:
                self.computed += len(work.jobs)
                self.taken -= len(work.jobs)
                self._finished.append((work, results))

    def _hand_over(self) -> None:
        """
        Give finished hashes to their callers, or let them wait for others.

        They wait only while requests are in the queue: then another turn follows.
        """
        with self._lock:
            if len(self._finished) < self._together():
                return
            finished, self._finished = self._finished, []
        for work, results in finished:
            work.future.set_result(results)

    def _together(self) -> int:
        """Return how many finished requests are handed over together."""
        if self._workers is None or not self._finished:
            return 0
        callers = {work.share for work, _ in self._finished}
        waiting = min(map(self._queue.waiting_of, callers))
        return min(TOGETHER_MAX, waiting // WAITING_EACH)


class _DisplacedError(Exception):
    """The request gave way to that of a caller with fewer."""


def _future_of_all(
    futures: "Sequence[Future[list[bytes]]]",
) -> "asyncio.Future[None]":
    """Return a future of the event loop that the last of *futures* completes."""
    loop = asyncio.get_running_loop()
    all_done: asyncio.Future[None] = loop.create_future()
    left = len(futures)
    counting = threading.Lock()

    def complete() -> None:
        if not all_done.done():  # Done if the caller gave up.
            all_done.set_result(None)

    def ended(future: "Future[list[bytes]]") -> None:
        nonlocal left
        with counting:
            left -= 1
            last = left == 0
        if last or _is_displaced(future):
            with contextlib.suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(complete)

    for future in futures:
        future.add_done_callback(ended)
    return all_done


def _is_displaced(future: "Future[list[bytes]]") -> bool:
    is_settled = future.done() and not future.cancelled()
    return is_settled and isinstance(future.exception(), _DisplacedError)


def hashed(profile: Argon2Parameters, each: KdfInput) -> bytes:
    """
    Hash one input. Raises `MemoryError` if the system gives no memory for it.

    That is the only failure that libsodium has for inputs within its bounds.
    """
    try:
        return argon2id.kdf(
            HASH_BYTES,
            b"sparecode/"
            + each.secret.encode()
            + b"\0"
            + each.text.encode(errors="replace"),
            each.salt,
            opslimit=profile.passes,
            memlimit=profile.memory_kib * 1024,
        )
    except exceptions.RuntimeError:
        raise MemoryError(f"no {profile.memory_kib} KiB for a hash") from None
