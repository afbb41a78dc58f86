# SPDX-License-Identifier: Apache-2.0
"""
Requests in progress, and answers that may be repeated (RFC 5080, 2.2.2).

This only saves work. What makes a request count once is its id in the replicated state,
which every node derives alike.
"""

import collections

from sparecode_node.domain.ids import RequestId
from sparecode_node.radius.answers import Answer
from sparecode_node.services.ambient import Clock

ANSWERS_MAX = 4096
KEPT_S = 5.0


class Duplicates:
    """The requests of the last seconds, by the id that is derived from their packets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_progress: set[RequestId] = set()
        self._answers: collections.OrderedDict[RequestId, tuple[float, Answer]] = (
            collections.OrderedDict()
        )

    def begin(self, request_id: RequestId) -> bool:
        """Record that a request is in progress. Return False: it already is."""
        if request_id in self._in_progress:
            return False
        self._in_progress.add(request_id)
        return True

    def end(self, request_id: RequestId, answer: Answer | None) -> None:
        """
        Record the end of a request. None: it got no answer, and a copy may follow.

        An acceptance is not kept: it stands only while user and agent are enabled (Q2).
        """
        self._in_progress.discard(request_id)
        if answer is None or answer.accepted:
            return
        self._answers[request_id] = (self._clock.monotonic_s() + KEPT_S, answer)
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def answer(self, request_id: RequestId) -> Answer | None:
        """Return the answer to a request that was answered in the last seconds."""
        until_s, answer = self._answers.get(request_id, (0.0, None))
        return answer if self._clock.monotonic_s() < until_s else None
