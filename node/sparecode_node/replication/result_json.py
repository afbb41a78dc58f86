# SPDX-License-Identifier: Apache-2.0
"""Results between members, in JSON (until the state machine has a form for them)."""

import dataclasses
import json
import typing

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine import results

_CLASSES = {cls.__name__: cls for cls in typing.get_args(results.Result)}


def to_json(result: results.Result) -> str:
    """Return a result as JSON."""
    return json.dumps({"type": type(result).__name__, **dataclasses.asdict(result)})


def from_json(text: str) -> results.Result:
    """Return the result in *text*."""
    fields = json.loads(text)
    cls = _CLASSES[fields.pop("type")]
    if cls is Rejected:
        fields["reason"] = Reason(fields["reason"])
    if cls is results.Authenticated:
        fields["decision"] = results.Decision(fields["decision"])
    result: results.Result = cls(**fields)
    return result
