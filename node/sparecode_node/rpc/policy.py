# SPDX-License-Identifier: Apache-2.0
"""`PolicyService`: the policy of the cluster."""

from dataclasses import fields
from typing import Any

from google.protobuf.message import Message

from sparecode.v1 import policy_pb2 as pb
from sparecode.v1 import policy_pb2_grpc as pb_grpc
from sparecode_node.domain.policy import Policy, public_name
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.policy import Policies


class PolicyServicer(pb_grpc.PolicyServiceServicer):
    """Translates between the wire and `Policies`."""

    def __init__(self, node_id: str, policies: Policies) -> None:
        self._node_id = node_id
        self._policies = policies

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: Context
    ) -> pb.GetPolicyResponse:
        """Return the policy."""
        read = await self._policies.get(
            calls.session_call(context, "PolicyService/GetPolicy"),
            stale_ok=request.stale_ok,
        )
        return pb.GetPolicyResponse(
            policy=policy_message(read.value), position=conversion.position(read)
        )

    async def UpdatePolicy(
        self, request: pb.UpdatePolicyRequest, context: Context
    ) -> pb.UpdatePolicyResponse:
        """Replace the policy."""
        version = request.policy.version
        applied = await self._policies.update(
            calls.session_call(
                context, "PolicyService/UpdatePolicy", request.request_id
            ),
            version=version,
            values=policy_values(request.policy),
        )
        return pb.UpdatePolicyResponse(
            commit=conversion.commit(self._node_id, applied), version=version + 1
        )


def policy_message(policy: Policy) -> pb.Policy:
    """Return the message for a policy. Times become durations; "no cap" becomes 0."""
    values: dict[str, Any] = {}
    for field in fields(Policy):
        value = getattr(policy, field.name)
        name = public_name(field.name)
        values[name] = value if name == field.name else conversion.duration(value or 0)
    return pb.Policy(**values)


def policy_values(message: Message) -> dict[str, Any]:
    """Return the fields set in a message, by the names of `Policy`. See `conversion`."""
    values: dict[str, Any] = {}
    for field in fields(Policy):
        name = public_name(field.name)
        if field.name == "version" or not message.HasField(name):
            continue
        value = getattr(message, name)
        if name == field.name:
            values[field.name] = value
            continue
        values[field.name] = conversion.duration_milliseconds(name, value)
        if value.nanos and not values[field.name]:
            raise InvalidFieldError(name, "must not be less than a millisecond")
    return values
