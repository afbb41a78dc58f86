# SPDX-License-Identifier: Apache-2.0
"""`SessionService`: sign-in and sign-out of administrators."""

from dataclasses import replace

from sparecode.v1 import sessions_pb2 as pb
from sparecode.v1 import sessions_pb2_grpc as pb_grpc
from sparecode_node.queries.sessions import SessionListing
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.people.browser_logins import BrowserLogins
from sparecode_node.services.people.open_sessions import OpenSessions
from sparecode_node.services.people.sessions import Sessions


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Translates between the wire and `Sessions`."""

    def __init__(
        self,
        sessions: Sessions,
        open_sessions: OpenSessions,
        browser_logins: BrowserLogins,
        node_id: str,
    ) -> None:
        self._sessions = sessions
        self._browser_logins = browser_logins
        self._open_sessions = open_sessions
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

    async def StartBrowserLogin(
        self, request: pb.StartBrowserLoginRequest, context: Context
    ) -> pb.StartBrowserLoginResponse:
        """Ask to sign in through a browser."""
        call = replace(
            calls.anonymous_call(context, "SessionService/StartBrowserLogin", ""),
            device_cookie=request.device_cookie,
        )
        started = await self._browser_logins.start(
            call,
            administrator=request.administrator,
            client_name=request.client_name,
        )
        return pb.StartBrowserLoginResponse(
            device_code=started.device_code,
            user_code=started.user_code,
            verification_uri=started.page,
            end_time=conversion.timestamp(started.ends_at_ms),
            interval=conversion.duration(started.interval_ms),
        )

    async def CollectBrowserLogin(
        self, request: pb.CollectBrowserLoginRequest, context: Context
    ) -> pb.CollectBrowserLoginResponse:
        """Poll for the session of a sign-in."""
        signed_in = await self._browser_logins.collect(
            calls.anonymous_call(
                context, "SessionService/CollectBrowserLogin", request.request_id
            ),
            device_code=request.device_code,
        )
        if signed_in is None:
            return pb.CollectBrowserLoginResponse()
        return pb.CollectBrowserLoginResponse(
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

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """Return a page of open sessions."""
        read = await self._open_sessions.list(
            calls.session_call(context, "SessionService/ListSessions"),
            administrator=request.administrator,
            all_administrators=request.all_administrators,
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListSessionsResponse(
            sessions=[_open_session(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def EndSession(
        self, request: pb.EndSessionRequest, context: Context
    ) -> pb.EndSessionResponse:
        """End one session."""
        applied = await self._open_sessions.end(
            calls.session_call(
                context, "SessionService/EndSession", request.request_id
            ),
            session_id=request.session_id,
        )
        return pb.EndSessionResponse(commit=conversion.commit(self._node_id, applied))

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


def _open_session(listing: SessionListing) -> pb.OpenSession:
    return pb.OpenSession(
        session_id=listing.public_id,
        administrator=listing.administrator,
        open_time=conversion.timestamp(listing.opened_at_ms),
        use_time=conversion.timestamp(listing.used_at_ms),
        unused_end_time=conversion.timestamp(listing.unused_end_ms),
        end_time=conversion.timestamp(listing.ends_at_ms),
        node_id=listing.node_id,
        address=listing.address,
        door=listing.door,
        calling=listing.calling,
    )
