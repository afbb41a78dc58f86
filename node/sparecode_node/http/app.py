# SPDX-License-Identifier: Apache-2.0
"""
The HTTP door as an ASGI application: the handling of every call.

The log line names the method, the caller and the outcome, and nothing else of the
request, so that no passcode can get into a log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sparecode_node.http import description
from sparecode_node.http.callers import Callers, address_of
from sparecode_node.http.plugins import Plugins, Sessions
from sparecode_node.http.privacyidea import Failures, PrivacyIdea
from sparecode_node.http.problems import (
    NO_STORE,
    Problems,
    RequestError,
    problem,
    problem_of,
)
from sparecode_node.http.v1 import (
    AUTHENTICATE,
    CONTINUE,
    DEADLINE_S,
    Reply,
    Steps,
)
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.access.refusals import NOBODY, Refusals
from sparecode_node.services.access.security_log import CALL_REFUSED, SecurityLog
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authentication.prompts import Prompts
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.ended_calls import EndedCall
from sparecode_node.services.error_table import Audience, Code, answer_for
from sparecode_node.services.errors import NoCredentialsError, UnidentifiedError
from sparecode_node.services.load.open_calls import (
    CallKind,
    CallLimits,
    OpenCalls,
    Opener,
)
from sparecode_node.services.people.agent_keys import AgentKeys
from sparecode_node.services.secrets.radius_seals import RadiusSeals
from sparecode_node.web.server import HEAD_BYTES_MAX

log = logging.getLogger(__name__)

LISTENER = "http"
CALLS = CallLimits(calls=256, of_agent=128)
"""Calls in progress. Further ones are shed, with a hint when to retry."""
REQUEST_S = 10.0
"""Time for a handshake, and for a whole request to arrive."""

BY_POST = "this path has another method: passcodes belong into a body, by POST"

Step = Callable[[AgentCaller, Request], Awaitable[Reply]]
Endpoint = Callable[[Request], Awaitable[Response]]
CheckRoom = Callable[[AgentCaller], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the door needs of its node."""

    steps: Steps
    prompts: Prompts
    seals: RadiusSeals
    agent_keys: AgentKeys
    plugins: Plugins
    check_open: Callable[[], object]
    """Raises `RemovedError` if this node answers no calls any more."""
    refusals: Refusals
    clock: Clock
    on_ended: Callable[[EndedCall], object]


def build_app(parts: Parts) -> ASGIApp:
    """Return the application of one node's door."""
    calls, steps = Calls(parts), parts.steps
    failed = Failures(parts.clock)
    privacyidea = PrivacyIdea(
        steps=steps,
        prompts=parts.prompts,
        plugins=parts.plugins,
        sessions=Sessions(authentication=steps.authentication, seals=parts.seals),
        clock=parts.clock,
    )

    refuse = _Strangers(parts.refusals.log)

    async def other_method(request: Request) -> Response:
        refuse.count(request, "METHOD")
        return failed(405, "METHOD", BY_POST, headers={"allow": "POST"})

    async def unsupported(request: Request) -> Response:
        refuse.count(request, "UNSUPPORTED")
        return failed(501, "UNSUPPORTED", "not supported: use /validate/check")

    routes = Starlette(
        routes=[
            Route(
                "/v1/authenticate",
                calls.endpoint(
                    AUTHENTICATE, steps.first, steps.authentication.check_room
                ),
                methods=["POST"],
            ),
            Route(
                "/v1/continue",
                calls.endpoint(CONTINUE, steps.next),
                methods=["POST"],
            ),
            Route(
                "/validate/check",
                calls.endpoint(
                    AUTHENTICATE,
                    privacyidea.check,
                    steps.authentication.check_room,
                    failed,
                    as_plugin=True,
                ),
                methods=["POST"],
            ),
            Route("/validate/check", other_method, methods=["GET"]),
            Route("/validate/triggerchallenge", unsupported, methods=["GET", "POST"]),
            Route("/validate/polltransaction", unsupported, methods=["GET", "POST"]),
            Route("/openapi.json", description.openapi, methods=["GET"]),
            Route("/docs", description.docs, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refuse.answer, Exception: _internal_error},
    )

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        # The listener bounds only what has not arrived completely.
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head + len(scope["raw_path"]) + len(scope["query_string"]) > HEAD_BYTES_MAX:
            parts.refusals.log.malformed(LISTENER, address_of(Request(scope)))
            refusal = problem(
                431, "HEADERS", f"the headers are longer than {HEAD_BYTES_MAX} bytes"
            )
            await refusal(scope, receive, send)
        else:
            await routes(scope, receive, send)

    return bounded


class Calls:
    """Handles calls: limits, errors, counters and one log line."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._callers = Callers(
            keys=parts.agent_keys, plugins=parts.plugins, clock=parts.clock
        )
        self._open_calls = OpenCalls(CALLS)

    def endpoint(
        self,
        method: str,
        step: Step,
        check_room: CheckRoom = lambda _: None,
        failed: Problems = problem,
        *,
        as_plugin: bool = False,
    ) -> Endpoint:
        """
        Wrap a step as an endpoint. *failed* builds the answer to what is refused.

        *as_plugin*: the caller's address may be enough, see `Callers.of`.

        *check_room* raises `OverloadedError` if the agent's call would be shed later. It
        is then shed before its body is read.
        """

        async def endpoint(request: Request) -> Response:
            ended = EndedCall(audience=Audience.AGENT, listener=LISTENER, method=method)
            began_s = self._parts.clock.monotonic_s()
            try:
                return await self._answer(
                    request, step, check_room, ended, failed, as_plugin=as_plugin
                )
            finally:
                ended.seconds = self._parts.clock.monotonic_s() - began_s
                self._parts.on_ended(ended)

        return endpoint

    async def _answer(
        self,
        request: Request,
        step: Step,
        check_room: CheckRoom,
        ended: EndedCall,
        failed: Problems,
        *,
        as_plugin: bool,
    ) -> Response:
        fields = {"method": ended.method, "caller": address_of(request)}
        actor = NOBODY
        try:
            self._parts.check_open()
            # Before the body: a stranger must not fill the places with slow bodies.
            caller = await self._callers.of(request, as_plugin=as_plugin)
            fields["caller"] = caller.identity
            actor = f"agent:{caller.identity}"
            opener = Opener(agent=caller.key)
            with self._open_calls.one(CallKind(method=ended.method), opener):
                check_room(caller)
                async with asyncio.timeout(DEADLINE_S):
                    answer = await step(caller, request)
        except RequestError as error:
            ended.code = Code.INVALID_ARGUMENT.name
            return failed(
                error.status, error.reason, error.detail, headers=error.headers
            )
        except ClientDisconnect:
            ended.code = Code.CANCELLED.name
            return Response(status_code=400)
        except asyncio.CancelledError:
            # The node stops and waits no longer. Otherwise the server would answer by a
            # 500 without a reason, as if nothing could have been decided.
            stopped = OutcomeUnknownError("the node stops")
            return self._failed(stopped, request, fields, actor, ended, failed)
        except Exception as error:  # noqa: BLE001 - Handled there.
            return self._failed(error, request, fields, actor, ended, failed)
        ended.code, ended.decision = Code.OK.name, answer.decision
        log.debug("call answered", extra={**fields, "code": "OK"})
        return JSONResponse(answer.body, headers=NO_STORE)

    def _failed(
        self,
        error: Exception,
        request: Request,
        fields: dict[str, str],
        actor: str,
        ended: EndedCall,
        failed: Problems,
    ) -> Response:
        """Return what the table of errors has for *error*."""
        answer = answer_for(error, Audience.AGENT)
        if answer is None:
            log.error("call failed by a bug", extra=fields, exc_info=error)
            return failed(500, "INTERNAL", "internal error")
        ended.code = answer.code.name
        if isinstance(error, UnidentifiedError | NoCredentialsError):
            # It reaches no use case, so it has to be recorded here.
            self._parts.refusals.record(ended.method, answer.reason.lower(), actor)
        self._parts.refusals.log.refused_call(
            answer, log, fields, peer=address_of(request)
        )
        return problem_of(answer, failed)


class _Strangers:
    """Refuses requests that are no call of this door, and counts them."""

    def __init__(self, security_log: SecurityLog) -> None:
        self._security_log = security_log

    def count(self, request: Request, reason: str) -> None:
        """Count a request. The path stays out of the log: it may hold a passcode."""
        self._security_log.note(
            CALL_REFUSED, listener=LISTENER, peer=address_of(request), reason=reason
        )

    async def answer(self, request: Request, error: Exception) -> Response:
        """Return the answer to a wrong path or method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = error.headers if isinstance(error, HTTPException) else None
        if status == 405:  # noqa: PLR2004
            self.count(request, "METHOD")
            return problem(405, "METHOD", BY_POST, headers=headers)
        if status == 404:  # noqa: PLR2004
            self.count(request, "PATH")
            return problem(404, "PATH", "there is no such path; see /openapi.json")
        self.count(request, "MALFORMED")
        return problem(status, "MALFORMED", "the request is malformed")


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("call failed by a bug", extra={"path": request.url.path}, exc_info=error)
    return problem(500, "INTERNAL", "internal error")
