# SPDX-License-Identifier: Apache-2.0
"""Every path of the HTTP door and of the metrics listener, requested by every caller."""

import ast
import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import httpx
from starlette.routing import Route

from sparecode_node.daemon.metrics import listener
from tests.security.callers import Caller
from tests.security.callers_table import ABSENT, CLOSED, MAY, ROLE, SIGN_IN, UNCLEAR
from tests.security.whole_node import WholeNode

FIELDS: Mapping[str, Mapping[str, str]] = {
    "/v1/authenticate": {"username": "nobody", "passcode": "123456"},
    "/v1/continue": {"challenge": "AAAA", "tokencode": "123456"},
    "/validate/check": {"user": "nobody", "pass": "123456"},
}
WORDS = {
    HTTPStatus.UNAUTHORIZED: SIGN_IN,
    HTTPStatus.FORBIDDEN: ROLE,
    HTTPStatus.NOT_FOUND: ABSENT,
    HTTPStatus.METHOD_NOT_ALLOWED: ABSENT,
    HTTPStatus.NOT_IMPLEMENTED: ABSENT,
}
ANSWERED = (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)


async def door(node: WholeNode, caller: Caller) -> Mapping[str, str]:
    """Return what happened at each path of the HTTP door."""
    async with node.client(node.place.http_url, caller.certificate) as client:
        return {
            f"{method} {route.path}": await _outcome(client, method, route.path, caller)
            for route in node.door.routes
            if isinstance(route, Route)
            for method in sorted((route.methods or set()) - {"HEAD"})
        }


async def metrics(node: WholeNode, caller: Caller) -> Mapping[str, str]:
    """Return what happened at each path of the metrics listener."""
    url = f"https://{node.place.metrics_address}"
    async with node.client(url, caller.certificate) as client:
        return {
            f"GET {path}": await _outcome(client, "GET", path, caller)
            for path in _paths_of_metrics()
        }


def _paths_of_metrics() -> Sequence[str]:
    """Return the paths that the listener compares a request with."""
    return [
        each.value.value
        for each in ast.walk(ast.parse(inspect.getsource(listener)))
        if isinstance(each, ast.MatchValue)
        and isinstance(each.value, ast.Constant)
        and str(each.value.value).startswith("/")
    ]


async def _outcome(
    client: httpx.AsyncClient, method: str, path: str, caller: Caller
) -> str:
    shown = caller.bearer
    headers = {"authorization": f"Bearer {shown}"} if shown else {}
    body = FIELDS.get(path) if method == "POST" else None
    try:
        answer = await client.request(method, path, json=body, headers=headers)
    except httpx.TransportError:
        return CLOSED
    word = WORDS.get(HTTPStatus(answer.status_code))
    if word is None:
        assert answer.status_code in ANSWERED, f"{path}: {answer.text}"
        if answer.status_code != HTTPStatus.OK and not (shown or caller.certificate):
            return UNCLEAR
    return word or MAY
