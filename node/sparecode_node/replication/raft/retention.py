# SPDX-License-Identifier: Apache-2.0
"""
Keeping the log for a member that needs what it has now.

A member that fetches a snapshot also needs the entries after it, until it has installed
the snapshot and caught up. If the others went on taking snapshots and dropping entries,
they would remove both before a slow member is done. It would begin again, and never
end.

So the member tells all voters, because any of them may lead by then, and repeats it
(`KeepLog`). Until it has caught up, they keep the body of their newest snapshot, and the
log from there. That ends early if the log reaches its bound, if the member makes no
progress, or if it is removed.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import KEPT_LOG_FACTOR, RaftSettings

log = logging.getLogger(__name__)

REPEAT_S = 1.0
"""Between two messages about the same need."""

BEHIND_MAX = 64
"""A member that lacks no more entries than this has caught up."""


@dataclass(slots=True)
class Need:
    """What a member needs of the log."""

    index: int
    """The entries after this one."""
    progress: int = 0
    """Changes whenever the member has received something."""
    progressed_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Retention:
    """What members need of the log. Belongs to the engine's thread."""

    journal: Journal
    settings: RaftSettings
    send: Callable[[str, Message], object]
    now: Callable[[], float]
    """The engine's clock."""
    acknowledged: Callable[[str], int] = lambda _member: 0
    """Returns the last entry that a member has on disk, as a leader knows; else 0."""
    given_up: int = 0
    """How often the log was no longer kept for a member that had not caught up."""
    outdated: int = 0
    """How often the log that this node needed, for a snapshot, was gone."""
    _needs: dict[str, Need] = field(default_factory=dict)
    _refused: dict[str, int] = field(default_factory=dict)
    """The index for which the log is not kept any more, by member."""
    _own: Need | None = None
    _primary: str = ""
    """The one whose log has what this node needs."""
    _told: bool = True
    """Whether other members may keep the log for this node: also before it started."""
    _tell_at: float = float("-inf")
    _settled_at: float = field(init=False)

    def __post_init__(self) -> None:
        # Members tell their needs when they have linked to a node that has started.
        self._settled_at = self.now() + 2 * self.settings.election_max_s

    # --- The needs of others

    def keeps(self) -> bool:
        """Return whether the log, and the newest snapshot, must stay as they are."""
        others = len(self.journal.configuration.ids) > 1
        return bool(self._needs) or (others and self.now() < self._settled_at)

    @property
    def members(self) -> list[str]:
        """The members for which the log is kept, in order."""
        return sorted(self._needs)

    @property
    def used(self) -> float:
        """The part of the bound that the log takes, while it is kept; else 0."""
        return self._size() if self._needs else 0.0

    def _size(self) -> float:
        settings, journal = self.settings, self.journal
        return (
            max(
                len(journal) / settings.log_entries_max,
                journal.bytes / settings.log_bytes_max,
            )
            / KEPT_LOG_FACTOR
        )

    def take(self, member: str, *, index: int, progress: int) -> None:
        """
        Keep the log for a member that needs the entries after *index*; 0: none.

        Also if this log begins later: if this node leads, the member fetches its
        snapshot. So a fetch begins again at most once for each voter.
        """
        if not index or self._refused.get(member) == index:
            self._needs.pop(member, None)
            return
        need = self._needs.get(member)
        if need is None or need.index != index:
            if self._size() >= 1:
                return  # The log is to become shorter first: the member asks again.
            log.info("log_kept", extra={"member": member, "index": index})
            need = self._needs[member] = Need(index, progress, self.now())
        elif need.progress != progress:
            need.progress, need.progressed_at = progress, self.now()

    def _end_needs(self) -> None:
        """Stop keeping the log for members that are gone, or that take too much."""
        if not self._needs:
            return
        ids = self.journal.configuration.ids
        stalled_at = self.now() - self.settings.member_stalled_s
        is_full = self._size() >= 1
        for member, need in tuple(self._needs.items()):
            if member not in ids or self._has_all(member, need):
                del self._needs[member]
            elif is_full or need.progressed_at < stalled_at:
                self._give_up(member, "bound" if is_full else "no progress")

    def _has_all(self, member: str, need: Need) -> bool:
        """Return whether a member has caught up. Release 0.1.0 does not say so."""
        nearly_all = self.journal.last_index - self._behind_max()
        return self.acknowledged(member) >= max(need.index, nearly_all)

    def _give_up(self, member: str, cause: str) -> None:
        index = self._needs.pop(member).index
        if cause == "bound":
            self._refused[member] = index
        self.given_up += 1
        log.warning(
            "log_not_kept", extra={"member": member, "index": index, "cause": cause}
        )

    # --- The need of this node

    def fetching(self, index: int, primary: str) -> None:
        """Need the primary's log after *index*, the entry of a snapshot."""
        if self._own is None or self._own.index != index:
            self._own, self._tell_at = Need(index), float("-inf")
        self._primary = primary

    def received(self, progress: int) -> None:
        """Record that something has arrived of what this node needs."""
        if self._own is not None:
            self._own.progress = progress

    def fetch_given_up(self) -> None:
        """Need nothing, until another snapshot is fetched."""
        self._own = None

    def offered(self, first: int, primary: str) -> None:
        """Record that the primary's log begins at *first*: what was needed may be gone."""
        if self._own is None or self._own.index >= first:
            return
        if primary == self._primary:  # Another one may have a shorter log.
            self.outdated += 1
            log.warning(
                "snapshot_outdated", extra={"index": self._own.index, "first": first}
            )
        self._own = None

    def step(
        self,
        voters: Iterable[str],
        *,
        applied: int,
        count_behind: Callable[[], int | None],
    ) -> None:
        """
        End and repeat what is due; called in each tick.

        *voters* are the other members that are told. *applied* is this node's last
        entry. *count_behind* returns the number of entries that it lacks, None if that
        is not known.
        """
        self._end_needs()
        if self._own is None and not self._told:
            return
        behind = count_behind()
        if behind is not None:
            self.received(applied)
        needed = 0 if self._own is None else self._own.index
        has_caught_up = (
            behind is not None and behind <= self._behind_max() and applied >= needed
        )
        if has_caught_up:
            self._own = None
        is_due = self.now() >= self._tell_at
        if is_due if self._own is not None else self._told and has_caught_up:
            self._tell_at, self._told = self.now() + REPEAT_S, self._own is not None
            for voter in voters:
                self._tell(voter)

    def _behind_max(self) -> int:
        return min(BEHIND_MAX, self.settings.log_entries_kept // 2)

    def tell_again(self) -> None:
        """Tell the voters in the next tick: one of them has linked only now."""
        self._tell_at = float("-inf")

    def _tell(self, voter: str) -> None:
        need = self._own or Need(0)
        fields = {"index": need.index, "progress": need.progress}
        self.send(voter, {"type": frames.KEEP_LOG, **fields})
