# SPDX-License-Identifier: Apache-2.0
"""
Slow hashing of what people remember and type: Argon2id, off the event loop (T3).

Two lanes, so that issuing codes does not slow authentication (I12): a pool with
a worker per core for passcodes and passwords, and one worker of low priority
for codes and PINs that administrators set. Both have bounded queues: what does
not fit is shed before any of it is computed.
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

from argon2.low_level import Type, hash_secret_raw

from sparecode_node.services.errors import HashingOverloadedError

log = logging.getLogger(__name__)

NICE, NICE_ISSUING, NICE_MAX = 5, 15, 19
"""Heartbeats, answers, and what is shed go before any hash; passcodes before issuing."""

RETRY_S = 1.0
"""After about so long, who is shed may come again: the queue has moved on."""
GOLDEN_RATIO = (5**0.5 - 1) / 2

HASH_BYTES = 32
SALT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Parameters:
    """Argon2id's parameters."""

    memory_kib: int
    passes: int
    lanes: int


PRODUCTION = Argon2Parameters(memory_kib=19 * 1024, passes=2, lanes=1)
"""What OWASP asks for; 18 ms of a core (T3)."""

TESTING = Argon2Parameters(memory_kib=8, passes=1, lanes=1)
"""The smallest that Argon2 allows: protects nothing."""

PROFILES = {"production": PRODUCTION, "testing": TESTING}


class Secret(enum.StrEnum):
    """What is hashed. Part of the input: a PIN is never worth a code or a password."""

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
    """As normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLoad:
    """How busy a lane is, and what it has done since the start."""

    taken: int
    """Hashes that wait or are computed."""
    bound: int
    """How many may."""
    computed: int
    shed: int
    """Hashes that were asked for and did not fit, or not in time."""


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
        workers = workers or os.cpu_count() or 1
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

    def load(self, lane: Lane) -> "LaneLoad":
        """Return how busy *lane* is; any thread may ask."""
        found = self._lanes[lane]
        return LaneLoad(
            taken=found.taken,
            bound=found.bound,
            computed=found.computed,
            shed=found.shed,
        )

    def evaluations(self, lane: Lane = Lane.AUTHENTICATING) -> int:
        """Return how many hashes were computed in *lane* since the start."""
        return self._lanes[lane].computed

    async def derive(
        self, inputs: Sequence[KdfInput], *, lane: Lane, timeout_s: float
    ) -> tuple[bytes, ...]:
        """
        Return the hash of every input, all of them or none.

        Raises `HashingOverloadedError` if they do not fit into the queue, or
        are not computed within *timeout_s*.
        """
        return await self._lanes[lane].run(
            [functools.partial(hashed, self._profile, each) for each in inputs],
            timeout_s,
        )

    def check_room(self, lane: Lane) -> None:
        """Raise `HashingOverloadedError` if nothing would fit: before it is prepared."""
        self._lanes[lane].check_room()

    def close(self) -> None:
        """Drop what waits, and wait for what is being computed."""
        for lane in self._lanes.values():
            lane.pool.shutdown(cancel_futures=True)


class _Priorities:
    """Has the threads of the pools yield to others, where that is allowed."""

    def __init__(self) -> None:
        self._said = False
        self._saying = threading.Lock()

    def lower(self, nice: int) -> None:
        """Give this thread a lower priority than this process; Linux has one each."""
        try:
            nice += os.getpriority(os.PRIO_PROCESS, os.getpid())
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(nice, NICE_MAX))
        except OSError as error:
            # A sandbox may refuse it. Raised here, it would break the pool for good,
            # and nobody could authenticate; like this, heartbeats wait for hashes.
            with self._saying:
                said, self._said = self._said, True
            if not said:
                log.warning("priority_not_lowered", extra={"cause": str(error)})


class _Lane:
    """A pool, and how much of its queue is taken."""

    def __init__(
        self, pool: ThreadPoolExecutor, *, bound: int, workers: int | None = None
    ) -> None:
        """*workers*: if so many are busy, what is asked for together is one job."""
        self.pool = pool
        self.workers = workers
        self.computed = 0
        self.shed = 0
        self.bound = bound
        self.taken = 0
        self._hinted = 0
        # The workers count too; held for an addition, never over an await.
        self._counting = threading.Lock()

    def check_room(self) -> None:
        """Shed whoever would be shed after some more work."""
        with self._counting:
            if self.taken < self.bound - 1:  # Nobody wants one hash alone.
                return
            self.shed += 1
        raise self._busy()

    async def run(
        self, jobs: Sequence[Callable[[], bytes]], timeout_s: float
    ) -> tuple[bytes, ...]:
        """Run all *jobs*, or shed them all."""
        with self._counting:
            if self.taken + len(jobs) > self.bound:
                self.shed += len(jobs)
                raise self._busy()
            busy = self.workers is not None and self.taken >= self.workers
            self.taken += len(jobs)
        # To hand a job to another thread costs; where all are busy it gains nothing.
        together = [jobs] if busy else [[job] for job in jobs]
        futures = [self.pool.submit(self._compute, some) for some in together]
        for future, some in zip(futures, together, strict=True):
            # What is cancelled leaves the queue at once, what runs when done.
            future.add_done_callback(functools.partial(self._leave, len(some)))
        all_done = _told_when_all_are_done(futures)
        try:
            async with asyncio.timeout(timeout_s):
                await all_done
        except TimeoutError:
            with self._counting:
                self.shed += len(jobs)
            raise self._busy() from None
        finally:
            for future in futures:
                future.cancel()  # Does nothing to what is done, or runs.
        return tuple(itertools.chain.from_iterable(each.result() for each in futures))

    def _busy(self) -> HashingOverloadedError:
        """
        Say when to come again: not all at once.

        Who was shed together, and told the same, would come together and be shed
        again. Multiples of the golden ratio lie evenly, whoever asks when.
        """
        self._hinted += 1
        return HashingOverloadedError(
            retry_after_s=RETRY_S * (0.5 + self._hinted * GOLDEN_RATIO % 1)
        )

    def _leave(self, count: int, _: "Future[list[bytes]]") -> None:
        with self._counting:
            self.taken -= count

    def _compute(self, jobs: Sequence[Callable[[], bytes]]) -> list[bytes]:
        """Run in a worker."""
        results = [job() for job in jobs]
        with self._counting:
            self.computed += len(jobs)
        return results


def _told_when_all_are_done(
    futures: "Sequence[Future[list[bytes]]]",
) -> "asyncio.Future[None]":
    """Return a future of the loop: woken once for all of them, by the last."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    left = len(futures)
    counting = threading.Lock()

    def tell() -> None:
        if not told.done():  # The caller has gone.
            told.set_result(None)

    def ended(_: "Future[list[bytes]]") -> None:
        nonlocal left
        with counting:
            left -= 1
            last = left == 0
        if last:
            with contextlib.suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(tell)

    for future in futures:
        future.add_done_callback(ended)
    return told


def hashed(profile: Argon2Parameters, each: KdfInput) -> bytes:
    """Hash one input."""
    return hash_secret_raw(
        secret=b"sparecode/"
        + each.secret.encode()
        + b"\0"
        + each.text.encode(errors="replace"),
        salt=each.salt,
        time_cost=profile.passes,
        memory_cost=profile.memory_kib,
        parallelism=profile.lanes,
        hash_len=HASH_BYTES,
        type=Type.ID,
    )
