# SPDX-License-Identifier: Apache-2.0
"""Calls on the policy."""

from dataclasses import MISSING, Field, fields
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from sparecode.v1 import policy_pb2
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in
from sparecode_client.values.policy import Policy, UpdatedPolicy
from sparecode_client.values.results import ReadPosition


class Policies(Caller):
    """The calls of `PolicyService`."""

    async def get_policy(
        self, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> Policy:
        """Return the current policy."""
        request = policy_pb2.GetPolicyRequest(stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.policy.GetPolicy, request, within=within
        )
        return policy_in(answer.policy, position_in(answer.position))

    async def update_policy(
        self,
        policy: Policy,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> UpdatedPolicy:
        """
        Replace the policy. *policy* carries the version that you read.

        Raises:
            Refused: `VERSION`: the policy has changed since you read it. Or the rules
                forbid it: `GUESS_ODDS`, `CODES_LIVE`.
            InvalidArgument: A value is out of bounds.
        """
        request = policy_pb2.UpdatePolicyRequest(
            request_id=request_id or new_request_id(), policy=policy_out(policy)
        )
        answer = await self._client.unary(
            lambda node: node.policy.UpdatePolicy, request, within=within
        )
        return UpdatedPolicy(version=answer.version, commit=commit_in(answer.commit))


def _is_later(field: "Field[Any]") -> bool:
    """Return whether a release added the field: older nodes do not send it."""
    return field.default is not MISSING


def policy_out(policy: Policy) -> policy_pb2.Policy:
    """Convert a policy for the wire, where no limit is a duration of 0."""
    values: dict[str, Any] = {}
    for field in fields(Policy):
        value = getattr(policy, field.name)
        if field.name == "position" or (value is None and _is_later(field)):
            continue
        if value is None or isinstance(value, timedelta):
            duration = Duration()
            duration.FromTimedelta(value or timedelta())
            value = duration
        values[field.name] = value
    return policy_pb2.Policy(**values)


def policy_in(policy: policy_pb2.Policy, position: ReadPosition) -> Policy:
    """Convert a policy."""
    values: dict[str, Any] = {}
    message: Message = policy
    for field in fields(Policy):
        if field.name == "position" or (
            _is_later(field) and not message.HasField(field.name)
        ):
            continue
        value = getattr(policy, field.name)
        values[field.name] = (
            value.ToTimedelta() if isinstance(value, Duration) else value
        )
    values["lifetime_max"] = values["lifetime_max"] or None
    return Policy(**values, position=position)
