# SPDX-License-Identifier: Apache-2.0
"""`ClusterService`: the cluster, for operators."""

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1 import cluster_pb2_grpc as pb_grpc
from sparecode_node.rpc import calls, convert
from sparecode_node.rpc.identity import Context
from sparecode_node.services.cluster import Cluster, MemberView
from sparecode_node.services.cluster_changes import ClusterChanges


class ClusterServicer(pb_grpc.ClusterServiceServicer):
    """Translates between the wire and `Cluster`."""

    def __init__(self, cluster: Cluster, changes: ClusterChanges) -> None:
        self._cluster = cluster
        self._changes = changes

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Return every member's state."""
        status = await self._cluster.status(
            calls.session_call(context, "ClusterService/GetStatus"),
            digest=request.digest,
        )
        return pb.GetStatusResponse(
            node_id=status.node_id,
            primary=status.primary or "",
            quorum=status.quorum,
            members=[_member(member) for member in status.members],
            cluster_id=status.cluster_id,
        )

    async def TransferPrimary(
        self, request: pb.TransferPrimaryRequest, context: Context
    ) -> pb.TransferPrimaryResponse:
        """Have another member lead."""
        primary = await self._changes.transfer_primary(
            calls.session_call(
                context, "ClusterService/TransferPrimary", request.request_id
            ),
            target=request.target,
        )
        return pb.TransferPrimaryResponse(primary=primary)


def _member(member: MemberView) -> pb.Member:
    role = pb.MEMBER_ROLE_UNSPECIFIED
    if member.reachable:
        role = pb.MEMBER_ROLE_PRIMARY if member.is_primary else pb.MEMBER_ROLE_REPLICA
    return pb.Member(
        node_id=member.node_id,
        reachable=member.reachable,
        role=role,
        term=member.term,
        commit_index=member.commit_index,
        applied_index=member.applied_index,
        lag=member.lag,
        digest=member.digest,
        version=member.version,
        clock_offset=convert.duration(member.clock_offset_ms),
        audit_sequence=member.audit_sequence,
        audit_head=member.audit_head,
    )
