# SPDX-License-Identifier: Apache-2.0
"""The work that a node does besides its calls: it starts and ends with the node."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """The tasks of a node. A task that fails is a bug, and stops the node."""

    def __init__(
        self,
        cleanup: contextlib.AsyncExitStack,
        *,
        on_failed: Callable[[str], object],
    ) -> None:
        """*cleanup* cancels the tasks; *on_failed* gets the reason to stop the node."""
        self._cleanup = cleanup
        self._on_failed = on_failed

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run *work* until the node stops."""
        self.watch(asyncio.create_task(work, name=name))

    def watch(self, task: "asyncio.Task[None]") -> None:
        """Own a task that another part has created."""
        task.add_done_callback(self._stop_if_failed)
        self._cleanup.push_async_callback(_cancel, task)

    def _stop_if_failed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failed(f"{task.get_name()}: {error!r}")


async def _cancel(task: "asyncio.Task[None]") -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
