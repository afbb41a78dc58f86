# SPDX-License-Identifier: Apache-2.0
"""Calls on sessions."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import (
    sessions_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in, time_in
from sparecode_client.errors import InvalidArgument, NotSignedIn
from sparecode_client.values.results import Commit, Page
from sparecode_client.values.sessions import BrowserLogin, OpenSession, Session

REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
SECOND_FACTOR_NEEDED = "SECOND_FACTOR_NEEDED"


class Sessions(Caller):
    """The calls of `SessionService`."""

    async def login(
        self,
        administrator: str,
        password: str,
        *,
        second_factor: str = "",
        device_cookie: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Session:
        """
        Sign in. Later calls carry the session.

        *device_cookie* is the one that an earlier sign-in of this administrator
        returned. Keep it as a secret, and pass it: wrong passwords of strangers then do
        not keep the administrator out. By default the client passes the one that it got
        itself.

        Raises:
            NotSignedIn: The name or password is wrong. With the reason
                `SECOND_FACTOR_NEEDED`, call again with *second_factor*, the code that
                the administrator's authenticator app shows.
            InvalidArgument: With the reason `REQUEST_ID_REUSED`, the answer to this
                sign-in got lost. Sign in again with a new request ID and the next code.
        """
        request = sessions_pb2.LoginRequest(
            request_id=request_id or new_request_id(),
            administrator=administrator,
            password=password,
            second_factor=second_factor,
            device_cookie=device_cookie or self._client.device_cookie,
        )
        try:
            answer = await self._client.unary(
                lambda node: node.sessions.Login, request, within=within
            )
        except InvalidArgument as error:
            if error.reason != REQUEST_ID_REUSED or request_id or second_factor:
                raise
            # An answer got lost, and a repeated sign-in gets no session.
            request.request_id = new_request_id()
            answer = await self._client.unary(
                lambda node: node.sessions.Login, request, within=within
            )
        self._client.session = answer.session
        self._client.device_cookie = answer.device_cookie
        return Session(
            administrator=administrator,
            role=answer.role,
            end_time=time_in(answer, "end_time"),
            session=answer.session,
            device_cookie=answer.device_cookie,
        )

    async def start_browser_login(
        self,
        administrator: str,
        *,
        client_name: str = "",
        device_cookie: str = "",
        within: timedelta | None = None,
    ) -> BrowserLogin:
        """
        Ask to sign in without a password (RFC 8628).

        Show the user code and the page to the administrator, who types the code in the
        console and approves. Poll with `collect_browser_login` meanwhile. *client_name*
        is what the page calls this computer; *device_cookie* is as in `login`.

        Raises:
            Refused: `BROWSER_LOGINS_FULL`: too many sign-ins wait for an approval.
        """
        request = sessions_pb2.StartBrowserLoginRequest(
            administrator=administrator,
            client_name=client_name,
            device_cookie=device_cookie or self._client.device_cookie,
        )
        answer = await self._client.unary(
            lambda node: node.sessions.StartBrowserLogin, request, within=within
        )
        return BrowserLogin(
            administrator=administrator,
            user_code=answer.user_code,
            page=answer.verification_uri,
            end_time=time_in(answer, "end_time"),
            interval=answer.interval.ToTimedelta(),
            device_code=answer.device_code,
        )

    async def collect_browser_login(
        self,
        login: BrowserLogin,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Session | None:
        """
        Return the session of an approved sign-in, once; None: not decided yet.

        Later calls carry the session. Poll after `login.interval`.

        Raises:
            NotPermitted: `BROWSER_LOGIN_REFUSED`: the administrator has refused it.
            NotSignedIn: `BROWSER_LOGIN_UNKNOWN`: it has ended. Start again.
            InvalidArgument: With the reason `REQUEST_ID_REUSED`, the answer with the
                session got lost. Start again.
        """
        request = sessions_pb2.CollectBrowserLoginRequest(
            request_id=request_id or new_request_id(), device_code=login.device_code
        )
        answer = await self._client.unary(
            lambda node: node.sessions.CollectBrowserLogin, request, within=within
        )
        if not answer.session:
            return None
        self._client.session = answer.session
        self._client.device_cookie = answer.device_cookie
        return Session(
            administrator=login.administrator,
            role=answer.role,
            end_time=time_in(answer, "end_time"),
            session=answer.session,
            device_cookie=answer.device_cookie,
        )

    async def reauthenticate(
        self,
        password: str,
        *,
        second_factor: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Confirm that the signed-in administrator is present.

        Changes of credentials, roles, members, keys, agents and the policy need a
        sign-in or this within the last five minutes; else they fail with the reason
        `REAUTHENTICATION_NEEDED`.

        Raises:
            NotSignedIn: With the reason `SECOND_FACTOR_NEEDED`, call again with
                *second_factor*, the code that the authenticator app shows.
            Refused: `WRONG_PASSWORD`: the password is wrong.
        """
        request = sessions_pb2.ReauthenticateRequest(
            request_id=request_id or new_request_id(),
            password=password,
            second_factor=second_factor,
        )
        answer = await self._client.unary(
            lambda node: node.sessions.Reauthenticate, request, within=within
        )
        return commit_in(answer.commit)

    def confirm_with(self, ask: Callable[[bool], str]) -> None:
        """
        Ask the administrator when a call needs a reauthentication, then send it again.

        *ask* runs in another thread. It returns the password, and called with True the
        code that the authenticator app shows.
        """

        async def confirm() -> None:
            password = await asyncio.to_thread(ask, False)  # noqa: FBT003
            try:
                await self.reauthenticate(password)
            except NotSignedIn as refused:
                if refused.reason != SECOND_FACTOR_NEEDED:
                    raise
                code = await asyncio.to_thread(ask, True)  # noqa: FBT003
                await self.reauthenticate(password, second_factor=code)

        self._client.confirm = confirm

    @property
    def device_cookie(self) -> str:
        """The device cookie of the last sign-in or change of password, to be kept."""
        return self._client.device_cookie

    async def logout(
        self, *, request_id: str | None = None, within: timedelta | None = None
    ) -> None:
        """End this session, on every node."""
        request = sessions_pb2.LogoutRequest(request_id=request_id or new_request_id())
        await self._client.unary(
            lambda node: node.sessions.Logout, request, within=within
        )
        self._client.session = ""

    async def logout_everywhere(
        self, *, request_id: str | None = None, within: timedelta | None = None
    ) -> None:
        """End every session of this administrator, on every node."""
        request = sessions_pb2.LogoutEverywhereRequest(
            request_id=request_id or new_request_id()
        )
        await self._client.unary(
            lambda node: node.sessions.LogoutEverywhere, request, within=within
        )
        self._client.session = ""

    async def list_sessions(
        self,
        administrator: str = "",
        *,
        all_administrators: bool = False,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[OpenSession]:
        """
        Return a page of open sessions, newest first.

        Your own by default, or those of *administrator*, or those of all.
        """
        request = sessions_pb2.ListSessionsRequest(
            administrator=administrator,
            all_administrators=all_administrators,
            page_size=page_size,
            page_token=page_token,
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.sessions.ListSessions, request, within=within
        )
        return Page(
            items=tuple(open_session_in(each) for each in answer.sessions),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def end_session(
        self,
        session_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """End one session, on every node. Its ID is in `list_sessions`."""
        request = sessions_pb2.EndSessionRequest(
            request_id=request_id or new_request_id(), session_id=session_id
        )
        answer = await self._client.unary(
            lambda node: node.sessions.EndSession, request, within=within
        )
        return commit_in(answer.commit)

    async def who_am_i(self, *, within: timedelta | None = None) -> Session:
        """Return the current session, without its bearer token."""
        answer = await self._client.unary(
            lambda node: node.sessions.WhoAmI,
            sessions_pb2.WhoAmIRequest(),
            within=within,
        )
        return session_in(answer)


def open_session_in(session: sessions_pb2.OpenSession) -> OpenSession:
    """Convert an open session."""
    return OpenSession(
        session_id=session.session_id,
        administrator=session.administrator,
        open_time=time_in(session, "open_time"),
        use_time=time_in(session, "use_time"),
        unused_end_time=time_in(session, "unused_end_time"),
        end_time=time_in(session, "end_time"),
        node_id=session.node_id,
        address=session.address,
        door=session.door,
        calling=session.calling,
    )


def session_in(answer: sessions_pb2.WhoAmIResponse) -> Session:
    """Convert a session."""
    return Session(
        administrator=answer.administrator,
        role=answer.role,
        end_time=time_in(answer, "end_time"),
    )
