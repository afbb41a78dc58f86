# SPDX-License-Identifier: Apache-2.0
"""Tasks that run until their owner cancels them. One that fails is a bug."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

OnFailed = Callable[[str], object]
"""Gets the reason to stop the node."""


def run_owned(
    work: Coroutine[Any, Any, None], name: str, on_failed: OnFailed
) -> "asyncio.Task[None]":
    """
    Run *work* in a task, and call *on_failed* if it raises.

    The owner cancels the task and awaits it. Until then no one looks at its exception: a
    loop that ends in silence leaves its work undone.
    """
    return watched(asyncio.create_task(work, name=name), on_failed)


def watched(task: "asyncio.Task[None]", on_failed: OnFailed) -> "asyncio.Task[None]":
    """Call *on_failed* if a task that another part has created fails."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            on_failed(f"{task.get_name()}: {error!r}")

    task.add_done_callback(ended)
    return task
