# SPDX-License-Identifier: Apache-2.0
"""The work that a node does besides its calls: it starts and ends with the node."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from sparecode_node.replication.owned_tasks import OnFailed, watched


class Background:
    """The tasks of a node. A task that fails is a bug, and stops the node."""

    def __init__(
        self,
        cleanup: contextlib.AsyncExitStack,
        *,
        on_failed: OnFailed,
    ) -> None:
        """*cleanup* cancels the tasks; *on_failed* gets the reason to stop the node."""
        self._cleanup = cleanup
        self._on_failed = on_failed

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run *work* until the node stops."""
        self.watch(asyncio.create_task(work, name=name))

    def watch(self, task: "asyncio.Task[None]") -> None:
        """Own a task that another part has created."""
        watched(task, self._on_failed)
        self._cleanup.push_async_callback(_cancel, task)


async def _cancel(task: "asyncio.Task[None]") -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
