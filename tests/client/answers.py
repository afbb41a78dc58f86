# SPDX-License-Identifier: Apache-2.0
"""Answers of nodes, for these tests."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import (
    administrators_pb2,
    agents_pb2,
    audit_pb2,
    authentication_pb2,
    cluster_pb2,
    emergency_access_pb2,
    policy_pb2,
    sessions_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode_client.values.audit import Checkpoint

END = datetime(2026, 12, 1, 12, tzinfo=UTC)
CODES = [(1, "K7PM-4XQ2"), (2, "9HJT-WE3R")]


def at(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def lasting(delta: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(delta)
    return duration


COMMIT = types_pb2.Commit(node_id="n2", index=1042)
POSITION = types_pb2.ReadPosition(node_id="n2", applied_index=1042)

LOGIN = sessions_pb2.LoginResponse(
    session="bearer-of-root", end_time=at(END), role="SUPER_ADMIN"
)
WHO = sessions_pb2.WhoAmIResponse(
    administrator="root", end_time=at(END), role="SUPER_ADMIN"
)
_USER = users_pb2.User(
    username="alice",
    display_name="Alice Example",
    email="alice@example.com",
    enabled=True,
    token_serials=["000123456789"],
    emergency_failures=2,
)
USER = users_pb2.GetUserResponse(user=_USER, position=POSITION)
USERS = users_pb2.ListUsersResponse(
    users=[_USER, users_pb2.User(username="bob", locked=True, token_failures=5)],
    position=POSITION,
)
EXPLANATION = users_pb2.ExplainUserResponse(
    username="alice",
    blockers=[
        users_pb2.Blocker(
            reason="locked",
            words="Emergency codes are locked until 2026-12-01 12:00 UTC after 5 wrong "
            "passcodes.",
            next_step="Unlock the user.",
            factor="emergency",
            end_time=at(END),
            failures=5,
        )
    ],
    attempts=[
        users_pb2.Attempt(
            time=at(END),
            agent="vpn",
            node_id="n2",
            client_address="192.0.2.1",
            resource="mail",
            outcome="refused",
            reason="wrong_passcode",
            words="The passcode matched no token and no emergency code of this user.",
        )
    ],
    position=POSITION,
)
_TOKEN = tokens_pb2.Token(
    serial="000123456789",
    algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
    hash=types_pb2.TOKEN_HASH_SHA1,
    digits=6,
    period_seconds=30,
    pin_rule=types_pb2.PIN_RULE_PREPENDED,
    pin_set=True,
    username="alice",
    enabled=True,
    expire_time=at(datetime(2027, 6, 1, tzinfo=UTC)),
    lost=True,
    live_codes=2,
)
TOKEN = tokens_pb2.GetTokenResponse(token=_TOKEN, position=POSITION)
TOKENS = tokens_pb2.ListTokensResponse(
    tokens=[
        _TOKEN,
        tokens_pb2.Token(
            serial="987654321",
            algorithm=types_pb2.TOKEN_ALGORITHM_HOTP,
            hash=types_pb2.TOKEN_HASH_SHA256,
            digits=8,
            pin_rule=types_pb2.PIN_RULE_NONE,
        ),
    ],
    position=POSITION,
)
IMPORTED = [
    tokens_pb2.ImportTokenFileResponse(rows=2, token=token)
    for token in (
        tokens_pb2.ImportedToken(row=1, serial="987654321", imported=True),
        tokens_pb2.ImportedToken(
            row=2,
            serial="987654322",
            problem="a token with this serial exists",
            reason="TOKEN_EXISTS",
        ),
    )
]
"""A node's answers to a file of two tokens, row by row."""
GENERATED = emergency_access_pb2.GenerateTokencodesResponse(
    codes=[
        emergency_access_pb2.Tokencode(ordinal=ordinal, code=code)
        for ordinal, code in CODES
    ],
    draft=b"sealed",
    draft_end_time=at(END),
)
SAVED = emergency_access_pb2.SaveEmergencyAccessResponse(
    saved=emergency_access_pb2.SavedTokencodes(
        set_id="set-1",
        codes=2,
        live_codes=2,
        voided_codes=3,
        end_time=at(END),
        commit_time=at(END - timedelta(days=7)),
        commit=COMMIT,
        warnings=["the token has no PIN"],
    )
)
FIXED = emergency_access_pb2.IssueFixedTokencodeResponse(
    saved=SAVED.saved, code="K7PM-4XQ2"
)
WITHHELD = emergency_access_pb2.IssueFixedTokencodeResponse(
    saved=SAVED.saved, code_withheld=True
)
_ACCESS = emergency_access_pb2.EmergencyAccess(
    serial="000123456789",
    username="alice",
    enabled=True,
    lost=True,
    recovery_policy=types_pb2.RECOVERY_POLICY_DENY,
    live_codes=1,
    end_time=at(END),
)
ACCESSES = emergency_access_pb2.ListEmergencyAccessResponse(
    emergency_access=[_ACCESS], position=POSITION
)
ACCESS = emergency_access_pb2.GetEmergencyAccessResponse(
    emergency_access=_ACCESS, position=POSITION
)
ACCESS.emergency_access.sets.append(
    emergency_access_pb2.TokencodeSet(
        set_id="set-1",
        issuer="root",
        node_id="n2",
        index=1042,
        issue_time=at(END - timedelta(days=7)),
        end_time=at(END),
        codes=[
            emergency_access_pb2.TokencodeRecord(
                ordinal=1,
                state=emergency_access_pb2.TOKENCODE_STATE_USED,
                use_time=at(END - timedelta(days=6)),
                agent="vpn",
                node_id="n3",
                index=1050,
            ),
            emergency_access_pb2.TokencodeRecord(
                ordinal=2, state=emergency_access_pb2.TOKENCODE_STATE_LIVE
            ),
        ],
    )
)
AGENTS = agents_pb2.ListAgentsResponse(
    agents=[
        agents_pb2.Agent(
            name="vpn",
            certificate_identity="spiffe://example.com/vpn",
            protects=types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
            restricted=True,
            allowed_user_count=2,
            enabled=True,
        )
    ],
    position=POSITION,
)
STATUS = cluster_pb2.GetStatusResponse(
    node_id="n2",
    primary="n1",
    quorum=True,
    cluster_id="5f0c",
    members=[
        cluster_pb2.Member(
            node_id=node,
            reachable=node != "n3",
            role=role,
            term=3,
            commit_index=1042,
            applied_index=1042,
            digest="ab" * 32,
            version="0.1.0",
            clock_offset=lasting(timedelta(milliseconds=-12)),
            audit_sequence=57,
            audit_head="cd" * 32,
        )
        for node, role in [
            ("n1", cluster_pb2.MEMBER_ROLE_PRIMARY),
            ("n2", cluster_pb2.MEMBER_ROLE_REPLICA),
            ("n3", cluster_pb2.MEMBER_ROLE_UNSPECIFIED),
        ]
    ],
)
AUDIT = audit_pb2.ListAuditEventsResponse(
    events=[
        audit_pb2.AuditEvent(
            sequence=1043,
            event_time=at(END),
            actor="agent:spiffe://example.com/vpn",
            node_id="n3",
            action="Authenticate",
            target="alice",
            outcome="refused",
            reason="wrong_pin",
            detail="token 000123456789, factor emergency, client 192.0.2.1, "
            "resource the mail of everybody in the office",
            previous_hash=b"p" * 32,
            hash=b"h" * 32,
            authentication_id="a-6",
        ),
        audit_pb2.AuditEvent(
            sequence=1042,
            event_time=at(END - timedelta(seconds=90)),
            actor="administrator:root",
            node_id="n2",
            action="UnlockUser",
            target="alice",
            outcome="applied",
        ),
    ],
    position=POSITION,
)
POLICY = policy_pb2.GetPolicyResponse(
    policy=policy_pb2.Policy(
        version=4,
        code_length=8,
        further_code_lengths="",
        code_alphabet="23456789ABCDEFGHJKMNPQRSTUVWXYZ",
        codes_per_set_default=10,
        codes_per_set_max=50,
        lifetime_max=Duration(),
        draft_lifetime=lasting(timedelta(minutes=15)),
        set_low_threshold=2,
        pin_length_min=4,
        pin_length_max=8,
        pin_letters=False,
        totp_window_steps=1,
        hotp_look_ahead=10,
        tokens_per_user_max=3,
        lock_from_failures=5,
        lock=lasting(timedelta(minutes=15)),
        lock_max=lasting(timedelta(days=1, hours=12)),
        lock_until_unlocked=False,
        factor_off_at_failures=100,
        session_unused=lasting(timedelta(days=7)),
        session_lifetime=lasting(timedelta(hours=12)),
        session_idle=lasting(timedelta(minutes=30)),
        request_retention=lasting(timedelta(minutes=10)),
        requests_max=200_000,
        resynchronize_window_steps=60,
        resynchronize_look_ahead=100,
        next_tokencode_from_failures=3,
        second_approver=True,
        reset_delay=lasting(timedelta(hours=1)),
        rotate_after_removal=False,
        authorities_due_after_removal=True,
        replace_authorities_after_removal=True,
        pin_blocklist=True,
        issued_sets_per_hour=30,
        issued_sets_per_day=100,
        unlocks_per_day=3,
        former_code_retention=lasting(timedelta(days=365)),
        administrators_second_factor="optional",
        passkey_domain="",
        silent_notices="",
        manager_notices="codes_issued",
        codes_by_message=False,
        codes_to_manager=False,
        alarm_ends_codes=False,
        audit_retention=lasting(timedelta(days=365)),
        audit_archive_copies=2,
        backup_recipients="",
    ),
    position=POSITION,
)
ADMINISTRATORS = administrators_pb2.ListAdministratorsResponse(
    administrators=[
        administrators_pb2.Administrator(
            name="dora",
            role=administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK,
            enabled=True,
            username="Dora",
            password_temporary=True,
        ),
        administrators_pb2.Administrator(
            name="eve", role=administrators_pb2.ADMINISTRATOR_ROLE_AUDITOR
        ),
        administrators_pb2.Administrator(
            name="root",
            role=administrators_pb2.ADMINISTRATOR_ROLE_SUPER_ADMIN,
            enabled=True,
            second_factor=True,
        ),
    ],
    position=POSITION,
)
ACCEPTED = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED,
    authentication_id="a-1",
)
REFUSED = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_REFUSED,
    authentication_id="a-2",
)
NEW_PIN = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_NEW_PIN_REQUIRED,
    authentication_id="a-3",
    challenge=b"challenge-3",
)
NEXT_TOKENCODE = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_NEXT_TOKENCODE_REQUIRED,
    authentication_id="a-4",
    challenge=b"challenge-4",
)
CONTINUED = authentication_pb2.ContinueAuthenticationResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED,
    authentication_id="a-5",
)
CONTINUED_REFUSED = authentication_pb2.ContinueAuthenticationResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_REFUSED,
    authentication_id="a-6",
)


def checkpoint_response(checkpoint: Checkpoint) -> audit_pb2.GetCheckpointResponse:
    answer = audit_pb2.GetCheckpointResponse(position=POSITION)
    message = answer.checkpoint
    message.cluster_id, message.sequence = checkpoint.cluster_id, checkpoint.sequence
    message.head, message.key_id = checkpoint.head, checkpoint.key_id
    message.checkpoint_time.FromMilliseconds(checkpoint.at_ms)
    message.public_key, message.signature = checkpoint.public_key, checkpoint.signature
    return answer
