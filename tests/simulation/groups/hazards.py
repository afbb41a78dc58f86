# SPDX-License-Identifier: Apache-2.0
"""What goes wrong: clusters without a quorum, and a thief who sends again what was sent."""

import asyncio
import contextlib
import random
from functools import partial

from tests.simulation.groups.estate import Estate
from tests.simulation.groups.group import NotHere
from tests.simulation.groups.moves import MoveRefusedError, WaitingError
from tests.simulation.groups.programs import decide
from tests.simulation.groups.tokens import (
    AHEAD_MAX,
    REPEATED,
    TOKEN_USERS,
    USERS_BY_TIME,
    NextTry,
    TokencodeTry,
)

ANSWERS = 0.3
"""How often a thief sends the answer to a challenge, and not a passcode alone."""


class Hazards:
    """Outages and thefts."""

    def __init__(self, estate: Estate, clocks: random.Random) -> None:
        self._estate = estate
        self._clocks = clocks

    async def stop_clusters(self) -> None:
        """Take the quorum of a cluster for a while."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(1.0, 8.0))
            group = rng.choice(estate.living)
            group.is_up = False
            await asyncio.sleep(rng.uniform(0.2, 4.0))
            group.is_up = not group.is_lost
            estate.rules.counts["outages"] += 1

    async def steal(self) -> None:
        """Send again what operators have sent: exports, orders and receipts."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            group = rng.choice(estate.living)
            pieces = [piece for name, piece in estate.pieces if name == group.name]
            if not group.is_up or not estate.tickets:
                continue
            ticket, request = rng.choice(estate.tickets), estate.name("theft")
            try:
                match rng.randrange(4):
                    case 0 | 1 if pieces:
                        group.moves.take(rng.choice(pieces), request)
                    case 2:
                        group.moves.freeze(ticket, request)
                    case _:
                        group.moves.end(ticket, rng.choice(estate.receipts), request)
            except MoveRefusedError:
                estate.rules.counts["thefts refused"] += 1
            except WaitingError as waiting:
                # The other administrator believes that it is the operator's step. All
                # know of a restore: then nobody approves a step of a move that it ended.
                if rng.random() < 0.3 and not self._is_touched(ticket.move_id):
                    estate.repeat_late(
                        group, partial(group.approve, waiting.approval_id, request)
                    )
            estate.check_homes()

    async def replay(self) -> None:
        """Try passcodes of tokens that were typed before, in any cluster."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            user, group = rng.choice(tuple(TOKEN_USERS)), rng.choice(estate.living)
            shown = estate.devices.shown.get(user, [])[-REPEATED:]
            if not shown or not group.is_up:
                continue
            wanted = TokencodeTry(user, moment=rng.choice(shown))
            if estate.answers and self._clocks.random() < ANSWERS:
                wanted = self._clocks.choice(estate.answers[-REPEATED:])
            # A passcode that no program has sent could be taken from its user here.
            if wanted.what not in estate.rules.accepted:
                continue
            estate.rules.counts["answers again"] += isinstance(wanted, NextTry)
            with contextlib.suppress(NotHere):
                decide(estate, group, wanted, estate.name("replay"))

    async def set_clocks(self) -> None:
        """Set the clocks of tokens, so that clusters learn other drifts."""
        estate, rng = self._estate, self._clocks
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.5, 4.0))
            estate.devices.ahead[rng.choice(USERS_BY_TIME)] = rng.randint(0, AHEAD_MAX)
            estate.rules.counts["clocks set"] += 1

    def _is_touched(self, move_id: str) -> bool:
        return any(
            moving.is_touched
            for moving in self._estate.begun
            if moving.move_id == move_id
        )
