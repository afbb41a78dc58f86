# SPDX-License-Identifier: Apache-2.0
"""A receiver of notices that hangs, fails or is closed: deliveries wait, and then go on."""

import time

from tests.faults.receivers import Mode
from tests.faults.striker import Proof, Striker

RESUMED_S = 60.0
"""How long the cluster may take to deliver again, once the receiver works: its waits grow."""
_POLL_S = 0.1


class ReceiverStrikes(Striker):
    """All faults of the receiver."""

    def receiver_hangs(self) -> Proof:
        return self._misbehave(Mode.HANGS, "requests got no answer")

    def receiver_fails(self) -> Proof:
        return self._misbehave(Mode.FAILS, "requests were answered 500")

    def receiver_closed(self) -> Proof:
        return self._misbehave(Mode.IS_CLOSED, "connections were reset, others refused")

    def _misbehave(self, mode: Mode, words: str) -> Proof:
        self._receivers.begin(mode)
        try:
            seconds = self._last(3, 8)
        finally:
            met = self._receivers.end()
        taken, begin = self._receivers.taken, time.monotonic()
        while self._receivers.taken == taken:
            if time.monotonic() > begin + RESUMED_S:
                failure = f"nothing was delivered for {RESUMED_S:.0f} s"
                return Proof(bit=met > 0, words=f"{met} {words}", failure=failure)
            time.sleep(_POLL_S)
        return Proof(
            bit=met > 0,
            words=f"{met} {words}, for {seconds:.1f} s; delivered again "
            f"{time.monotonic() - begin:.1f} s later",
        )
