# SPDX-License-Identifier: Apache-2.0
"""The people of the simulated cluster, and the commands that nodes propose for them."""

import zlib
from dataclasses import dataclass

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    NO_KEY,
    AdministratorName,
    AgentIdentity,
    KeyId,
    NameKey,
    NodeId,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.passcodes import CodeCandidate, Reading, TokencodeMatch
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName, Moment
from sparecode_node.statemachine.commands import Command, RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.agents import RegisterAgent
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.cluster import InitializeCluster
from sparecode_node.statemachine.commands.emergency_access import (
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.commands.sessions import OpenSession
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    EnrollToken,
    SeedFingerprint,
)
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.feature_level import NEWEST, UNIQUE_SEEDS

KEY = KeyId(1)
ROOT = AdministratorName("root")
AGENT = AgentIdentity("vpn")
OTHER_AGENT = AgentIdentity("gate")

USERS = ("ada", "ben", "dan", "eve", "fay", "gus")
SPENDERS = ("ada", "ben")
"""They use their codes, each again and again, from everywhere."""
GUESSED = "dan"
"""An attacker guesses his codes, and never gets one right."""
REISSUED = "eve"
"""She gets new codes all the time; the old ones are void."""
HURRIED = "fay"
"""Her codes end within seconds."""
TOKEN_USER = "gus"
"""He has his token, and uses its tokencodes."""
NEWCOMER = "hal"
"""He has a token without a PIN, and is asked to choose one (K2)."""

CODES = 40
FEW_CODES = 6


@dataclass(frozen=True)
class Keys:
    """The keys under which a node computes candidates, as far as it knows the state."""

    active: KeyId = KEY
    of_set: KeyId = KEY
    """The key of the set that is tried."""
    name_tag: bytes = b""
    """The user's; empty: under the first key."""


FIRST_KEY = Keys()


def marked(content: bytes, key_id: KeyId) -> bytes:
    """Return what is sealed with a key: the content and the key, or the content alone."""
    return content if key_id == KEY else content + b"@key%d" % key_id


def open_session(session: str, key_id: KeyId = KEY) -> OpenSession:
    """Sign in, as a session of that name; *key_id* is of the password."""
    return OpenSession(
        administrator=ROOT,
        candidate=marked(b"right", key_id),
        administrator_version=1,
        key_id=key_id,
        session_id=SessionId(session),
    )


def enrollment(
    serial: str, pin_rule: PinRule = PinRule.NONE, *, level: int = NEWEST
) -> EnrollToken:
    """Enroll a token, as a node of a cluster of that level does."""
    fingerprint = SeedFingerprint(key_id=KEY, value=serial.encode())
    return EnrollToken(
        serial=TokenSerial(serial),
        algorithm=Algorithm.TOTP,
        hash_name=HashName.SHA1,
        digits=6,
        period_s=30,
        counter=0,
        sealed_seed=serial.encode(),
        key_id=KEY,
        pin_rule=pin_rule,
        expires_at_ms=None,
        fingerprints=(fingerprint,) if level >= UNIQUE_SEEDS else (),
    )


def beginning(level: int = NEWEST) -> list[Command]:
    """Return what makes the cluster and everybody in it, after signing in."""
    made: list[Command] = [
        RegisterAgent(
            name=agent.upper(),
            name_key=NameKey(agent),
            identity=agent,
            protects=Protects.AUTHENTICATION_MANAGER,
        )
        for agent in (AGENT, OTHER_AGENT)
    ]
    for name in (*USERS, NEWCOMER):
        made += [
            CreateUser(
                user_id=UserId(name),
                username=name,
                name_key=NameKey(name),
                name_tag=name.encode(),
                display_name=name.capitalize(),
                email="",
                pin_salt=b"p",
                code_salt=b"c",
                key_id=KeyId(1),
            ),
            enrollment(
                name,
                PinRule.PREPENDED if name == NEWCOMER else PinRule.NONE,
                level=level,
            ),
            AssignToken(serial=TokenSerial(name), name_key=NameKey(name)),
        ]
    return made


FOUNDING = InitializeCluster(
    cluster_id="simulated",
    administrator=ROOT,
    password_salt=b"salt",
    password_verifier=b"right",
    key_id=KEY,
    feature_level=NEWEST,
)


@dataclass(frozen=True)
class IssuedSet:
    """A set that an administrator requested."""

    user: str
    number: int
    codes: int
    lifetime_ms: int | None = None

    @property
    def set_id(self) -> SetId:
        return SetId(f"{self.user}.{self.number}")

    def command(self, auth_version: int, key_id: KeyId = KEY) -> SaveEmergencyAccess:
        """Return the command, with what the node knows of the user."""
        return SaveEmergencyAccess(
            serial=TokenSerial(self.user),
            user_id=UserId(self.user),
            auth_version=auth_version,
            policy_version=1,
            key_id=key_id,
            set_id=self.set_id,
            code_length=8,
            codes=tuple(
                SealedCode(ordinal=n, verifier=verifier(self.set_id, n, key_id))
                for n in range(1, self.codes + 1)
            ),
            ends_at_ms=None,
            lifetime_ms=self.lifetime_ms,
            recovery=RecoveryPolicy.DENY,
            keep_unused_codes=False,
            weaken_recovery_policy=False,
            draft_id="",
            draft_ends_at_ms=0,
        )


def verifier(set_id: str, ordinal: int, key_id: KeyId = KEY) -> bytes:
    """Return what a right candidate for a code is compared with."""
    return marked(f"{set_id}/{ordinal}".encode(), key_id)


@dataclass(frozen=True)
class Try:
    """An attempt: a code of a set, or a tokencode."""

    user: str
    set_id: SetId | None = None
    ordinal: int = 0
    moment: int = 0

    @property
    def what(self) -> str:
        """Name what is spent if this is accepted."""
        return f"{self.set_id}/{self.ordinal}" if self.set_id else f"step {self.moment}"

    def command(self, auth_version: int, keys: Keys = FIRST_KEY) -> Authenticate:
        """Return the command, with what the node knows of the user."""
        if self.set_id:
            codes = (
                CodeCandidate(
                    set_id=self.set_id,
                    verifier=verifier(self.set_id, self.ordinal, keys.of_set),
                    key_id=NO_KEY if keys.of_set == keys.active else keys.of_set,
                ),
            )
            reading = Reading(
                length=8, emergency=True, bare=True, pins=(), codes=codes, tokencodes=()
            )
        else:
            match = TokencodeMatch(
                serial=TokenSerial(self.user), moment=Moment(self.moment)
            )
            reading = Reading(
                length=6,
                emergency=False,
                bare=True,
                pins=(),
                codes=(),
                tokencodes=(match,),
            )
        return Authenticate(
            authentication_id=f"{self.user} {self.what}",
            agent=AGENT,
            name_tag=keys.name_tag or self.user.encode(),
            user_id=UserId(self.user),
            auth_version=auth_version,
            policy_version=1,
            key_id=keys.active,
            lettered=bool(self.set_id),
            readings=(reading,),
            client_address="",
            resource="",
        )


@dataclass(frozen=True)
class Answer:
    """An answer to a challenge, of any agent."""

    challenge: Challenge
    moment: int | None
    """Of the tokencode; None: it is wrong."""
    agent: AgentIdentity = AGENT

    @property
    def user(self) -> str:
        return self.challenge.user_id

    @property
    def set_id(self) -> None:
        """No set: it is about a token."""

    @property
    def what(self) -> str:
        """Name the answer."""
        return f"{self.challenge.challenge_id}: {self.moment} by {self.agent}"

    def command(
        self, auth_version: int, keys: Keys = FIRST_KEY
    ) -> ContinueAuthentication:
        """Return the command, with what the node knows of the user."""
        return ContinueAuthentication(
            authentication_id=self.challenge.challenge_id,
            agent=self.agent,
            user_id=self.challenge.user_id,
            auth_version=auth_version,
            policy_version=1,
            key_id=keys.active,
            challenge=self.challenge,
            moments=() if self.moment is None else (Moment(self.moment),),
            pin_verifier=marked(b"pin", keys.active),
            certificate_fingerprint="",
            certificate_serial_number="",
        )


def call_of(
    command: Command, request: str, *, content: str, session: str = ""
) -> UnstampedCall:
    """Return a call as a node makes it; *content* is what the caller said (Q1)."""
    by_agent = isinstance(command, Authenticate | ContinueAuthentication)
    caller = f"agent:{command.agent}" if by_agent else "administrator:root"
    return UnstampedCall(
        command=command,
        request=RequestKey(
            caller=caller,
            method=type(command).__name__,
            request_id=RequestId(request),
            tag=zlib.crc32(content.encode()),
        ),
        node_id=NodeId("n1"),
        session_id=SessionId(session),
    )
