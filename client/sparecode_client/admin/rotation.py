# SPDX-License-Identifier: Apache-2.0
"""Calls on key rotation."""

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
        Replace the cluster's key while it serves, and return the final progress.

        The call ends when everything is sealed with the new key. The old key is removed
        at `retire_time`, when nothing issued under it can be used any more. With
        *at_once*, the old key is removed without that wait, and the call ends after
        that. *keep_old_key* keeps the old key in the members' key rings, because
        earlier backups need it. If a rotation is already running, the call follows it.

        The call also ends if only values that do not open are left (`stopped`). Replace
        them, and the cluster continues on its own. *within* limits the time without
        progress.

        Raises:
            Refused: A member could not receive the key; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: The progress is unknown. A rotation
                that has started continues on its own: call again to follow it.
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
                raise Unavailable("NO_ANSWER", "the node sent no progress")
        return last


def progress_in(answer: pb.RotateKeysResponse) -> RotationProgress:
    """Convert the progress of a rotation."""
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
