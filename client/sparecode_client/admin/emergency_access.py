# SPDX-License-Identifier: Apache-2.0
"""
Calls on emergency access: codes that stand in for a lost token.

Issuing takes two steps, and this process holds the codes between them (I3). The first
step generates codes, which changes nothing. The second step saves them, and a retry
saves only once. So a lost answer never loses live codes.
"""

from datetime import datetime, timedelta
from typing import Unpack

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
    MailOutcome,
    RecoveryPolicy,
    SavedTokencodes,
    SentTokencodes,
    Tokencode,
    TokencodeRecord,
    TokencodeSet,
    TokencodeState,
    TokencodeTerms,
)
from sparecode_client.values.results import Commit, Page, ReadPosition

DRAFT_STALE = "DRAFT_STALE"
DRAFTS_MAX = 3
"""The token rarely changes between generating and saving, and hardly ever twice."""


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

        *count* defaults to the number in the policy. *lifetime* is a time, a duration
        from the commit on, or None: until the token expires. *keep_unused_codes* keeps
        earlier codes live; otherwise they become void (I8). *weaken_recovery_policy*
        allows replacing `DENY` by a weaker policy.

        Raises:
            Refused: The rules forbid it; see `reason`.
            OutcomeUnknown: Perhaps codes are live, but they are lost. Issue again: that
                voids them, unless *keep_unused_codes*.
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
        raise AssertionError("the last draft was neither saved nor refused")

    async def send_tokencodes(
        self,
        serial: str,
        *,
        to_manager: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
        **terms: Unpack[TokencodeTerms],
    ) -> SentTokencodes:
        """
        Issue a set of codes, and mail their user a link that shows them once.

        The policy `codes_by_message` must allow it. No one but the user sees the codes.
        *to_manager* mails the link to the manager on file with the user instead, who
        sees the codes; the policy `codes_to_manager` must allow it, too. The mail is
        sent once: a retry with the same *request_id* sends no other one. *terms* are
        those of `issue_tokencodes`.

        Raises:
            Refused: The rules forbid it; with the reason `NOT_BY_MESSAGE`, there is no
                way to mail codes to this user, or to the manager.
            OutcomeUnknown: Perhaps codes are live, and their link was mailed. If it is
                not opened within an hour, they are void.
        """
        recovery = terms.get("recovery_policy", RecoveryPolicy.DENY)
        request = emergency_access_pb2.IssueTokencodesRequest(
            request_id=request_id or new_request_id(),
            serial=serial,
            count=terms.get("count"),
            lifetime=lifetime_out(terms.get("lifetime")),
            recovery_policy=enum_out(types_pb2.RecoveryPolicy, recovery),
            keep_unused_codes=terms.get("keep_unused_codes", False),
            weaken_recovery_policy=terms.get("weaken_recovery_policy", False),
            by_message=True,
            to_manager=to_manager,
        )
        answer = await self._client.unary(
            lambda node: node.emergency_access.IssueTokencodes,
            request,
            within=within,
        )
        outcome = emergency_access_pb2.MailOutcome
        return SentTokencodes(
            serial=serial,
            saved=saved_in(answer.saved),
            outcome=enum_in(MailOutcome, outcome, answer.message.outcome),
            recipient=answer.message.recipient,
            cause=answer.message.cause,
            open_until=time_in(answer.message, "end_time"),
            to_manager=answer.message.to_manager,
        )

    async def generate_tokencodes(
        self,
        serial: str,
        *,
        count: int | None = None,
        within: timedelta | None = None,
    ) -> GeneratedTokencodes:
        """Generate codes. Nothing changes, and they do not work until they are saved."""
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
        Save generated codes, which makes them live. Any node can do it, once.

        Raises:
            Refused: The rules forbid it. With the reason `DRAFT_STALE`, the token has
                changed, or the draft has expired (after 15 minutes, unless policy
                differs): generate again.
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
        Issue a temporary fixed tokencode: one code that works until it expires.

        *lifetime* None: seven days, or less if policy limits it. The token's one-time
        codes become void. If the answer of a try was lost, another code is issued,
        which voids the lost one.

        Raises:
            Refused: The rules forbid it; see `reason`.
            OutcomeUnknown: Perhaps a code is live, but it is lost. Issue again: that
                voids it.
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
        raise NodeFailed("CODE_WITHHELD", "the answer was lost several times")

    async def get_emergency_access(
        self,
        serial: str,
        *,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> EmergencyAccess:
        """Return the emergency access of a token, with its sets but without codes."""
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
        """Return a page of the tokens in emergency access, by serial."""
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

        A token that counts as lost stays lost (R2). *reinstate_token* changes that: use
        it if the user has the token again.
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
    """Convert a lifetime: a time, a duration, or None: until the token expires."""
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
    """Convert a code."""
    return Tokencode(ordinal=code.ordinal, code=code.code)


def saved_in(saved: emergency_access_pb2.SavedTokencodes) -> SavedTokencodes:
    """Convert a saved set."""
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
    """Convert a set."""
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
    """Convert the emergency access of a token."""
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
