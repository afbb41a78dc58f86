# SPDX-License-Identifier: Apache-2.0
"""Another key for the whole cluster."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import cluster_pb2 as pb
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import enum_in, time_in
from sparecode_client.errors import Unavailable
from sparecode_client.values.rotation import (
    RotationPhase,
    RotationProgress,
    UnopenedSeal,
)


class KeyRotation(Caller):
    """`ClusterService.RotateKeys`."""

    async def rotate_keys(
        self,
        *,
        at_once: bool = False,
        keep_old_key: bool = False,
        progress: Callable[[RotationProgress], object] = lambda _progress: None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> RotationProgress:
        """
        Replace the cluster's secret key while it serves; return how it has ended.

        It ends when all is sealed with the new key. The old one goes at `retire_time`,
        when nothing that was handed out under it can be used any more; *at_once* does
        not wait for that, and the end is then that it is gone. Called again, it tells
        of what is under way. It also ends when only values are left that do not open
        (`stopped`): replace those, and the cluster goes on by itself. *within* is for how long nothing may come.

        Raises:
            Refused: A member could not be given the key; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: No more is known. The cluster goes
                on by itself with what has begun: call again to see.
        """
        last: RotationProgress | None = None
        ends = {RotationPhase.DONE}
        if not at_once:
            ends.add(RotationPhase.RETIRING)
        request = pb.RotateKeysRequest(
            request_id=request_id or new_request_id(),
            at_once=at_once,
            keep_old_key=keep_old_key,
        )

        def take(answer: pb.RotateKeysResponse) -> bool:
            nonlocal last
            previous, last = last, progress_in(answer)
            progress(last)
            return last != previous

        while last is None or not (last.phase in ends or last.stopped):
            previous = last
            await self._client.stream_out(
                lambda node: node.cluster.RotateKeys,
                lambda: request,
                take,
                request_id=request.request_id,
                within=within,
            )
            if last == previous:
                raise Unavailable("NO_ANSWER", "a node has told nothing")
        return last


def progress_in(answer: pb.RotateKeysResponse) -> RotationProgress:
    """Return how far it has got."""
    return RotationProgress(
        phase=enum_in(RotationPhase, pb.RotationPhase, answer.phase),
        key_id=answer.key_id,
        done=answer.done,
        total=answer.total,
        retire_time=time_in(answer, "retire_time"),
        resumed=answer.resumed,
        unopened=tuple(
            UnopenedSeal(kind=each.kind, row=each.row, serial=each.serial)
            for each in answer.unopened
        ),
        stopped=answer.stopped,
    )
