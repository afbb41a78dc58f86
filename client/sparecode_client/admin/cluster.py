# SPDX-License-Identifier: Apache-2.0
"""The cluster itself."""

from datetime import timedelta

from sparecode.v1 import cluster_pb2
from sparecode_client.client import Caller, new_request_id
from sparecode_client.values import ClusterStatus
from sparecode_client.wire import status_in


class Cluster(Caller):
    """The calls of `ClusterService`."""

    async def get_status(
        self, *, digest: bool = False, within: timedelta | None = None
    ) -> ClusterStatus:
        """
        Return every member's state as the called node sees it, quorum or not.

        A *digest* reads the whole state on every member, and takes its time.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.GetStatus,
            cluster_pb2.GetStatusRequest(digest=digest),
            within=within,
            patient=digest,
        )
        return status_in(answer)

    async def transfer_primary(
        self,
        target: str = "",
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> str:
        """
        Have the member *target* lead, or whoever has most of the log.

        Returns the primary of then. Nothing that is under way gets lost by it.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.TransferPrimary,
            cluster_pb2.TransferPrimaryRequest(
                request_id=request_id or new_request_id(), target=target
            ),
            within=within,
        )
        return answer.primary
