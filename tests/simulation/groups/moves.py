# SPDX-License-Identifier: Apache-2.0
"""
How a slot moves from one cluster to another: the protocol, as each cluster keeps it.

Nodes do not have it yet: docs/clusters.md describes what they will do. This is that design
as code, so that the simulation can look for what it forgets. Each cluster replicates its
own part, and a step is one commit in one cluster. No commit spans two clusters.

A move ends in one of two ways, and the target decides which: it activates the slot, or it
cancels the move. Each end has a receipt, a secret of the target. The ticket of the move
holds the hashes of both. The source gives the slot away only for the one receipt, and
serves it again only for the other, so it can never act on an end that the target has not
chosen, or on that of another move.
"""

import enum
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

REMEMBERED_S = 20.0
"""How long requests are remembered and repeated: ten minutes (Q3), scaled to a run."""


class Standing(enum.Enum):
    """What a cluster knows of one slot."""

    HERE = "here"
    """The cluster decides attempts of its users."""
    LEAVING = "leaving"
    """It is frozen for a move to another cluster: nothing of its users changes."""
    ARRIVING = "arriving"
    """Its users come from another cluster, and are not served yet."""
    GONE = "gone"
    """Another cluster serves it."""


class MoveRefusedError(Exception):
    """A step that does not fit the standing of the slot or of the move."""


@dataclass(frozen=True)
class Ticket:
    """What the target prepares, and the source gets: it names the move and its ends."""

    move_id: str
    slot: int
    source: str
    target: str
    done_lock: bytes
    canceled_lock: bytes


@dataclass(frozen=True)
class Export:
    """The users of a slot, sealed for one cluster and one move."""

    move_id: str
    target: str
    users: tuple[object, ...]


def lock_of(receipt: bytes) -> bytes:
    """Return the hash by which a source knows a receipt."""
    return hashlib.sha256(receipt).digest()


@dataclass
class Arrival:
    """A move to this cluster."""

    ticket: Ticket
    done: bytes
    canceled: bytes
    expected: int | None = None
    """The number of users in the export; None: it has not come yet."""
    outcome: Standing | None = None
    """`HERE`: activated; `GONE`: canceled; None: not over."""


@dataclass
class Departure:
    """A move from this cluster."""

    ticket: Ticket
    over: bool = False


@dataclass
class SlotLedger:
    """The slots and moves of one cluster."""

    name: str
    rng: random.Random
    standing: dict[int, Standing] = field(default_factory=dict)
    gone_s: dict[int, float] = field(default_factory=dict)
    """When a slot has left, as far as it has."""
    arrivals: dict[str, Arrival] = field(default_factory=dict)
    departures: dict[str, Departure] = field(default_factory=dict)

    def of(self, slot: int) -> Standing:
        """Return the standing of a slot: a cluster never gave away what it never had."""
        return self.standing.get(slot, Standing.HERE)

    def serves(self, slot: int) -> bool:
        """Return whether attempts of the slot's users are decided here."""
        return self.of(slot) is Standing.HERE

    # --- The target

    def prepare(
        self, move_id: str, slot: int, source: str, *, empty: bool, now_s: float
    ) -> Ticket:
        """
        Expect a slot of *source*, and return the ticket of the move.

        *empty*: it has no users here. A slot comes back only when no attempt from before
        can be repeated any more: a caller has heard that it is never applied here.
        """
        if move_id in self.arrivals:
            return self.arrivals[move_id].ticket
        before = self.of(slot)
        if before not in (Standing.GONE, Standing.HERE) or not empty:
            raise MoveRefusedError(f"slot {slot} is {before.value} in {self.name}")
        if now_s - self.gone_s.get(slot, -REMEMBERED_S) < REMEMBERED_S:
            raise MoveRefusedError(f"slot {slot} left {self.name} not long ago")
        done, canceled = self.rng.randbytes(16), self.rng.randbytes(16)
        ticket = Ticket(
            move_id=move_id,
            slot=slot,
            source=source,
            target=self.name,
            done_lock=lock_of(done),
            canceled_lock=lock_of(canceled),
        )
        self.arrivals[move_id] = Arrival(ticket, done, canceled)
        self.standing[slot] = Standing.ARRIVING
        return ticket

    def take(self, export: Export, save: Callable[[object], None]) -> None:
        """Import an export, the same one perhaps again. *save* keeps one user."""
        if export.target != self.name:
            raise MoveRefusedError("it is sealed for another cluster")
        arrival = self.arrivals.get(export.move_id)
        if arrival is None or arrival.outcome is not None:
            raise MoveRefusedError("the move is over")
        arrival.expected = len(export.users)
        for user in export.users:
            save(user)

    def activate(self, move_id: str, present: int) -> bytes:
        """Serve the slot, if all of its users are present; return the receipt."""
        arrival = self.arrivals[move_id]
        if arrival.outcome is None:
            if arrival.expected is None or arrival.expected != present:
                raise MoveRefusedError("the import is not complete")
            arrival.outcome = self.standing[arrival.ticket.slot] = Standing.HERE
            return arrival.done
        if arrival.outcome is not Standing.HERE:
            raise MoveRefusedError("the move was canceled")
        return arrival.done

    def cancel(self, move_id: str, forget: Callable[[], None], now_s: float) -> bytes:
        """
        Give the move up, and return the receipt. *forget* deletes what was imported.

        The slot counts as gone, even if this cluster never had it: another one has it.
        """
        arrival = self.arrivals[move_id]
        if arrival.outcome is None:
            forget()
            arrival.expected = None
            arrival.outcome = Standing.GONE
            self.standing[arrival.ticket.slot] = Standing.GONE
            self.gone_s[arrival.ticket.slot] = now_s
        if arrival.outcome is not Standing.GONE:
            raise MoveRefusedError("the slot is served here already")
        return arrival.canceled

    # --- The source

    def freeze(self, ticket: Ticket, *, empty: bool) -> None:
        """
        Decide nothing about the slot's users any more, until the move has ended.

        *empty*: the slot has no users here, so it is probably another cluster's.
        """
        departure = self.departures.get(ticket.move_id)
        if departure is not None:
            if departure.over:
                raise MoveRefusedError("the move is over")
            return
        if ticket.source != self.name or empty or not self.serves(ticket.slot):
            raise MoveRefusedError(f"slot {ticket.slot} is not here")
        self.departures[ticket.move_id] = Departure(ticket)
        self.standing[ticket.slot] = Standing.LEAVING

    def export(
        self, move_id: str, users: Callable[[int], tuple[object, ...]]
    ) -> Export:
        """Return the frozen users; each time the same."""
        departure = self.departures.get(move_id)
        if departure is None or departure.over:
            raise MoveRefusedError("the slot is not frozen for this move")
        ticket = departure.ticket
        return Export(move_id, ticket.target, users(ticket.slot))

    def end(self, ticket: Ticket, receipt: bytes, now_s: float) -> Standing:
        """
        Give the slot away, or serve it again, as the receipt of the target says.

        A canceled move that has not begun here is recorded, too: its order to freeze the
        slot may be on the way still.
        """
        ends = {
            ticket.done_lock: Standing.GONE,
            ticket.canceled_lock: Standing.HERE,
        }
        outcome = ends.get(lock_of(receipt))
        if outcome is None:
            raise MoveRefusedError("this is no receipt of the move")
        if ticket.source != self.name:
            raise MoveRefusedError("the slot comes from another cluster")
        departure = self.departures.get(ticket.move_id)
        if departure is None:
            self.departures[ticket.move_id] = Departure(ticket, over=True)
        elif not departure.over:
            departure.over = True
            self.standing[ticket.slot] = outcome
            if outcome is Standing.GONE:
                self.gone_s[ticket.slot] = now_s
        return outcome
