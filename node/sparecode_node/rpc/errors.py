# SPDX-License-Identifier: Apache-2.0
"""
The statuses of gRPC for the answers of `services/error_table.py`.

A status carries `google.rpc.Status`: `ErrorInfo` with the reason (domain `sparecode`),
`BadRequest` for a field, `RetryInfo` where a retry helps.
"""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sparecode_node.services.error_table import Answer

DOMAIN = "sparecode"


def status_of(answer: Answer) -> grpc.Status:
    """Return the status with its details, for `abort`."""
    number: int = grpc.StatusCode[answer.code.name].value[0]
    info = error_details_pb2.ErrorInfo(reason=answer.reason, domain=DOMAIN)
    if answer.approval_id:
        info.metadata["approval_id"] = str(answer.approval_id)
    details = [_any(info)]
    if answer.field or answer.reason == "FIELD":
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=answer.field, description=answer.field_words
        )
        details.append(_any(error_details_pb2.BadRequest(field_violations=[violation])))
    if answer.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(answer.retry_s * 1000))
        details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=number, message=answer.words, details=details)
    )
    return status


def _any(message: error_details_pb2.ErrorInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
