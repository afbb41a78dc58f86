# SPDX-License-Identifier: Apache-2.0
"""Calls on backups."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import (
    cluster_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import time_in
from sparecode_client.values.backups import Backup


class Backups(Caller):
    """`ClusterService.CreateBackup`."""

    async def create_backup(
        self,
        begin: Callable[[], object],
        write: Callable[[bytes], object],
        *,
        sealed_events: bool = True,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Backup:
        """
        Back up everything committed before the call: pass the pieces to *write*.

        Without *sealed_events*, older audit events are left out, so the backup does not
        grow with the audit log. A cluster restored from it lacks them.

        *begin* is called before the first piece. If a node breaks off, another one
        starts over: *begin* is called again, and what was written before is void.
        """
        request_id = request_id or new_request_id()
        last_piece = cluster_pb2.CreateBackupResponse()
        size = 0

        def take(piece: cluster_pb2.CreateBackupResponse) -> bool:
            nonlocal last_piece, size
            if piece.offset == 0:
                begin()
                size = 0
            if piece.offset != size:
                raise ValueError("a piece of the backup is missing")
            write(piece.content)
            size += len(piece.content)
            last_piece = piece
            return False

        await self._client.stream_out(
            lambda node: node.cluster.CreateBackup,
            lambda: cluster_pb2.CreateBackupRequest(
                request_id=request_id, without_sealed_events=not sealed_events
            ),
            take,
            request_id=request_id,
            within=within,
        )
        return Backup(
            index=last_piece.index,
            digest=last_piece.digest,
            take_time=time_in(last_piece, "take_time"),
            recipients=tuple(last_piece.recipients),
            size=size,
        )
