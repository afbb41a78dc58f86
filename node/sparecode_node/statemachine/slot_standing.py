# SPDX-License-Identifier: Apache-2.0
"""
Refusals of calls about users whose slot this cluster does not serve.

They decide nothing, so they are neither remembered nor recorded. A request that is
remembered has got its first answer before.
"""

from collections.abc import Iterator

from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.moves import ELSEWHERE, OPEN
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.slots import SLOTS, slot_of
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import sealed_codes as sealed_code_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

NOT_OF_USERS = (
    commands.RegisterAgent,
    commands.UpdateAgent,
    commands.RemoveAgent,
    commands.RegisterRadiusClient,
    commands.UpdateRadiusClient,
    commands.RotateRadiusSecret,
    commands.CreateAgentKey,
)
"""Commands whose `name_key` is the name of an agent."""

MOVING = Rejected(
    Reason.SLOT_MOVING,
    "the user is on the way between two clusters: try again in a minute",
)
MOVED = Rejected(
    Reason.SLOT_MOVED, "the user has moved to another cluster: ask that one"
)


def refusal(applying: Applying) -> Rejected | None:
    """Refuse a call about a user whose slot is in a move, or elsewhere."""
    if not move_tables.any_move(applying.db):
        return None
    command = applying.call.command
    if isinstance(command, commands.Authenticate):
        # A node that knew of no move has named no slot, and a name that no user has
        # is in the command as a tag alone.
        if applying.person is None and not 0 < command.slot <= SLOTS:
            return Rejected(Reason.STALE_PARAMETERS)
        slots = {
            command.slot - 1
            if applying.person is None
            else slot_of(applying.person.name_key)
        }
    else:
        slots = set(_slots(applying))
    for slot in sorted(slots):
        move = move_tables.newest_of(applying.db, slot)
        if move is not None and move.state in OPEN:
            return MOVING
        if isinstance(command, commands.RaiseAlarm):
            continue  # A link in a mail leads here: else nobody would hear of it (N9).
        if move is not None and move.state in ELSEWHERE:
            return MOVED
    return None


def _slots(applying: Applying) -> Iterator[int]:
    """
    Yield the slots of the users that a command concerns, directly or by their tokens.

    Field names tell, so that commands added later are included.
    """
    db, command = applying.db, applying.call.command
    name = getattr(command, "name_key", None)
    if name is not None and not isinstance(command, NOT_OF_USERS):
        yield slot_of(name)
    serials = [
        getattr(command, field)
        for field in ("serial", "replacement")
        if hasattr(command, field)
    ]
    serials += getattr(command, "serials", ())
    user_ids = [getattr(command, "user_id", None)]
    match command:
        case commands.ContinueAuthentication(challenge=challenge) if challenge:
            user_ids.append(challenge.user_id)
        case commands.OpenSealedCodes():
            sealed = sealed_code_tables.by_opener(db, command.opener)
            opened = code_tables.find_set(db, sealed.set_id) if sealed else None
            serials += [opened.serial] if opened else []
        case _:
            pass
    tokens = (token_tables.find_token(db, TokenSerial(each)) for each in serials)
    user_ids += [token.user_id for token in tokens if token is not None]
    for user_id in filter(None, user_ids):
        user = user_tables.find_user(db, UserId(user_id))
        if user is not None:
            yield slot_of(user.name_key)
