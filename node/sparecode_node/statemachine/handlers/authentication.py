# SPDX-License-Identifier: Apache-2.0
"""
Handlers of `Authenticate` and `ContinueAuthentication`: load, judge, save (A3).

Challenges are not stored: the result holds the challenge, and the called node seals it
for the agent. Only the ids of answered challenges are kept, until they end.
"""

import sqlite3
from collections.abc import Iterator, Sequence

from sparecode_node.domain.agents import Agent, Certificate
from sparecode_node.domain.authentication import (
    Attempt,
    Event,
    Judgement,
    judge,
    not_admitted,
)
from sparecode_node.domain.challenges import CHALLENGE_MS, Challenge, NextStep
from sparecode_node.domain.emergency_access import CodeState, Use
from sparecode_node.domain.ids import NO_USER, KeyId, TokenSerial
from sparecode_node.domain.lockout import FREE, Factor
from sparecode_node.domain.next_step import ChallengeAnswer, judge_next
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passcodes import Reading, read_alike
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import Told
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.feature_level import (
    ATTEMPTS_OUTLAST_POLICIES,
    FORMER_CODES,
    UNJUDGED_PINS,
)
from sparecode_node.statemachine.handlers.policy import find_version
from sparecode_node.statemachine.results import Authenticated, Decision, Result
from sparecode_node.statemachine.tables import agent_keys as key_tables
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import known_secrets as secret_tables
from sparecode_node.statemachine.tables import radius as radius_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

Judged = Authenticate | ContinueAuthentication

DECISIONS = {
    NextStep.NEXT_TOKENCODE: Decision.NEXT_TOKENCODE_REQUIRED,
    NextStep.NEW_PIN: Decision.NEW_PIN_REQUIRED,
}


def authenticate(applying: Applying, command: Authenticate) -> Result:
    """Apply `Authenticate`."""
    user = applying.person
    if not _is_read_alike(applying, command) or _stale(applying, command, user):
        return Rejected(Reason.STALE_PARAMETERS)
    factors = _factors(command)
    attempt = _attempt(
        applying,
        command,
        user,
        factors=factors,
        readings=command.readings,
    )
    if _under_other_keys(attempt, command):
        return Rejected(Reason.STALE_PARAMETERS)
    judgement = judge(attempt)
    _save(applying, attempt, judgement)
    _require_signatures(applying, command, attempt.agent)
    challenge = _challenge(applying, command, attempt, judgement)
    applying.reason = judgement.reason or ""
    applying.detail = _detail(
        token=judgement.serial or "",
        factor=" and ".join(factors),
        client=command.client_address,
        resource=command.resource,
        challenge=challenge.challenge_id if challenge else "",
    )
    applying.events += judgement.events
    return Authenticated(
        index=applying.index,
        decision=_decision(judgement),
        authentication_id=command.authentication_id,
        attributes=_attributes(applying, command, judgement),
        challenge=challenge,
    )


def continue_authentication(
    applying: Applying, command: ContinueAuthentication
) -> Result:
    """Apply `ContinueAuthentication`."""
    user = applying.person
    # The rules of new PINs are in the policy: they are checked again.
    if command.policy_version != applying.policy.version or _stale(
        applying, command, user
    ):
        return Rejected(Reason.STALE_PARAMETERS)
    challenge = command.challenge
    attempt = _attempt(applying, command, user, factors=(Factor.TOKEN,))
    answer = ChallengeAnswer(
        challenge=challenge,
        consumed=challenge is not None and _consumed(applying, challenge),
        moments=command.moments,
        pin=_new_pin(command),
    )
    judgement = judge_next(attempt, answer)
    _save(applying, attempt, judgement)
    _require_signatures(applying, command, attempt.agent)
    applying.reason = judgement.reason or ""
    applying.detail = _detail(
        token=challenge.serial if challenge else "",
        factor=Factor.TOKEN.value,
        client=command.client_address,
        resource=command.resource,
        challenge=challenge.challenge_id if challenge else "",
    ) + (f"; {judgement.detail}" if judgement.detail else "")
    applying.events += judgement.events
    return Authenticated(
        index=applying.index,
        decision=_decision(judgement),
        authentication_id=command.authentication_id,
        attributes=_attributes(applying, command, judgement),
    )


def _factors(command: Authenticate) -> tuple[Factor, ...]:
    """Return the factors that this may be a guess at: token, emergency codes, both (L)."""
    kinds = {reading.emergency for reading in command.readings} or {command.lettered}
    return tuple(
        factor
        for factor in (Factor.TOKEN, Factor.EMERGENCY)
        if (factor is Factor.EMERGENCY) in kinds
    )


def _new_pin(command: ContinueAuthentication) -> NewPin | None:
    if not command.pin_verifier:
        return None
    return NewPin(
        verifier=command.pin_verifier,
        key_id=command.key_id,
        sealed=command.sealed_pin,
        lettered=command.pin_lettered,
    )


def no_longer_stands(applying: Applying, command: Judged) -> bool:
    """Return whether the agent may no longer accept this user, since `ACCEPTED` (Q2)."""
    user = applying.person
    reason = not_admitted(
        _find_agent(applying, command),
        user,
        certificate_denied=_certificate_denied(applying.db, command),
        user_listed=_user_listed(applying.db, command, user),
    )
    applying.reason = reason or ""
    applying.detail = "accepted before; repeated with the same request id"
    return reason is not None


def is_under_replaced_tag(applying: Applying) -> bool:
    """
    Return whether the typed name may not be found because its tag was replaced.

    The name tags of users are replaced soon after a rotation. A node that is behind the
    rotation makes older ones. A node that knows the new key names a known user by the tag
    that its state still has.
    """
    command = applying.call.command
    return (
        isinstance(command, Authenticate)
        and applying.person is None
        and (command.user_id != "" or command.key_id != applying.keys.active)
    )


def _stale(applying: Applying, command: Judged, user: User | None) -> bool:
    """Return whether the candidates were computed for another state (T2)."""
    user_id, version = (user.user_id, user.auth_version) if user else (NO_USER, 0)
    return (command.user_id, command.auth_version, command.key_id) != (
        user_id,
        version,
        applying.keys.active,
    )


def _is_read_alike(applying: Applying, command: Authenticate) -> bool:
    """
    Return whether passcodes are read under the current policy as the node has read this.

    The current policy decides in any case. Without this, each change would make the nodes
    compute all attempts again that are on their way (T2).
    """
    version, policy = command.policy_version, applying.policy
    if version == policy.version:
        return True
    if (
        applying.feature_level < ATTEMPTS_OUTLAST_POLICIES
        or not 0 < version < policy.version
    ):
        return False
    former = find_version(applying.db, version)
    return former is not None and read_alike(former, policy)


def _under_other_keys(attempt: Attempt, command: Authenticate) -> bool:
    """
    Return whether a candidate and its row were made with different keys.

    Then they cannot be compared.
    """
    pins: dict[str, KeyId] = {
        token.serial: token.pin_key_id for token in attempt.tokens if token.pin_set
    }
    sets = {each.set_id: each.key_id for some in attempt.sets.values() for each in some}
    sets |= {each.set_id: each.key_id for each in attempt.former_sets}
    made = [
        (each.key_id or command.key_id, pins.get(each.serial))
        for reading in attempt.readings
        for each in reading.pins
    ] + [
        (each.key_id or command.key_id, sets.get(each.set_id))
        for reading in attempt.readings
        for each in reading.codes
    ]
    return any(wanted not in (None, key_id) for key_id, wanted in made)


def _attempt(
    applying: Applying,
    command: Judged,
    user: User | None,
    *,
    factors: Sequence[Factor],
    readings: tuple[Reading, ...] = (),
) -> Attempt:
    db = applying.db
    # For an unknown name it is read as for a user without anything, so that the time
    # tells less (A6).
    user_id = user.user_id if user else NO_USER
    tokens = token_tables.find_tokens_of(db, user_id)
    tagged = applying.feature_level >= FORMER_CODES
    agent = _find_agent(applying, command)
    restricted = (
        agent is not None and agent.restricted
    )  # Else the list does not matter.
    return Attempt(
        factors=factors,
        readings=readings,
        agent=agent,
        certificate_denied=_certificate_denied(db, command),
        user_listed=restricted and _user_listed(db, command, user),
        user=user,
        tokens=tokens,
        sets={
            token.serial: code_tables.find_sets(db, token.serial) for token in tokens
        },
        former_sets=former_tables.find_former_sets(db, user_id, tagged=tagged),
        former_codes=former_tables.find_former_codes(
            db, user_id, [tag for each in readings for tag in each.code_tags]
        )
        if tagged
        else (),
        judges_all_pins=applying.feature_level < UNJUDGED_PINS,
        lockouts=user_tables.find_lockouts(db, user_id),
        policy=applying.policy,
        use=Use(
            at_ms=applying.now_ms,
            agent=command.agent,
            node_id=applying.call.node_id,
            index=applying.index,
        ),
    )


def _find_agent(applying: Applying, command: Judged) -> Agent | None:
    """
    Return the agent that sent the passcode.

    A RADIUS client has used a secret that still works. The called node may be behind,
    and a certificate with the identity of a RADIUS client could come from any address.
    So has an agent with a bearer key.
    """
    db = applying.db
    agent = agent_tables.find_agent(db, command.agent)
    if (
        agent is not None
        and agent.by_radius
        and not radius_tables.secret_works(
            db, command.agent, command.radius_secret_id, applying.now_ms
        )
    ):
        return None
    if command.bearer_id and not key_tables.key_works(
        db, command.agent, command.bearer_id, applying.now_ms
    ):
        return None
    return agent


def _require_signatures(
    applying: Applying, command: Judged, agent: Agent | None
) -> None:
    """Answer no unsigned request any more, if the client has sent a signed one (D2)."""
    if (
        command.radius_signed
        and agent is not None
        and radius_tables.require_signatures(applying.db, agent.identity)
    ):
        applying.events.append(
            Event(
                action="SIGNATURES_REQUIRED",
                serial=TokenSerial(agent.identity),
                cause="the RADIUS client has sent a signed request",
            )
        )


def _certificate_denied(db: sqlite3.Connection, command: Judged) -> bool:
    certificate = Certificate(
        fingerprint=command.certificate_fingerprint,
        serial_number=command.certificate_serial_number,
    )
    return agent_tables.certificate_denied(db, certificate)


def _user_listed(db: sqlite3.Connection, command: Judged, user: User | None) -> bool:
    return user is not None and agent_tables.lists_user(db, command.agent, user.user_id)


def _save(applying: Applying, attempt: Attempt, judgement: Judgement) -> None:
    db, user = applying.db, attempt.user
    if user is None:
        return
    applying.told += [
        Told(kind=kind, user_id=user.user_id) for kind in _told(attempt, judgement)
    ]
    for factor, lockout in judgement.lockouts.items():
        if lockout != attempt.lockouts.get(factor, FREE):
            user_tables.save_lockout(db, user.user_id, factor, lockout)
    before = {each.set_id: each for sets in attempt.sets.values() for each in sets}
    for after in judgement.sets:
        code_tables.update_set(db, before[after.set_id], after)
    if judgement.token is not None:
        token_tables.save_token(db, judgement.token)
        if _changed_pin(attempt, judgement.token):
            secret_tables.keep_seed(db, judgement.token.serial)
    if judgement.consumed is not None:
        db.execute(
            "INSERT INTO consumed_challenges (challenge_id, ends_at_ms) VALUES (?, ?)",
            (judgement.consumed.challenge_id, judgement.consumed.ends_at_ms),
        )
    voided = any(
        each.voided and not before[each.set_id].voided for each in judgement.sets
    )
    if voided or _other(attempt, judgement.token):
        # Drafts generated before this must not be saved after it (I3).
        user_tables.save_user(db, user.changed())


def _told(attempt: Attempt, judgement: Judgement) -> Iterator[PersonalKind]:
    """Return what the user hears of by mail: the use of a code, and a lock (N6)."""
    if judgement.accepted and Factor.EMERGENCY in judgement.lockouts:
        used = [code.state for each in judgement.sets for code in each.codes].count(
            CodeState.USED
        )
        yield PersonalKind.CODE_FIRST_USED if used == 1 else PersonalKind.CODE_USED
    if any(
        lockout.off or lockout.rung >= attempt.policy.lock_from_failures
        for lockout in judgement.lockouts.values()
    ):
        yield PersonalKind.LOCKED


def _other(attempt: Attempt, after: Token | None) -> bool:
    """Return whether the attempt cleared a lost mark or changed a PIN."""
    return any(
        before.lost != after.lost or before.pin_verifier != after.pin_verifier
        for before in attempt.tokens
        if after is not None and before.serial == after.serial
    )


def _changed_pin(attempt: Attempt, after: Token) -> bool:
    """Return whether the user has chosen a PIN (I10)."""
    return any(
        before.pin_verifier != after.pin_verifier
        for before in attempt.tokens
        if before.serial == after.serial
    )


def _consumed(applying: Applying, challenge: Challenge) -> bool:
    row = applying.db.execute(
        "SELECT 1 FROM consumed_challenges WHERE challenge_id = ?",
        (challenge.challenge_id,),
    ).fetchone()
    return row is not None


def _decision(judgement: Judgement) -> Decision:
    if judgement.next_step is not None:
        return DECISIONS[judgement.next_step]
    return Decision.ACCEPTED if judgement.accepted else Decision.REFUSED


def _attributes(
    applying: Applying, command: Judged, judgement: Judgement
) -> AcceptAttributes:
    """Return what an acceptance tells the agent."""
    if _decision(judgement) is not Decision.ACCEPTED:
        return NO_ATTRIBUTES
    return radius_tables.find_attributes(applying.db, command.agent)


def _challenge(
    applying: Applying, command: Authenticate, attempt: Attempt, judgement: Judgement
) -> Challenge | None:
    """Return the challenge of the next step, if one is required."""
    user, token = attempt.user, judgement.token
    if judgement.next_step is None or user is None or token is None:
        return None
    return Challenge(
        challenge_id=command.authentication_id,
        step=judgement.next_step,
        agent=command.agent,
        user_id=user.user_id,
        # Spending does not raise the version, so it is still the same.
        auth_version=user.auth_version,
        serial=token.serial,
        moment=token.spent,
        ends_at_ms=applying.now_ms + CHALLENGE_MS,
    )


def _detail(**parts: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)
