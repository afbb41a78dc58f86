# SPDX-License-Identifier: Apache-2.0
"""`EmergencyAccessService`: one-time tokencodes that stand in for a lost token."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode.v1 import emergency_access_pb2_grpc as pb_grpc
from sparecode.v1 import types_pb2
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.queries.views import CodeSetView, EmergencyAccessView
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.emergency.bulk_issue import (
    BulkIssue,
    BulkResult,
    BulkRow,
)
from sparecode_node.services.emergency.emergency_access import (
    Emergency,
    Lifetime,
    ShownCode,
)
from sparecode_node.services.emergency.issuing import SetTerms
from sparecode_node.services.emergency.sealed_messages import SentMessage

Issuing = (
    pb.SaveEmergencyAccessRequest
    | pb.IssueTokencodesRequest
    | pb.IssueFixedTokencodeRequest
    | pb.BulkIssueTokencodesRequest
)


class EmergencyAccessServicer(pb_grpc.EmergencyAccessServiceServicer):
    """Translates between the wire and `Emergency` and `BulkIssue`."""

    def __init__(self, node_id: str, emergency: Emergency, bulk: BulkIssue) -> None:
        self._node_id = node_id
        self._emergency = emergency
        self._bulk = bulk

    async def GenerateTokencodes(
        self, request: pb.GenerateTokencodesRequest, context: Context
    ) -> pb.GenerateTokencodesResponse:
        """Draw codes that are not active until they are saved."""
        generated = await self._emergency.generate(
            calls.session_call(context, "EmergencyAccessService/GenerateTokencodes"),
            serial=request.serial,
            count=request.count if request.HasField("count") else None,
        )
        return pb.GenerateTokencodesResponse(
            codes=_codes(generated.codes),
            draft=generated.draft,
            draft_end_time=conversion.timestamp(generated.draft_ends_at_ms),
        )

    async def SaveEmergencyAccess(
        self, request: pb.SaveEmergencyAccessRequest, context: Context
    ) -> pb.SaveEmergencyAccessResponse:
        """Make generated codes live."""
        saved = await self._emergency.save(
            calls.session_call(
                context,
                "EmergencyAccessService/SaveEmergencyAccess",
                request.request_id,
            ),
            serial=request.serial,
            draft=request.draft,
            terms=_terms(request, keep_unused_codes=request.keep_unused_codes),
        )
        return pb.SaveEmergencyAccessResponse(
            saved=conversion.saved_tokencodes(self._node_id, saved)
        )

    async def IssueTokencodes(
        self, request: pb.IssueTokencodesRequest, context: Context
    ) -> pb.IssueTokencodesResponse:
        """Draw codes and make them live."""
        issued = await self._emergency.issue(
            calls.session_call(
                context, "EmergencyAccessService/IssueTokencodes", request.request_id
            ),
            serial=request.serial,
            count=request.count if request.HasField("count") else None,
            terms=_terms(request, keep_unused_codes=request.keep_unused_codes),
            by_message=request.by_message,
            to_manager=request.to_manager,
        )
        return pb.IssueTokencodesResponse(
            saved=conversion.saved_tokencodes(self._node_id, issued.saved),
            codes=_codes(issued.codes),
            codes_withheld=issued.withheld,
            message=_message(issued.message),
        )

    async def BulkIssueTokencodes(
        self, request: pb.BulkIssueTokencodesRequest, context: Context
    ) -> AsyncIterator[pb.BulkIssueTokencodesResponse]:
        """Draw codes for many tokens and make them live, one row at a time."""
        results = await self._bulk.issue(
            calls.session_call(
                context,
                "EmergencyAccessService/BulkIssueTokencodes",
                request.request_id,
            ),
            rows=[
                BulkRow(
                    row=row.row,
                    serial=row.serial,
                    count=row.count if row.HasField("count") else None,
                )
                for row in request.rows
            ],
            count=request.count if request.HasField("count") else None,
            terms=_terms(request),
        )
        async with aclosing(results):
            async for result in results:
                yield self._bulk_result(result)

    def _bulk_result(self, result: BulkResult) -> pb.BulkIssueTokencodesResponse:
        saved = result.saved
        return pb.BulkIssueTokencodesResponse(
            row=result.row,
            serial=result.serial,
            username=result.username,
            saved=None
            if saved is None
            else conversion.saved_tokencodes(self._node_id, saved),
            codes=_codes(result.codes),
            codes_withheld=result.withheld,
            reason=result.reason,
            problem=result.problem,
        )

    async def IssueFixedTokencode(
        self, request: pb.IssueFixedTokencodeRequest, context: Context
    ) -> pb.IssueFixedTokencodeResponse:
        """Draw one reusable code and make it live."""
        issued = await self._emergency.issue_fixed(
            calls.session_call(
                context,
                "EmergencyAccessService/IssueFixedTokencode",
                request.request_id,
            ),
            serial=request.serial,
            terms=_terms(request),
        )
        return pb.IssueFixedTokencodeResponse(
            saved=conversion.saved_tokencodes(self._node_id, issued.saved),
            code="".join(each.code for each in issued.codes),
            code_withheld=issued.withheld,
        )

    async def GetEmergencyAccess(
        self, request: pb.GetEmergencyAccessRequest, context: Context
    ) -> pb.GetEmergencyAccessResponse:
        """Return the emergency access of one token."""
        read = await self._emergency.get(
            calls.session_call(context, "EmergencyAccessService/GetEmergencyAccess"),
            request.serial,
            stale_ok=request.stale_ok,
        )
        return pb.GetEmergencyAccessResponse(
            emergency_access=_emergency_access(read.value),
            position=conversion.position(read),
        )

    async def ListEmergencyAccess(
        self, request: pb.ListEmergencyAccessRequest, context: Context
    ) -> pb.ListEmergencyAccessResponse:
        """Return a page of the tokens in emergency access."""
        end_before_ms = None
        if request.HasField("end_before"):
            end_before_ms = conversion.milliseconds("end_before", request.end_before)
        read = await self._emergency.list(
            calls.session_call(context, "EmergencyAccessService/ListEmergencyAccess"),
            page_size=request.page_size,
            page_token=request.page_token,
            live_codes_max=request.live_codes_max,
            end_before_ms=end_before_ms,
            stale_ok=request.stale_ok,
        )
        return pb.ListEmergencyAccessResponse(
            emergency_access=[_emergency_access(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def DisableEmergencyAccess(
        self,
        request: pb.DisableEmergencyAccessRequest,
        context: Context,
    ) -> pb.DisableEmergencyAccessResponse:
        """Void all live codes of a token."""
        applied = await self._emergency.disable(
            calls.session_call(
                context,
                "EmergencyAccessService/DisableEmergencyAccess",
                request.request_id,
            ),
            serial=request.serial,
            reinstate_token=request.reinstate_token,
        )
        return pb.DisableEmergencyAccessResponse(
            commit=conversion.commit(self._node_id, applied)
        )


def _terms(request: Issuing, *, keep_unused_codes: bool = False) -> SetTerms:
    return SetTerms(
        lifetime=_lifetime(request),
        recovery=_recovery(request),
        keep_unused_codes=keep_unused_codes,
        weaken_recovery_policy=request.weaken_recovery_policy,
    )


def _recovery(request: Issuing) -> RecoveryPolicy:
    if request.recovery_policy == types_pb2.RECOVERY_POLICY_UNSPECIFIED:
        return RecoveryPolicy.DENY
    return conversion.enum_value(
        "recovery_policy", request.recovery_policy, conversion.RECOVERY_POLICIES
    )


def _lifetime(request: Issuing) -> Lifetime:
    lifetime = request.lifetime
    match lifetime.WhichOneof("lifetime"):
        case "end_time":
            return Lifetime(
                ends_at_ms=conversion.milliseconds(
                    "lifetime.end_time", lifetime.end_time
                )
            )
        case "duration":
            return Lifetime(
                duration_ms=conversion.duration_milliseconds(
                    "lifetime.duration", lifetime.duration
                )
            )
        case _:
            return Lifetime()


def _message(message: SentMessage | None) -> pb.SealedMessage | None:
    if message is None:
        return None
    return pb.SealedMessage(
        outcome=conversion.enum_number(message.outcome, conversion.MAIL_OUTCOMES),
        recipient=message.recipient,
        cause=message.cause,
        end_time=conversion.timestamp(message.ends_at_ms),
        to_manager=message.to_manager,
    )


def _codes(codes: Iterable[ShownCode]) -> list[pb.Tokencode]:
    return [pb.Tokencode(ordinal=each.ordinal, code=each.code) for each in codes]


def _emergency_access(access: EmergencyAccessView) -> pb.EmergencyAccess:
    return pb.EmergencyAccess(
        serial=access.serial,
        username=access.username,
        enabled=access.enabled,
        lost=access.lost,
        recovery_policy=conversion.enum_number(
            access.recovery, conversion.RECOVERY_POLICIES
        ),
        live_codes=access.live_codes,
        end_time=conversion.timestamp(access.ends_at_ms),
        sets=[_set(each) for each in access.sets],
    )


def _set(codes: CodeSetView) -> pb.TokencodeSet:
    return pb.TokencodeSet(
        set_id=codes.set_id,
        issuer=codes.issuer,
        node_id=codes.node_id,
        index=codes.index,
        issue_time=conversion.timestamp(codes.issued_at_ms),
        end_time=conversion.timestamp(codes.ends_at_ms),
        codes=[
            pb.TokencodeRecord(
                ordinal=code.ordinal,
                state=conversion.enum_number(code.state, conversion.CODE_STATES),
                use_time=conversion.timestamp(code.used_at_ms),
                agent=code.agent,
                node_id=code.node_id,
                index=code.index,
            )
            for code in codes.codes
        ],
        expired=codes.expired,
        fixed=codes.fixed,
    )
