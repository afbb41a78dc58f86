# SPDX-License-Identifier: Apache-2.0
"""The cluster itself."""

from datetime import timedelta

from sparecode.v1 import cluster_pb2
from sparecode_client.client import Caller
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
