# SPDX-License-Identifier: Apache-2.0
"""`SessionService`: sign-in and sign-out of administrators."""

from dataclasses import replace

from sparecode.v1 import sessions_pb2 as pb
from sparecode.v1 import sessions_pb2_grpc as pb_grpc
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.people.sessions import Sessions


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Translates between the wire and `Sessions`."""

    def __init__(self, sessions: Sessions, node_id: str) -> None:
        self._sessions = sessions
        self._node_id = node_id

    async def Login(
        self, request: pb.LoginRequest, context: Context
    ) -> pb.LoginResponse:
        """Open a session."""
        call = replace(
            calls.anonymous_call(context, "SessionService/Login", request.request_id),
            device_cookie=request.device_cookie,
        )
        signed_in = await self._sessions.login(
            call,
            administrator=request.administrator,
            password=request.password,
            second_factor=request.second_factor,
        )
        return pb.LoginResponse(
            session=signed_in.bearer,
            end_time=conversion.timestamp(signed_in.opened.ends_at_ms),
            role=signed_in.opened.role,
            device_cookie=signed_in.device_cookie,
        )

    async def Reauthenticate(
        self, request: pb.ReauthenticateRequest, context: Context
    ) -> pb.ReauthenticateResponse:
        """Confirm the calling administrator."""
        applied = await self._sessions.reauthenticate(
            calls.session_call(
                context, "SessionService/Reauthenticate", request.request_id
            ),
            password=request.password,
            second_factor=request.second_factor,
        )
        return pb.ReauthenticateResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def Logout(
        self, request: pb.LogoutRequest, context: Context
    ) -> pb.LogoutResponse:
        """End the calling session."""
        call = calls.session_call(context, "SessionService/Logout", request.request_id)
        await self._sessions.logout(call)
        return pb.LogoutResponse()

    async def LogoutEverywhere(
        self, request: pb.LogoutEverywhereRequest, context: Context
    ) -> pb.LogoutEverywhereResponse:
        """End every session of the calling administrator."""
        call = calls.session_call(
            context, "SessionService/LogoutEverywhere", request.request_id
        )
        await self._sessions.logout_everywhere(call)
        return pb.LogoutEverywhereResponse()

    async def WhoAmI(
        self, request: pb.WhoAmIRequest, context: Context
    ) -> pb.WhoAmIResponse:
        """Return the administrator of the calling session."""
        del request
        session = await self._sessions.who_am_i(
            calls.session_call(context, "SessionService/WhoAmI")
        )
        return pb.WhoAmIResponse(
            administrator=session.administrator,
            role=session.role,
            end_time=conversion.timestamp(session.ends_at_ms),
        )
