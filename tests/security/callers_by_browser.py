# SPDX-License-Identifier: Apache-2.0
"""Every page and form of the console, opened and sent by every caller's browser."""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from sparecode_node.console.kit.security import (
    SESSION_COOKIE,
    VISIT_COOKIE,
    form_token,
)
from sparecode_node.console.kit.token_menu import ACTIONS
from tests.console.paper import Button, Form, Page
from tests.security.callers import NO_APPROVAL, Caller, new_id
from tests.security.callers_by_grpc import ALICE
from tests.security.callers_table import MAY, OWN, PASSWORD, ROLE, SIGN_IN, UNCLEAR
from tests.security.whole_node import WholeNode

NO_FIELDS: Sequence[Mapping[str, str]] = ({},)


def _actions(*names: str, **fields: str) -> Sequence[Mapping[str, str]]:
    return tuple({"action": name, **fields} for name in names)


FORMS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "/account/command-line": _actions("find", "approve", "refuse", code="BCDF-GHJK"),
    "/account/passkeys": _actions("register", "remove", passkey="{}"),
    "/account/second-factor": _actions("enroll", "confirm"),
    "/administrators/{name:path}": _actions(
        "remove",
        "enable",
        "disable",
        "role",
        "remove-second-factor",
        "cancel-reset",
        "link",
        role="auditor",
        no_user="on",
    ),
    "/agents/{name:path}": _actions(
        "remove",
        "enable",
        "disable",
        "end-keys",
        "admit",
        "turn-away",
        "update",
        username=ALICE,
        protects="authentication_manager",
    ),
    "/agent-keys/{name:path}": ({"overlap_hours": "0"},),
    "/approvals": _actions("approve", "reject", approval_id=str(NO_APPROVAL)),
    "/channels": _actions("test", "send-again", channel=ALICE),
    "/channels/{name:path}": _actions("remove", "update"),
    "/denied-certificates": _actions(
        "deny", "allow", mark="fingerprint", value="cd" * 32
    ),
    "/import/tokens": _actions("preview", "import", content="serial,seed\nx,y"),
    "/import/users": _actions("preview", "import", content="username\nalice"),
    "/cluster/review": ({"review": "0123456789abcdef"},),
    "/issue-codes": _actions(
        "choose",
        "issue",
        user=ALICE,
        serial=ALICE,
        count="2",
        recovery="deny",
        lifetime="never",
    ),
    "/new/administrator": (
        {"name": "", "role": "auditor", "password": "", "password_again": ""},
    ),
    "/new/channel": _actions("create", "fields", kind="webhook"),
    "/new/user": ({"username": ALICE},),
    "/policy": _actions("", "check", "save", version="1000000"),
    "/selection": _actions("", "unlock", "enable", "disable", user=ALICE, sure="on"),
    "/sessions": ({"session_id": "0" * 16},),
    "/tokens/{serial}/assign": ({"username": ALICE},),
    "/tokens/{serial}/emergency-access": (
        {"action": "generate", "count": "2", "lifetime": "never"},
        {
            "action": "save",
            "online": "on",
            "kind": "fixed",
            "recovery": "deny",
            "lifetime": "until",
            "expires_date": f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=3):%Y-%m-%d}",
            "expires_time": "12:00",
            "request_id": new_id(),
        },
        {"action": "off", "request_id": new_id()},
        {"action": "off-and-reinstate", "request_id": new_id()},
    ),
    "/tokens/{serial}/emergency-access/sheet.pdf": (
        {"pdf_password": "-".join(["ABCDE"] * 4)},
    ),
    "/tokens/{serial}/expiration": ({"lifetime": "never"},),
    "/tokens/{serial}/replace": ({"replacement": "2"},),
    "/tokens/{serial}/resynchronize": (
        {"first_tokencode": "123456", "second_tokencode": "654321"},
    ),
    "/tokens/{serial}/set-pin": ({"pin": "3682", "pin_again": "3682"},),
    "/users/{username:path}": _actions(
        "unlock", "enable", "disable", "delete", "change"
    ),
}
"""
The fields of each form, if it has any.

They are well-formed: a caller without the role is refused before the values are judged.
`alice` stands for the user and the token that the caller's requests are about.
"""
OWN_USER = "You cannot do this for yourself."
PASSWORD_PAGE = "/account/password"
UNCERTAIN = frozenset({"Form refused", "Confirm that it is you", "Not possible now"})
"""Headings of pages that do not tell what the caller may do."""
NO_PAGE = ("There is no such page.", "This page does not accept this method.")
OF_EVERYONE = ("/account", "/sign-in")
"""Every role has these pages; so what is typed there decides, and not who types."""
LETTER = "/notices/letter"
"""What a mail would say, in a frame."""
LAST = ("/account/sign-out", "/account/sign-out-everywhere")
"""Sent last, because they end the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A page to open, or a form to send."""

    name: str
    """Of its row."""
    method: str
    path: str
    fields: Mapping[str, str]


def steps(router: Starlette) -> Sequence[Step]:
    """Return every page and form, as the console's router has them."""
    found = [
        step
        for route in router.routes
        if isinstance(route, Route)
        for path in _paths(route.path)
        for step in _of_path(path, route.methods or ())
    ]
    return sorted(found, key=lambda each: each.path in LAST)


def _paths(path: str) -> Sequence[str]:
    """Return the path, or one for each action on a token."""
    if path != "/tokens/{serial}/{action}":
        return (path,)
    return tuple(path.replace("{action}", each.name) for each in ACTIONS)


def _of_path(path: str, methods: Iterable[str]) -> Iterator[Step]:
    if "GET" in methods:
        yield Step(name=f"GET {path}", method="GET", path=path, fields={})
    if "POST" in methods:
        for fields in FORMS.get(path, NO_FIELDS):
            name = f"POST {path} {fields.get('action', '')}".rstrip()
            yield Step(name=name, method="POST", path=path, fields=fields)


async def buttons(node: WholeNode, caller: Caller) -> frozenset[str]:
    """Return the names of rows for the buttons on all pages of an administrator."""
    found = set[str]()
    async with node.browser() as client:
        await node.sign_in(client, caller.administrator, caller.password)
        for step in steps(node.console):
            if step.method == "GET" and step.path != LETTER:
                page = Page(await client.get(_address(step, caller)))
                found |= {
                    _row(node.console, form, button)
                    for form in page.every_form
                    if form.method.lower() == "post"
                    for button in form.buttons
                }
    return frozenset(found)


def _row(router: Starlette, form: Form, button: Button) -> str:
    path = urlsplit(form.action).path
    route = next(
        each
        for each in router.routes
        if isinstance(each, Route) and each.path_regex.match(path)
    )
    # The action on a token is in the path, with a page of its own.
    row = route.path.replace("{action}", path.rpartition("/")[2])
    action = button.value if button.name == "action" else ""
    hidden = [value for name, value in form.fields if name == "action"]
    return f"POST {row} {action or ''.join(hidden)}".rstrip()


async def outcomes(node: WholeNode, caller: Caller) -> Mapping[str, str]:
    """Return what happened to each page and form of a caller."""
    happened = {}
    async with node.browser(caller.certificate) as client:
        client.cookies.update(caller.cookies)
        for step in steps(node.console):
            if caller.administrator and (not happened or step.path in LAST):
                client.cookies.clear()
                await node.sign_in(client, caller.administrator, caller.password)
            happened[step.name] = await _outcome(client, step, caller)
    return happened


async def _outcome(client: httpx.AsyncClient, step: Step, caller: Caller) -> str:
    path, name = _address(step, caller), caller.about
    if step.method == "GET":
        return _word(step, caller, await client.get(path))
    cookies = client.cookies
    secret = cookies.get(SESSION_COOKIE, "")
    if path == "/sign-in" or not secret:
        secret = cookies.get(VISIT_COOKIE, "")
    fields = {
        key: name if value == ALICE else value for key, value in step.fields.items()
    }
    return _word(
        step,
        caller,
        await client.post(
            path,
            data={**fields, "form_token": form_token(secret)},
        ),
    )


def _address(step: Step, caller: Caller) -> str:
    return re.sub(r"\{[a-z_:]+\}", caller.about, step.path)


def _word(step: Step, caller: Caller, answer: httpx.Response) -> str:
    to = urlsplit(answer.headers.get("location", ""))
    title = re.search(r"<h1[^>]*>([^<]*)", answer.text)
    heading = title[1].strip() if title else ""
    assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
    assert answer.text not in NO_PAGE, f"{step.name}: {answer.text}"
    if to.path == "/sign-in" and to.query.startswith("next="):
        return SIGN_IN
    if to.path == PASSWORD_PAGE and step.path != PASSWORD_PAGE:
        return PASSWORD
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return SIGN_IN
    if OWN_USER in answer.text:
        return OWN
    if heading in UNCERTAIN:
        return UNCLEAR
    if answer.status_code == HTTPStatus.FORBIDDEN:
        return ROLE
    if (
        answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        and not caller.name.startswith("super")
        and not step.path.startswith(OF_EVERYONE)
    ):
        return UNCLEAR
    return MAY
