# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Final, TypeAlias

class POLL_EVENT_TYPE:
    READ: Final = 1
    WRITE: Final = 2
    ERROR: Final = 4

# Called in the thread that ticks, with the descriptor and a mask of events.
PollCallback: TypeAlias = Callable[[int, int], object]

class Poller:
    def subscribe(self, descr: int, callback: PollCallback, eventMask: int) -> None: ...
    def unsubscribe(self, descr: int) -> None: ...
    def poll(self, timeout: float) -> None: ...

class SelectPoller(Poller): ...
class PollPoller(Poller): ...

def createPoller(pollerType: str) -> Poller: ...
