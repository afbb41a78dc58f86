# SPDX-License-Identifier: Apache-2.0
"""
Event loops under one virtual clock: one for each process, and no thread.

A loop has the clock of its machine, which may run fast or slow. A killed process runs
no further step of any task, as after kill -9: no `finally`, no message.
"""

import asyncio
import collections
import contextvars
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

_T = TypeVar("_T")

DRAIN_ROUNDS = 50


class Timeline:
    """Everything that will happen, in order. Equal times: as they were requested."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, when: float, event: Callable[[], object]) -> None:
        """Let *event* happen at a time, at the earliest now."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), event))

    def after(self, delay_s: float, event: Callable[[], object]) -> None:
        """Let *event* happen after a while."""
        self.at(self.now + delay_s, event)

    def run_until(self, end: float) -> None:
        """Let happen what is due until then."""
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end


class NodeLoop(asyncio.AbstractEventLoop):
    """The loop of one process."""

    def __init__(
        self,
        timeline: Timeline,
        rng: random.Random,
        *,
        rate: float,
        run_beside: Callable[[Callable[[], Any]], float],
        on_error: Callable[[str], object],
    ) -> None:
        """
        Start with nothing to do; the machine's clock runs at *rate*.

        *run_beside* does what a worker thread does, and returns how long it takes.
        """
        self._timeline = timeline
        self._rng = rng
        self._rate = rate
        self._run_beside = run_beside
        self._on_error = on_error
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._awake = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.is_dead = False
        self._paused_until = 0.0
        self._held: list[Callable[[], object]] = []
        """What waits for the end of a pause."""
        self.thread_late_s = 0.0
        """How far the engine's thread, which calls now, is ahead of this moment."""
        self._thread_due = 0.0

    # --- Time

    def time(self) -> float:
        """Return this machine's monotonic clock."""
        return self._timeline.now * self._rate

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, more.get("context"))
        self._timeline.at(when / self._rate, lambda: self._due(timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, **more)

    def _due(self, timer: asyncio.TimerHandle) -> None:
        if not timer.cancelled():
            self._ready.append(timer)
            self._wake()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is skipped when it is due."""

    # --- Pauses

    @property
    def paused_until(self) -> float:
        """Until when the process stands still."""
        return self._paused_until

    @paused_until.setter
    def paused_until(self, until: float) -> None:
        # What is held goes on then, not when an earlier, longer pause would have ended:
        # otherwise a process that is mended stands still all the same.
        self._paused_until = until
        if self._held:
            self._timeline.at(until, self._go_on)

    def _hold(self, event: Callable[[], object]) -> bool:
        """Return whether there is a pause; *event* then happens at its end."""
        if self._timeline.now >= self._paused_until:
            return False
        self._held.append(event)
        self._timeline.at(self._paused_until, self._go_on)
        return True

    def _go_on(self) -> None:
        if self._timeline.now >= self._paused_until:
            held, self._held = self._held, []
            for event in held:
                event()

    # --- Running

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        self._wake()
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        due = self._timeline.now + self.thread_late_s + self._rng.uniform(0, 0.0005)
        self._thread_due = max(self._thread_due, due)

        def arrive() -> None:
            self._ready.append(handle)
            self._wake()

        self._timeline.at(self._thread_due, arrive)
        return handle

    def _wake(self) -> None:
        if not self._awake and not self.is_dead:
            self._awake = True
            self._timeline.at(self._timeline.now, self._turn)

    def _turn(self) -> None:
        if not self.is_dead and self._hold(self._turn):
            return
        self._awake = False
        if self.is_dead:
            return
        self._run_ready()
        if self._ready:
            self._wake()

    def _run_ready(self) -> None:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
                if self.is_dead:
                    return
        finally:
            asyncio._set_running_loop(before)

    def kill(self) -> None:
        """Run nothing from now on."""
        self.is_dead = True

    def drain(self) -> None:
        """End the tasks of a process that is gone, so that nothing of them is left."""
        for _ in range(DRAIN_ROUNDS):
            if not self._tasks:
                return
            for task in tuple(self._tasks):
                task.cancel()
            self.is_dead = False
            self._awake = True  # Nothing more goes to the timeline.
            self._run_ready()
            self.is_dead = True

    # --- What asyncio needs

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[_T]":
        running = cast("Coroutine[Any, Any, _T]", coro)
        task = asyncio.Task(running, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            self._on_error(f"{context.get('message')}: {context.get('exception')!r}")

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., _T], *args: Any
    ) -> "asyncio.Future[_T]":
        """Let a worker thread begin soon, and be done after a while."""
        future: asyncio.Future[_T] = self.create_future()

        def work() -> None:
            if self.is_dead:
                return
            if self._hold(work):
                return
            outcome: list[Any] = []

            def run() -> None:
                try:
                    outcome.append((func(*args), None))
                except Exception as error:  # noqa: BLE001 - the caller gets it.
                    outcome.append((None, error))

            seconds = self._run_beside(run)
            if outcome:  # Otherwise it was killed.
                self._timeline.after(
                    seconds, lambda: self.call_soon(_resolve, future, *outcome[0])
                )

        self._timeline.after(self._rng.uniform(0, 0.002), work)
        return future


def _resolve(future: "asyncio.Future[Any]", value: Any, error: Any) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
