# SPDX-License-Identifier: Apache-2.0
"""Alice, her token and her emergency codes, as the tests of the domain know them."""

from dataclasses import replace
from typing import Any

from sparecode_node.domain.agents import Agent, Protects
from sparecode_node.domain.authentication import Attempt
from sparecode_node.domain.emergency_access import (
    EmergencyCode,
    EmergencyCodeSet,
    Use,
)
from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    KeyId,
    Moment,
    NameKey,
    NodeId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.lockout import Factor, Lockout
from sparecode_node.domain.passcodes import (
    CodeCandidate,
    PinCandidate,
    Reading,
    TokencodeMatch,
)
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User

NOW_MS = 1_800_000_000_000
STEP = Moment(60_000_000)
"""The TOTP step of `NOW_MS`."""
POLICY = Policy()
SERIAL = TokenSerial("000123")
PIN = b"verifier of the right PIN"
WRONG_PIN = b"verifier of a wrong PIN"

TOTP = TokencodeParameters(
    algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
)
HOTP = replace(TOTP, algorithm=Algorithm.HOTP, period_s=0)
SECURID = replace(TOTP, algorithm=Algorithm.SECURID, period_s=60)

ALICE = User(
    user_id=UserId("u1"),
    username="Alice",
    name_key=NameKey("alice"),
    name_tag=b"tag of alice",
    display_name="Alice Arden",
    email="alice@example.org",
    enabled=True,
    auth_version=3,
    pin_salt=b"pin salt",
    code_salt=b"code salt",
)
GATEWAY = Agent(
    name="vpn",
    identity=AgentIdentity("vpn.example.org"),
    protects=Protects.AUTHENTICATION_MANAGER,
)
CLOUD = replace(GATEWAY, protects=Protects.CLOUD)
USE = Use(at_ms=NOW_MS, agent=GATEWAY.identity, node_id=NodeId("n2"), index=42)


def make_token(**changes: Any) -> Token:
    """Return Alice's token: PIN and code, a PIN set, no end."""
    token = Token(
        serial=SERIAL,
        parameters=TOTP,
        sealed_seed=b"sealed",
        key_id=KeyId(1),
        pin_rule=PinRule.PREPENDED,
        expires_at_ms=None,
        user_id=ALICE.user_id,
        pin_verifier=PIN,
        pin_key_id=KeyId(1),
    )
    return replace(token, **changes)


def app_token(**changes: Any) -> Token:
    """Return a token of an app: the code alone."""
    bare = {"pin_rule": PinRule.NONE, "pin_verifier": b"", **changes}
    return make_token(**bare)


def code_verifier(ordinal: int, set_id: str = "s1") -> bytes:
    """Return the verifier of code *ordinal* of a set."""
    return f"verifier of {set_id}/{ordinal}".encode()


def make_set(codes: int = 3, **changes: Any) -> EmergencyCodeSet:
    """Return a set of live codes."""
    set_id = SetId(changes.pop("set_id", "s1"))
    made = EmergencyCodeSet(
        set_id=set_id,
        serial=SERIAL,
        key_id=KeyId(1),
        code_length=8,
        issuer=AdministratorName("ada"),
        node_id=NodeId("n1"),
        issued_at_ms=NOW_MS - 1_000,
        issued_index=40,
        ends_at_ms=None,
        codes=tuple(
            EmergencyCode(ordinal=n, verifier=code_verifier(n, set_id))
            for n in range(1, codes + 1)
        ),
    )
    return replace(made, **changes)


def emergency_reading(
    *,
    ordinal: int = 1,
    set_id: str = "s1",
    pin: bytes | None = PIN,
    serial: TokenSerial = SERIAL,
) -> Reading:
    """Return the reading of PIN and code *ordinal*; pin None: the code alone."""
    return Reading(
        length=8,
        emergency=True,
        bare=pin is None,
        pins=() if pin is None else (PinCandidate(serial=serial, verifier=pin),),
        codes=(
            CodeCandidate(
                set_id=SetId(set_id), verifier=code_verifier(ordinal, set_id)
            ),
        ),
        tokencodes=(),
    )


def tokencode_reading(
    *moments: int,
    pin: bytes | None = PIN,
    length: int = 6,
    serial: TokenSerial = SERIAL,
) -> Reading:
    """Return the reading of PIN and the tokencode of *moments*; none: a wrong one."""
    return Reading(
        length=length,
        emergency=False,
        bare=pin is None,
        pins=() if pin is None else (PinCandidate(serial=serial, verifier=pin),),
        codes=(),
        tokencodes=tuple(
            TokencodeMatch(serial=serial, moment=Moment(moment)) for moment in moments
        ),
    )


def make_attempt(*readings: Reading, **changes: Any) -> Attempt:
    """Return an attempt of Alice's; its factor is that of the readings."""
    token = changes.pop("token", None) or make_token()
    sets = changes.pop("code_sets", (make_set(),))
    emergency = any(reading.emergency for reading in readings)
    attempt = Attempt(
        factors=(Factor.EMERGENCY if emergency else Factor.TOKEN,),
        readings=readings,
        agent=GATEWAY,
        user=ALICE,
        tokens=(token,),
        sets={token.serial: sets},
        lockouts={},
        policy=POLICY,
        use=USE,
    )
    return replace(attempt, **changes)


def failures(count: int, *, every_ms: int = 0, policy: Policy = POLICY) -> Lockout:
    """Return the lockout after *count* failures, the last of them at `NOW_MS`."""
    lockout = Lockout()
    for number in range(count):
        at_ms = NOW_MS - (count - 1 - number) * every_ms
        lockout = lockout.failed(at_ms, policy)
    return lockout
