# SPDX-License-Identifier: Apache-2.0
"""Waits between attempts to deliver notices, each longer than the one before."""

from collections.abc import Callable

import tenacity

PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 300.0
"""Of a channel whose receiver is down: the bounds of a wait that doubles."""
RETRY_FIRST_S, RETRY_MAX_S = 5.0, 6 * 3600.0
"""Of one notice that the receiver did not take."""

PAUSE = tenacity.wait_random_exponential(multiplier=PAUSE_FIRST_S, max=PAUSE_MAX_S)
RETRY = tenacity.wait_exponential(
    multiplier=RETRY_FIRST_S, max=RETRY_MAX_S
) + tenacity.wait_random(0, RETRY_FIRST_S)


def wait_s(wait: Callable[[tenacity.RetryCallState], float], failures: int) -> float:
    """Return the wait after this many failures."""
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = failures
    return max(wait(state), PAUSE_FIRST_S)
