# SPDX-License-Identifier: Apache-2.0
"""
Protobuf to values and back.

A message that has no value of ours raises `InvalidFieldError`: an enumeration number
that this version does not know, or a time outside protobuf's range. The use case
decides whether a value makes sense.
"""

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import agents_pb2 as agents_pb
from sparecode.v1 import emergency_access_pb2 as emergency_pb
from sparecode.v1 import tokens_pb2 as tokens_pb
from sparecode.v1 import types_pb2
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.radius import AcceptAttributes
from sparecode_node.domain.sealed_codes import MailOutcome
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.queries.segments import RemovedEvents
from sparecode_node.services.context import Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.token_files import TokenFileFormat
from sparecode_node.statemachine.results import Applied, EmergencyAccessSaved

ALGORITHMS = {
    types_pb2.TOKEN_ALGORITHM_TOTP: Algorithm.TOTP,
    types_pb2.TOKEN_ALGORITHM_HOTP: Algorithm.HOTP,
    types_pb2.TOKEN_ALGORITHM_SECURID: Algorithm.SECURID,
}
HASHES = {
    types_pb2.TOKEN_HASH_SHA1: HashName.SHA1,
    types_pb2.TOKEN_HASH_SHA256: HashName.SHA256,
    types_pb2.TOKEN_HASH_SHA512: HashName.SHA512,
}
PIN_RULES = {
    types_pb2.PIN_RULE_PREPENDED: PinRule.PREPENDED,
    types_pb2.PIN_RULE_PINPAD: PinRule.PINPAD,
    types_pb2.PIN_RULE_NONE: PinRule.NONE,
}
TOKEN_FILE_FORMATS = {
    tokens_pb.TOKEN_FILE_FORMAT_PSKC: TokenFileFormat.PSKC,
    tokens_pb.TOKEN_FILE_FORMAT_SDTID: TokenFileFormat.SDTID,
    tokens_pb.TOKEN_FILE_FORMAT_CSV: TokenFileFormat.CSV,
}
RECOVERY_POLICIES = {
    types_pb2.RECOVERY_POLICY_DENY: RecoveryPolicy.DENY,
    types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE: RecoveryPolicy.ALLOW_AND_DISABLE,
    types_pb2.RECOVERY_POLICY_ALLOW_AFTER_EXPIRY: RecoveryPolicy.ALLOW_AFTER_EXPIRY,
}
PROTECTS = {
    types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER: Protects.AUTHENTICATION_MANAGER,
    types_pb2.AGENT_PROTECTS_CLOUD: Protects.CLOUD,
}
MAIL_OUTCOMES = {
    emergency_pb.MAIL_OUTCOME_SENT: MailOutcome.SENT,
    emergency_pb.MAIL_OUTCOME_UNKNOWN: MailOutcome.UNKNOWN,
    emergency_pb.MAIL_OUTCOME_FAILED: MailOutcome.FAILED,
}
CODE_STATES = {
    emergency_pb.TOKENCODE_STATE_LIVE: CodeState.LIVE,
    emergency_pb.TOKENCODE_STATE_USED: CodeState.USED,
    emergency_pb.TOKENCODE_STATE_VOID: CodeState.VOID,
}

NANOS_PER_MS = 1_000_000
# The ranges of protobuf's definitions: years 1 to 9999, and 10,000 years.
_SECONDS_MIN, _SECONDS_MAX = -62_135_596_800, 253_402_300_799
_DURATION_SECONDS_MAX = 315_576_000_000

V = TypeVar("V")
N = TypeVar("N", bound=int)


def enum_value(field: str, number: N, values: Mapping[N, V]) -> V:
    """Return the value of an enumeration number. The number must be set."""
    try:
        return values[number]
    except KeyError:
        allowed = ", ".join(f"{value} ({key})" for key, value in values.items())
        raise InvalidFieldError(
            field, f"{'missing' if number == 0 else number}; allowed values: {allowed}"
        ) from None


def enum_number(value: V, values: Mapping[N, V]) -> N:
    """Return the enumeration number of a value."""
    return next(number for number, each in values.items() if each == value)


def milliseconds(field: str, timestamp: Timestamp) -> int:
    """Return milliseconds since the epoch, rounded down."""
    if not _SECONDS_MIN <= timestamp.seconds <= _SECONDS_MAX:
        raise InvalidFieldError(field, "must be a time in the years 1 to 9999")
    if not 0 <= timestamp.nanos < 1000 * NANOS_PER_MS:
        raise InvalidFieldError(field, "nanos must be from 0 to 999,999,999")
    return timestamp.seconds * 1000 + timestamp.nanos // NANOS_PER_MS


def timestamp(at_ms: int | None) -> Timestamp | None:
    """Return a timestamp, or None for None: the field is then not set."""
    if at_ms is None:
        return None
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * NANOS_PER_MS)


def duration_milliseconds(field: str, duration: Duration) -> int:
    """Return milliseconds, rounded towards zero."""
    if abs(duration.seconds) > _DURATION_SECONDS_MAX:
        raise InvalidFieldError(field, "must not be more than 10,000 years")
    if abs(duration.nanos) >= 1000 * NANOS_PER_MS or (
        duration.seconds * duration.nanos < 0
    ):
        raise InvalidFieldError(
            field,
            "seconds and nanos must have the same sign, and nanos be below a second",
        )
    return duration.seconds * 1000 + int(duration.nanos / NANOS_PER_MS)


def duration(ms: int) -> Duration:
    """Return a duration."""
    converted = Duration()
    converted.FromMilliseconds(ms)
    return converted


def commit(node_id: str, applied: Applied) -> types_pb2.Commit:
    """Return where a change was committed."""
    return types_pb2.Commit(node_id=node_id, index=applied.index)


def removed(removed: RemovedEvents | None) -> types_pb2.RemovedEvents | None:
    """Return what retention has removed; None: nothing (U4)."""
    if removed is None:
        return None
    return types_pb2.RemovedEvents(
        last_sequence=removed.last_sequence,
        last_time=timestamp(removed.last_at_ms),
        remove_time=timestamp(removed.removed_at_ms),
        archives=removed.archives,
    )


def position(read: Read[V]) -> types_pb2.ReadPosition:
    """Return how current the result of a read is."""
    return types_pb2.ReadPosition(
        node_id=read.node_id, applied_index=read.applied_index, stale=read.stale
    )


def saved_tokencodes(
    node_id: str, saved: EmergencyAccessSaved
) -> emergency_pb.SavedTokencodes:
    """Return a set of codes after its commit."""
    warnings = []
    if saved.pin_missing_warning:
        warnings.append(
            "The token has no PIN: anyone who finds these codes can use them. With "
            "the recovery policy deny, the token itself stays refused until an administrator reinstates it."
        )
    return emergency_pb.SavedTokencodes(
        set_id=saved.set_id,
        codes=saved.codes,
        live_codes=saved.live_codes,
        voided_codes=saved.voided_codes,
        end_time=timestamp(saved.ends_at_ms),
        commit_time=timestamp(saved.at_ms),
        commit=types_pb2.Commit(node_id=node_id, index=saved.index),
        warnings=warnings,
    )


def attributes(told: AcceptAttributes) -> agents_pb.AcceptAttributes:
    """Convert what an Access-Accept tells an agent."""
    return agents_pb.AcceptAttributes(
        filter_id=told.filter_id,
        class_attribute=told.class_attribute,
        session_timeout_seconds=told.session_timeout_s,
    )
