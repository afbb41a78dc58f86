# SPDX-License-Identifier: Apache-2.0
"""Calls on the review of a restored cluster."""

from datetime import timedelta

from sparecode.v1 import (
    cluster_pb2,
)
from sparecode_client.admin.agents import attributes_in
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in, time_in
from sparecode_client.values.results import Commit
from sparecode_client.values.review import (
    ClusterReview,
    ReviewedAdministrator,
    ReviewedAgent,
    ReviewedCertificate,
    ReviewedRadiusClient,
)


class ClusterReviews(Caller):
    """The calls of `ClusterService` on its review."""

    async def get_review(self, *, within: timedelta | None = None) -> ClusterReview:
        """Return what to check before a restored cluster serves agents."""
        answer = await self._client.unary(
            lambda node: node.cluster.GetReview,
            cluster_pb2.GetReviewRequest(),
            within=within,
        )
        return review_in(answer)

    async def open_cluster(
        self,
        review: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Let a restored cluster serve agents, if *review* matches its current state."""
        answer = await self._client.unary(
            lambda node: node.cluster.OpenCluster,
            cluster_pb2.OpenClusterRequest(
                request_id=request_id or new_request_id(), review=review
            ),
            within=within,
        )
        return commit_in(answer.commit)


def review_in(review: cluster_pb2.GetReviewResponse) -> ClusterReview:
    """Convert a review."""
    return ClusterReview(
        cluster_id=review.cluster_id,
        open=review.open,
        epoch=review.epoch,
        cause=review.cause,
        begin_time=time_in(review, "begin_time"),
        state_index=review.state_index,
        state_time=time_in(review, "state_time"),
        review=review.review,
        administrators=tuple(
            ReviewedAdministrator(name=each.name, role=each.role, enabled=each.enabled)
            for each in review.administrators
        ),
        agents=tuple(
            ReviewedAgent(
                name=each.name,
                identity=each.identity,
                enabled=each.enabled,
                restricted=each.restricted,
                key_create_time=time_in(each, "key_create_time"),
                accept_attributes=attributes_in(each.accept_attributes),
            )
            for each in review.agents
        ),
        disabled_users=tuple(review.disabled_users),
        disabled_users_count=review.disabled_users_count,
        denied_certificates=tuple(
            ReviewedCertificate(
                mark=each.mark,
                value=each.value,
                denied_time=time_in(each, "denied_time"),
                denied_by=each.denied_by,
            )
            for each in review.denied_certificates
        ),
        radius_clients=tuple(
            ReviewedRadiusClient(
                name=each.name,
                networks=tuple(each.networks),
                allow_unsigned=each.allow_unsigned,
                allow_unsigned_proxied=each.allow_unsigned_proxied,
                unsigned_until_signed=each.unsigned_until_signed,
                secret_create_time=time_in(each, "secret_create_time"),
            )
            for each in review.radius_clients
        ),
        position=position_in(review.position),
    )
