# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages <-> the values of this library."""

import enum
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import (
    cluster_pb2,
    emergency_access_pb2,
    sessions_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode_client.values.emergency_access import (
    ClusterStatus,
    Commit,
    EmergencyAccess,
    Member,
    MemberRole,
    NewToken,
    PinRule,
    ReadPosition,
    RecoveryPolicy,
    SavedTokencodes,
    Session,
    Token,
    TokenAlgorithm,
    Tokencode,
    TokencodeRecord,
    TokencodeSet,
    TokencodeState,
    TokenHash,
    User,
)

E = TypeVar("E", bound=enum.StrEnum)
N_co = TypeVar("N_co", bound=int, covariant=True)

DEFAULT_PERIODS = {
    TokenAlgorithm.TOTP: timedelta(seconds=30),
    TokenAlgorithm.SECURID: timedelta(seconds=60),
}


class WireEnum(Protocol[N_co]):
    """A generated enum: its values begin with a prefix, its zero is UNSPECIFIED."""

    DESCRIPTOR: EnumDescriptor

    def Value(self, name: str) -> N_co:  # noqa: N802  Protobuf's name.
        """Return the number of *name*."""
        ...


def enum_out(wire: WireEnum[N_co], member: enum.StrEnum) -> N_co:
    """Return the number of *member*, which has its name on the wire less the prefix."""
    return wire.Value(_prefix(wire.DESCRIPTOR) + member.name)


def enum_in(kind: type[E], wire: WireEnum[N_co], number: int) -> E | None:
    """Return the member for *number*; None if unspecified, or newer than this code."""
    value = wire.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return None
    name = str(value.name).removeprefix(_prefix(wire.DESCRIPTOR))
    return kind.__members__.get(name)


def _prefix(descriptor: EnumDescriptor) -> str:
    return str(descriptor.values_by_number[0].name).removesuffix("UNSPECIFIED")


def time_out(time: datetime | None) -> Timestamp | None:
    """
    Return *time* for the wire.

    Raises:
        ValueError: It has no zone, so nobody knows which moment it is.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(time.astimezone(UTC))
    return timestamp


def time_in(message: Message, field: str) -> datetime | None:
    """Return the time in *field*, if there is one."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def lifetime_out(
    lifetime: datetime | timedelta | None,
) -> emergency_access_pb2.Lifetime:
    """Return *lifetime* for the wire: a moment, a duration, or until the token ends."""
    match lifetime:
        case None:
            return emergency_access_pb2.Lifetime()
        case timedelta():
            duration = Duration()
            duration.FromTimedelta(lifetime)
            return emergency_access_pb2.Lifetime(duration=duration)
        case _:
            return emergency_access_pb2.Lifetime(end_time=time_out(lifetime))


def enroll_out(token: NewToken, request_id: str) -> tokens_pb2.EnrollTokenRequest:
    """Return the request that enrolls *token*."""
    period = token.period
    if period is None:
        period = DEFAULT_PERIODS.get(token.algorithm)
    return tokens_pb2.EnrollTokenRequest(
        request_id=request_id,
        serial=token.serial,
        algorithm=enum_out(types_pb2.TokenAlgorithm, token.algorithm),
        hash=enum_out(types_pb2.TokenHash, token.hash),
        digits=token.digits,
        period_seconds=0 if period is None else int(period.total_seconds()),
        counter=token.counter,
        seed=token.seed,
        pin_rule=enum_out(types_pb2.PinRule, token.pin_rule),
        expire_time=time_out(token.expire_time),
    )


def commit_in(commit: types_pb2.Commit) -> Commit:
    """Return where it was committed."""
    return Commit(node_id=commit.node_id, index=commit.index)


def position_in(position: types_pb2.ReadPosition) -> ReadPosition:
    """Return how current an answer is."""
    return ReadPosition(
        node_id=position.node_id,
        applied_index=position.applied_index,
        stale=position.stale,
    )


def session_in(answer: sessions_pb2.WhoAmIResponse) -> Session:
    """Return whose session it is."""
    return Session(
        administrator=answer.administrator,
        role=answer.role,
        end_time=time_in(answer, "end_time"),
    )


def user_in(user: users_pb2.User, position: ReadPosition | None = None) -> User:
    """Return a user."""
    return User(
        username=user.username,
        display_name=user.display_name,
        email=user.email,
        enabled=user.enabled,
        token_serials=tuple(user.token_serials),
        token_failures=user.token_failures,
        emergency_failures=user.emergency_failures,
        locked=user.locked,
        groups=tuple(user.groups),
        position=position,
    )


def token_in(token: tokens_pb2.Token, position: ReadPosition | None = None) -> Token:
    """Return a token."""
    period = timedelta(seconds=token.period_seconds) if token.period_seconds else None
    hash_in = enum_in(TokenHash, types_pb2.TokenHash, token.hash)
    if token.hash == types_pb2.TOKEN_HASH_UNSPECIFIED:
        hash_in = TokenHash.SHA1
    return Token(
        serial=token.serial,
        algorithm=enum_in(TokenAlgorithm, types_pb2.TokenAlgorithm, token.algorithm),
        hash=hash_in,
        digits=token.digits,
        period=period,
        pin_rule=enum_in(PinRule, types_pb2.PinRule, token.pin_rule),
        pin_set=token.pin_set,
        username=token.username,
        enabled=token.enabled,
        expire_time=time_in(token, "expire_time"),
        lost=token.lost,
        live_codes=token.live_codes,
        position=position,
    )


def tokencode_in(code: emergency_access_pb2.Tokencode) -> Tokencode:
    """Return a code."""
    return Tokencode(ordinal=code.ordinal, code=code.code)


def saved_in(saved: emergency_access_pb2.SavedTokencodes) -> SavedTokencodes:
    """Return a set after its commit."""
    return SavedTokencodes(
        set_id=saved.set_id,
        codes=saved.codes,
        live_codes=saved.live_codes,
        voided_codes=saved.voided_codes,
        end_time=time_in(saved, "end_time"),
        commit_time=time_in(saved, "commit_time"),
        commit=commit_in(saved.commit),
        warnings=tuple(saved.warnings),
    )


def set_in(codes: emergency_access_pb2.TokencodeSet) -> TokencodeSet:
    """Return a set of one-time tokencodes."""
    state = emergency_access_pb2.TokencodeState
    return TokencodeSet(
        set_id=codes.set_id,
        issuer=codes.issuer,
        node_id=codes.node_id,
        index=codes.index,
        issue_time=time_in(codes, "issue_time"),
        end_time=time_in(codes, "end_time"),
        expired=codes.expired,
        fixed=codes.fixed,
        codes=tuple(
            TokencodeRecord(
                ordinal=code.ordinal,
                state=enum_in(TokencodeState, state, code.state),
                use_time=time_in(code, "use_time"),
                agent=code.agent,
                node_id=code.node_id,
                index=code.index,
            )
            for code in codes.codes
        ),
    )


def emergency_access_in(
    access: emergency_access_pb2.EmergencyAccess, position: ReadPosition | None = None
) -> EmergencyAccess:
    """Return the emergency access of a token."""
    policy = types_pb2.RecoveryPolicy
    return EmergencyAccess(
        serial=access.serial,
        username=access.username,
        enabled=access.enabled,
        lost=access.lost,
        recovery_policy=enum_in(RecoveryPolicy, policy, access.recovery_policy),
        live_codes=access.live_codes,
        end_time=time_in(access, "end_time"),
        sets=tuple(set_in(codes) for codes in access.sets),
        position=position,
    )


def status_in(status: cluster_pb2.GetStatusResponse) -> ClusterStatus:
    """Return the status of the cluster."""
    return ClusterStatus(
        node_id=status.node_id,
        cluster_id=status.cluster_id,
        primary=status.primary,
        quorum=status.quorum,
        feature_level=status.feature_level,
        last_backup_time=time_in(status, "last_backup_time"),
        last_backup_index=status.last_backup_index,
        members=tuple(
            Member(
                node_id=member.node_id,
                reachable=member.reachable,
                role=enum_in(MemberRole, cluster_pb2.MemberRole, member.role),
                term=member.term,
                commit_index=member.commit_index,
                applied_index=member.applied_index,
                lag=member.lag,
                digest=member.digest,
                version=member.version,
                clock_offset=(
                    member.clock_offset.ToTimedelta()
                    if member.HasField("clock_offset")
                    else None
                ),
                audit_sequence=member.audit_sequence,
                audit_head=member.audit_head,
                feature_level=member.feature_level,
            )
            for member in status.members
        ),
    )
