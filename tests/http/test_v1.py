# SPDX-License-Identifier: Apache-2.0
"""`/v1/authenticate` and `/v1/continue`, over TLS."""

import asyncio
import base64
import contextlib
import datetime as dt
import logging
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sparecode_node.http import app, server
from sparecode_node.http.bodies import BODY_BYTES_MAX, DISCARDED_BYTES_MAX
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.services.access.security_log import (
    CALL_REFUSED,
    HANDSHAKE_FAILED,
    MALFORMED,
)
from sparecode_node.services.authentication import decisions
from sparecode_node.services.load.open_calls import CallLimits
from sparecode_node.web import server as web
from tests.http.door import AGENT, HOST, Door, client_of, open_door, trusting
from tests.services.one_node import PIN

pytestmark = pytest.mark.asyncio

WRONG = PIN + "000000"


async def issued(door: Door) -> str:
    """Return a passcode with an emergency code."""
    return PIN + (await door.node.issue()).codes[0].code


def assert_refused(
    response: httpx.Response, status: int, reason: str
) -> dict[str, object]:
    """Return the problem, which must have this status and reason."""
    body = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["reason"]) == (status, reason), body
    return dict(body)


async def test_a_right_passcode_is_accepted_once(door: Door) -> None:
    passcode = await issued(door)
    first = await door.authenticate(passcode)
    again = await door.authenticate(passcode)
    assert (first.status_code, first.json()["decision"]) == (200, "ACCEPTED")
    assert (again.status_code, again.json()["decision"]) == (200, "REFUSED")
    assert uuid.UUID(first.json()["authentication_id"])
    assert "challenge" not in first.json()


async def test_an_empty_key_of_a_retry_is_refused(door: Door) -> None:
    """(Q1) Its program believes that a retry is safe, and it would not be."""
    response = await door.client.post(
        "/v1/authenticate",
        json={"username": "alice", "passcode": WRONG},
        headers={"idempotency-key": ""},
    )
    body = assert_refused(response, 400, "FIELD")
    assert body["field"] == "request_id"


async def test_a_retry_with_the_same_key_gets_the_same_answer(door: Door) -> None:
    """(Q2) The key may be in the header, in quotes or bare, or in the body."""
    passcode, key = await issued(door), str(uuid.uuid4())
    body = {"username": "alice", "passcode": passcode}
    answers = [
        (
            await door.client.post(
                "/v1/authenticate", json=body, headers={"idempotency-key": text}
            )
        ).json()
        for text in (key, f'"{key}"', key.upper())
    ]
    answers.append((await door.authenticate(passcode, request_id=key)).json())
    assert {each["decision"] for each in answers} == {"ACCEPTED"}
    assert len({each["authentication_id"] for each in answers}) == 1
    other = await door.client.post(
        "/v1/authenticate",
        json={**body, "passcode": WRONG},
        headers={"idempotency-key": key},
    )
    assert_refused(other, 400, "REQUEST_ID_REUSED")


async def test_two_different_keys_are_refused(door: Door) -> None:
    response = await door.client.post(
        "/v1/authenticate",
        json={"username": "alice", "passcode": WRONG, "request_id": str(uuid.uuid4())},
        headers={"idempotency-key": str(uuid.uuid4())},
    )
    assert assert_refused(response, 400, "FIELD")["field"] == "request_id"


async def test_the_next_tokencode_and_a_new_pin_finish_a_sign_in(door: Door) -> None:
    """(K3) The challenge is opaque text."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    first = (await door.authenticate(door.node.tokencode())).json()
    assert first["decision"] == "NEW_PIN_REQUIRED"
    door.node.clock.pass_s(30)
    weak = await door.post(
        "/v1/continue",
        challenge=first["challenge"],
        tokencode=door.node.tokencode(),
        new_pin="1",
    )
    assert assert_refused(weak, 400, "FIELD")["field"] == "new_pin"
    second = await door.post(
        "/v1/continue",
        challenge=first["challenge"],
        tokencode=door.node.tokencode(),
        new_pin="82649173",
    )
    assert second.json()["decision"] == "ACCEPTED"
    spent = await door.post(
        "/v1/continue",
        challenge=first["challenge"],
        tokencode=door.node.tokencode(),
        new_pin="82649173",
    )
    assert spent.json()["decision"] == "REFUSED"


async def test_the_audit_log_names_the_door(door: Door) -> None:
    """(U1) Both steps."""
    await door.authenticate(WRONG, resource="portal", client_address="192.0.2.7")
    challenge = base64.urlsafe_b64encode(b"no challenge").decode().rstrip("=")
    await door.post("/v1/continue", challenge=challenge, tokencode="000000")
    rows = door.node.primary_db.execute(
        "SELECT detail FROM audit_events "
        "WHERE action IN ('Authenticate', 'ContinueAuthentication') ORDER BY sequence"
    ).fetchall()
    first, second = (str(row[0]) for row in rows)
    assert f"HTTP from {HOST}, portal" in first
    assert "192.0.2.7" in first
    assert f"HTTP from {HOST}" in second


async def test_answers_have_no_cookie_and_no_permission_for_pages(door: Door) -> None:
    """Browsers must not call: there is neither a cookie nor CORS."""
    preflight = await door.client.options(
        "/v1/authenticate",
        headers={
            "origin": "https://evil.test",
            "access-control-request-method": "POST",
        },
    )
    answer = await door.authenticate(WRONG)
    for each in (preflight, answer):
        assert "set-cookie" not in each.headers
        assert not [n for n in each.headers if n.startswith("access-control")]
        assert each.headers["cache-control"] == "no-store"
    assert preflight.status_code == 405


# --- Callers


async def test_a_caller_without_a_certificate_is_turned_away(door: Door) -> None:
    """(A4) It is counted and recorded, and its body is not read."""
    async with door.stranger() as stranger:
        response = await door.post("/v1/authenticate", client=stranger)
    assert_refused(response, 401, "CREDENTIALS")
    assert response.headers["www-authenticate"] == "Bearer"
    assert door.ended[-1].code == "UNAUTHENTICATED"
    assert door.node.refusals.log.counts["call refused"] == 1


async def test_a_certificate_of_another_authority_ends_the_handshake(
    door: Door,
) -> None:
    """A member's certificate is none of an agent."""
    context = trusting(door.folder)
    context.load_cert_chain(door.folder / "n1.pem", door.folder / "n1.key")
    async with client_of(door.server.port, context) as client:
        with pytest.raises(httpx.TransportError):
            await door.post("/v1/authenticate", client=client)
    assert door.ended == []


async def test_a_denied_certificate_is_turned_away(door: Door) -> None:
    """(A4) Also on a connection that exists."""
    assert (await door.authenticate(WRONG)).status_code == 200
    pem = (door.folder / f"{AGENT}.pem").read_bytes()
    fingerprint = x509.load_pem_x509_certificate(pem).fingerprint(SHA256()).hex()
    await door.node.agents.deny(
        door.node.admin("AgentService/DenyCertificate"), fingerprint=fingerprint
    )
    assert_refused(await door.authenticate(WRONG), 403, "CERTIFICATE_REFUSED")


async def test_a_certificate_that_ends_on_an_open_connection_stops_working(
    door: Door,
) -> None:
    assert (await door.authenticate(WRONG)).status_code == 200
    pem = (door.folder / f"{AGENT}.pem").read_bytes()
    ends_at = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    now = dt.datetime.fromtimestamp(door.node.clock.now_ms() / 1000, dt.UTC)
    door.node.clock.pass_s((ends_at - now).total_seconds())
    assert_refused(await door.authenticate(WRONG), 401, "CERTIFICATE")


async def test_an_unregistered_agent_is_refused_as_any_other(door: Door) -> None:
    """(A6) The answer does not tell which agents exist."""
    async with client_of(door.server.port, trusting(door.folder, "mail")) as mail:
        answer = await door.post(
            "/v1/authenticate",
            client=mail,
            username="alice",
            passcode=await issued(door),
        )
    assert answer.json()["decision"] == "REFUSED"
    assert door.node.reasons() == ["agent_unknown"]


async def test_unknown_users_get_the_same_answer(door: Door) -> None:
    """(A6) Nothing tells which users exist."""
    known = (await door.authenticate(WRONG)).json()
    unknown = (await door.authenticate(WRONG, "nobody-here")).json()
    assert known.keys() == unknown.keys()
    assert known["decision"] == unknown["decision"] == "REFUSED"


# --- Malformed requests


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "alice"}, "passcode"),
        ({"passcode": WRONG}, "username"),
        ({"username": 7, "passcode": WRONG}, "username"),
        ({"username": "alice", "passcode": None}, "passcode"),
        ({"username": "alice", "passcode": WRONG, "request_id": "7"}, "request_id"),
        ({"username": "a" * 300, "passcode": WRONG}, "username"),
    ],
)
async def test_a_wrong_field_is_named(
    door: Door, body: dict[str, object], field: str
) -> None:
    response = await door.client.post("/v1/authenticate", json=body)
    assert assert_refused(response, 400, "FIELD")["field"] == field
    assert WRONG not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"username": "alice", "passcode": "' + WRONG.encode() + b'", "pass": 1}',
        b'{"username": "alice", "passcode": ' + b"9" * 5000 + b"}",
    ],
)
async def test_what_is_no_request_is_refused(door: Door, body: bytes) -> None:
    response = await door.client.post(
        "/v1/authenticate", content=body, headers={"content-type": "application/json"}
    )
    assert_refused(response, 400, "MALFORMED")
    assert WRONG not in response.text


async def test_half_of_a_character_is_refused(door: Door) -> None:
    """JSON can say it, and UTF-8 cannot."""
    response = await door.client.post(
        "/v1/authenticate",
        content=b'{"username": "\\ud800", "passcode": "1"}',
        headers={"content-type": "application/json"},
    )
    assert assert_refused(response, 400, "FIELD")["field"] == "username"


async def test_forms_other_methods_and_other_paths_are_refused(door: Door) -> None:
    """A form could be sent by any page that a browser shows."""
    form = await door.client.post("/v1/authenticate", data={"username": "alice"})
    assert_refused(form, 415, "MEDIA_TYPE")
    in_url = await door.client.get("/v1/authenticate", params={"passcode": WRONG})
    assert_refused(in_url, 405, "METHOD")
    assert_refused(await door.client.get("/nothing"), 404, "PATH")


async def test_a_broken_challenge_is_a_wrong_field(door: Door) -> None:
    for challenge in ("!", "é", "A", ""):
        response = await door.post(
            "/v1/continue", challenge=challenge, tokencode="000000"
        )
        assert assert_refused(response, 400, "FIELD")["field"] == "challenge"


async def test_a_malformed_tokencode_is_a_wrong_field(door: Door) -> None:
    """(K3) It does not answer the challenge."""
    response = await door.post("/v1/continue", challenge="AQAB", tokencode="12")
    assert assert_refused(response, 400, "FIELD")["field"] == "tokencode"


async def test_a_long_body_is_refused(door: Door) -> None:
    """A body without a length, too."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * BODY_BYTES_MAX

    for content in (b"x" * (BODY_BYTES_MAX + 1), parts()):
        response = await door.client.post(
            "/v1/authenticate",
            content=content,
            headers={"content-type": "application/json"},
        )
        assert_refused(response, 413, "TOO_LARGE")


async def test_a_body_without_an_end_is_cut_off(door: Door) -> None:
    """Reading goes on for a while, because a client that sends hears no answer."""
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(BODY_BYTES_MAX)
            yield b"x" * BODY_BYTES_MAX

    try:
        response = await door.client.post(
            "/v1/authenticate",
            content=endless(),
            headers={"content-type": "application/json"},
        )
        assert_refused(response, 413, "TOO_LARGE")
    except httpx.TransportError:  # The node has closed before the client read.
        pass
    assert sum(sent) < 16 * DISCARDED_BYTES_MAX
    assert door.ended[-1].code == "INVALID_ARGUMENT"


# --- Failures of the node


async def test_a_node_without_a_quorum_says_when_to_try_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A7) Nothing was decided."""
    monkeypatch.setattr(door.node.replicator, "down", NoQuorumError("none"))
    response = await door.authenticate(WRONG)
    assert_refused(response, 503, "NO_QUORUM")
    assert response.headers["retry-after"] == "1"


async def test_an_unknown_outcome_is_told(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q) A retry with the same key tells what was decided."""
    monkeypatch.setattr(door.node.replicator, "down", OutcomeUnknownError("lost"))
    assert_refused(await door.authenticate(WRONG), 503, "OUTCOME_UNKNOWN")


async def test_a_call_that_a_stop_does_not_wait_for_has_an_unknown_outcome(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q) Without a quorum a call may wait for longer than the node takes to stop."""
    waits = asyncio.Event()

    async def propose(*_: object, **__: object) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(door.node.replicator, "propose", propose)
    call = asyncio.create_task(door.authenticate(WRONG))
    await waits.wait()
    await door.server.stop()
    assert_refused(await call, 503, "OUTCOME_UNKNOWN")


@pytest.fixture(params=[CallLimits(calls=0), CallLimits(calls=9, of_agent=0)])
def no_calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "CALLS", request.param)


@pytest.mark.usefixtures("no_calls")
async def test_calls_beyond_the_limit_are_shed(door: Door) -> None:
    """(Q3) Beyond that of the door, or that of the agent."""
    response = await door.authenticate(WRONG)
    assert_refused(response, 429, "OVERLOADED")
    assert int(response.headers["retry-after"]) >= 1


async def test_an_older_cluster_has_no_such_door(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its audit log could not name the door of the second step."""
    monkeypatch.setattr(decisions, "HTTP_DOOR", 99)
    assert_refused(await door.authenticate(WRONG), 503, "OLDER_MEMBER")


async def test_a_bug_tells_no_details(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.node.replicator, "down", RuntimeError("a secret"))
    response = await door.authenticate(WRONG)
    assert assert_refused(response, 500, "INTERNAL")["detail"] == "internal error"


async def test_calls_are_counted_by_decision(door: Door) -> None:
    await door.authenticate(WRONG)
    (call,) = door.ended
    assert (call.listener, call.method, call.code, call.decision) == (
        "http",
        "AuthenticationService/Authenticate",
        "OK",
        "refused",
    )
    assert call.seconds >= 0


# --- Secrets


async def test_no_passcode_is_logged(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG and below, uvicorn's loggers included."""
    caplog.set_level(1)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(1)
    passcode = await issued(door)
    await door.authenticate(passcode)
    await door.authenticate(passcode, request_id=passcode)
    await door.client.get(f"/v1/authenticate?passcode={passcode}")
    await door.client.post("/v1/authenticate", content=f'{{"passcode": "{passcode}')
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    ours = [r for r in caplog.records if not r.name.startswith(("http", "asyncio"))]
    assert ours
    text = "\n".join(f"{each.getMessage()} {vars(each)}" for each in ours)
    assert passcode not in text


# --- The listener


async def test_a_slow_body_is_cut_off(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise slow agents would fill all places."""
    monkeypatch.setattr(server, "REQUEST_S", 2)
    async with open_door(door.node, door.folder / "short") as short:
        reader, writer = await asyncio.open_connection(
            HOST, short.server.port, ssl=trusting(short.folder, AGENT)
        )
        writer.write(
            b"POST /v1/authenticate HTTP/1.1\r\nhost: x\r\ncontent-type: "
            b"application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        answer = b""
        async with asyncio.timeout(60):
            with contextlib.suppress(OSError):
                answer = await reader.read()
        writer.close()
        assert answer == b""
        assert [each.code for each in short.ended] == ["CANCELLED"]


async def test_a_flood_of_headers_is_refused(door: Door) -> None:
    """At once, or in pieces that would fill the memory. Both are counted."""
    counts = door.node.refusals.log.counts
    response = await door.client.post(
        "/v1/authenticate", headers={f"x-{n}": "y" * 200 for n in range(200)}
    )
    assert_refused(response, 431, "HEADERS")
    assert counts[MALFORMED] == 1
    reader, writer = await asyncio.open_connection(
        HOST, door.server.port, ssl=trusting(door.folder, AGENT)
    )
    writer.write(b"POST /v1/authenticate HTTP/1.1\r\nhost: x\r\nx: ")
    answer = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):
            for _ in range(64):
                writer.write(b"y" * 1024)
                await writer.drain()
            answer = await reader.read()
    writer.close()
    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert counts[MALFORMED] == 2


async def test_requests_that_reach_no_call_are_counted(door: Door) -> None:
    """Of wrong paths and methods, of no HTTP, and connections without TLS."""
    log = door.node.refusals.log
    assert_refused(await door.client.get("/nothing"), 404, "PATH")
    assert_refused(await door.client.get("/v1/authenticate"), 405, "METHOD")
    for path, status in (("check", 405), ("triggerchallenge", 501)):
        answer = await door.client.get(f"/validate/{path}")
        assert answer.status_code == status
    assert log.counts[CALL_REFUSED] == 4
    for tls, event in (
        (trusting(door.folder, AGENT), MALFORMED),
        (None, HANDSHAKE_FAILED),
    ):
        reader, writer = await asyncio.open_connection(HOST, door.server.port, ssl=tls)
        writer.write(b"no request\r\n\r\n")
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()
        assert log.counts[event] == 1, event
    assert not door.ended


async def test_a_renewed_authority_decides_over_new_connections(door: Door) -> None:
    """Agents' certificates of an authority that was replaced stop working."""
    assert (await door.authenticate(WRONG)).status_code == 200
    members = (door.folder / "members-ca.pem").read_bytes()
    (door.folder / "agents-ca.pem").write_bytes(members)
    door.server.renew()
    async with client_of(door.server.port, trusting(door.folder, AGENT)) as client:
        with pytest.raises(httpx.TransportError):
            await door.post("/v1/authenticate", client=client)


async def test_a_connection_does_not_live_forever(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next handshake checks the certificate again."""
    monkeypatch.setattr(web, "AGE_MAX_S", 0.2)
    reader, writer = await asyncio.open_connection(
        HOST, door.server.port, ssl=trusting(door.folder, AGENT)
    )
    async with asyncio.timeout(app.REQUEST_S / 2):
        assert await reader.read() == b""
    writer.close()


async def test_every_refusal_costs_the_same(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A6, T4) Users who exist, who do not, and who are locked: hashes and entries."""
    derive, hashes = door.node.kdf.derive, []

    async def counted(inputs: list[object], **options: object) -> object:
        hashes.append(len(inputs))
        return await derive(inputs, **options)

    monkeypatch.setattr(door.node.kdf, "derive", counted)
    costs = []
    for username in ("alice", "no-such-user", "alice", "alice", "alice"):
        entries = len(door.node.replicator.entries)
        hashes.clear()
        answer = await door.authenticate(WRONG, username)
        assert answer.json()["decision"] == "REFUSED"
        costs.append((tuple(hashes), len(door.node.replicator.entries) - entries))
    assert set(costs) == {costs[0]}
    assert sum(costs[0][0]) >= 2
