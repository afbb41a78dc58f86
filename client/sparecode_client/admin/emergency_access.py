# SPDX-License-Identifier: Apache-2.0
"""
Emergency access: codes that stand in for a lost token.

Issuing is two steps, with the codes in this process's memory between them (I3):
codes are drawn, which changes nothing, and then saved, which any retry of may
do only once. So no answer that got lost ever takes live codes with it.
"""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from sparecode.v1 import (
    emergency_access_pb2,
    types_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    enum_out,
    position_in,
    time_in,
    time_out,
)
from sparecode_client.errors import NodeFailed, Refused
from sparecode_client.values.emergency_access import (
    EmergencyAccess,
    GeneratedTokencodes,
    IssuedFixedTokencode,
    IssuedTokencodes,
    RecoveryPolicy,
    SavedTokencodes,
    Tokencode,
    TokencodeRecord,
    TokencodeSet,
    TokencodeState,
)
from sparecode_client.values.results import Commit, Page, ReadPosition

DRAFT_STALE = "DRAFT_STALE"
DRAFTS_MAX = 3
"""Something changes between drawing and saving once in a blue moon, hardly twice."""


class EmergencyAccesses(Caller):
    """The calls of `EmergencyAccessService`."""

    async def issue_tokencodes(
        self,
        serial: str,
        *,
        count: int | None = None,
        lifetime: datetime | timedelta | None = None,
        recovery_policy: RecoveryPolicy = RecoveryPolicy.DENY,
        keep_unused_codes: bool = False,
        weaken_recovery_policy: bool = False,
        within: timedelta | None = None,
    ) -> IssuedTokencodes:
        """
        Issue a set of one-time tokencodes for a token.

        *count*: as many as policy says, if not given. *lifetime*: until a moment, for
        a duration from the commit on, or (None) until the token expires. *keep_unused_codes* leaves earlier
        codes live, which are void otherwise (I8). *weaken_recovery_policy* agrees
        to replace `DENY` by a weaker policy.

        Raises:
            Refused: The rules forbid it; `reason` says which.
            OutcomeUnknown: Perhaps codes are live that nobody has seen. Issue
                again: that voids them, unless *keep_unused_codes*.
        """
        deadline = self._client.deadline(within)
        for drafts_left in reversed(range(DRAFTS_MAX)):
            generated = await self.generate_tokencodes(
                serial, count=count, within=deadline.remaining()
            )
            try:
                saved = await self.save_emergency_access(
                    generated,
                    lifetime=lifetime,
                    recovery_policy=recovery_policy,
                    keep_unused_codes=keep_unused_codes,
                    weaken_recovery_policy=weaken_recovery_policy,
                    within=deadline.remaining(),
                )
            except Refused as refused:
                if refused.reason != DRAFT_STALE or not drafts_left:
                    raise
            else:
                return IssuedTokencodes(
                    serial=serial, codes=generated.codes, saved=saved
                )
        raise AssertionError("the last draft is either saved or refused")

    async def generate_tokencodes(
        self,
        serial: str,
        *,
        count: int | None = None,
        within: timedelta | None = None,
    ) -> GeneratedTokencodes:
        """Draw codes. They are not active until they are saved; nothing changes."""
        request = emergency_access_pb2.GenerateTokencodesRequest(
            serial=serial, count=count
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.GenerateTokencodes,
            request,
            within=within,
        )
        return GeneratedTokencodes(
            serial=serial,
            codes=tuple(tokencode_in(code) for code in answer.codes),
            draft=answer.draft,
            draft_end_time=time_in(answer, "draft_end_time"),
        )

    async def save_emergency_access(
        self,
        generated: GeneratedTokencodes,
        *,
        lifetime: datetime | timedelta | None = None,
        recovery_policy: RecoveryPolicy = RecoveryPolicy.DENY,
        keep_unused_codes: bool = False,
        weaken_recovery_policy: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> SavedTokencodes:
        """
        Make generated codes live, once, on whichever node.

        Raises:
            Refused: The rules forbid it. With the reason `DRAFT_STALE`, something
                has changed since, or 15 minutes have passed: generate again.
        """
        request = emergency_access_pb2.SaveEmergencyAccessRequest(
            request_id=request_id or new_request_id(),
            serial=generated.serial,
            draft=generated.draft,
            lifetime=lifetime_out(lifetime),
            recovery_policy=enum_out(types_pb2.RecoveryPolicy, recovery_policy),
            keep_unused_codes=keep_unused_codes,
            weaken_recovery_policy=weaken_recovery_policy,
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.SaveEmergencyAccess,
            request,
            within=within,
        )
        return saved_in(answer.saved)

    async def issue_fixed_tokencode(
        self,
        serial: str,
        *,
        lifetime: datetime | timedelta | None = None,
        recovery_policy: RecoveryPolicy = RecoveryPolicy.DENY,
        weaken_recovery_policy: bool = False,
        within: timedelta | None = None,
    ) -> IssuedFixedTokencode:
        """
        Issue one code for a token that may be used again and again until its end.

        *lifetime* None: seven days, or less if policy caps it. One-time codes of
        the token are void then. When the answer of a try got lost and its code with
        it, another is issued, which voids the first.

        Raises:
            Refused: The rules forbid it; `reason` says which.
            OutcomeUnknown: Perhaps a code is live that nobody has seen. Issue
                again: that voids it.
        """
        deadline = self._client.deadline(within)
        for _ in range(DRAFTS_MAX):
            request = emergency_access_pb2.IssueFixedTokencodeRequest(
                request_id=new_request_id(),
                serial=serial,
                lifetime=lifetime_out(lifetime),
                recovery_policy=enum_out(types_pb2.RecoveryPolicy, recovery_policy),
                weaken_recovery_policy=weaken_recovery_policy,
            )
            answer = await self._client.unary(
                lambda node: node.emergency_access.IssueFixedTokencode,
                request,
                within=deadline.remaining(),
            )
            if not answer.code_withheld:
                return IssuedFixedTokencode(
                    serial=serial, code=answer.code, saved=saved_in(answer.saved)
                )
        raise NodeFailed("CODE_WITHHELD", "no answer came in time, more than once")

    async def get_emergency_access(
        self,
        serial: str,
        *,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> EmergencyAccess:
        """Return the emergency access of one token, with its sets but no codes."""
        request = emergency_access_pb2.GetEmergencyAccessRequest(
            serial=serial, stale_ok=stale_ok
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.GetEmergencyAccess,
            request,
            within=within,
        )
        return emergency_access_in(
            answer.emergency_access, position_in(answer.position)
        )

    async def list_emergency_access(
        self,
        *,
        live_codes_max: int = 0,
        end_before: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[EmergencyAccess]:
        """Return a page of the tokens in emergency access, in the order of serials."""
        request = emergency_access_pb2.ListEmergencyAccessRequest(
            page_size=page_size,
            page_token=page_token,
            live_codes_max=live_codes_max,
            end_before=time_out(end_before),
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.ListEmergencyAccess,
            request,
            within=within,
        )
        return Page(
            items=tuple(
                emergency_access_in(access) for access in answer.emergency_access
            ),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def disable_emergency_access(
        self,
        serial: str,
        *,
        reinstate_token: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Void all live codes of a token.

        Whether the token counts as lost stays as it is (R2), unless
        *reinstate_token* says that its owner has it again.
        """
        request = emergency_access_pb2.DisableEmergencyAccessRequest(
            request_id=request_id or new_request_id(),
            serial=serial,
            reinstate_token=reinstate_token,
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.DisableEmergencyAccess,
            request,
            within=within,
        )
        return commit_in(answer.commit)


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
