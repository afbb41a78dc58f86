# SPDX-License-Identifier: Apache-2.0
"""
Which nodes are listened to: by the newest configuration, and by their journals.

A journal holds the promises of a node: its votes, and the entries that it has
acknowledged. A node that comes back without its journal could break them. So the
primary writes the names of the voters' journals into the configuration as soon as it
has heard them all, that of a learner as soon as it has heard it, and a node with another
journal is refused.

A node whose disk went back in time is refused, too: `rollback`.

A node that is in no configuration here may be a member by a configuration that has not
arrived here yet. Its *requests* are answered (Raft thesis, 4.1): only then can a leader
that this node does not know bring it that configuration. But they are not answered
while this node hears another leader, and *answers* of such a node never count.
"""

import enum
from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.log.skips import RUNBOOK
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft import frames, rollback
from sparecode_node.replication.raft.rollback import Hello, Rollbacks

REQUESTS_OF_ANYONE = frozenset(
    {
        frames.REQUEST_VOTE,
        frames.PRE_VOTE,
        frames.APPEND_ENTRIES,
        frames.OFFER_SNAPSHOT,
        frames.ASK_TO_CONFIRM,
        frames.ASK_CLOCK,
    }
)


class Refusal(enum.StrEnum):
    """Why a node is not a member, whatever its certificate says."""

    REMOVED = "removed"
    ANOTHER_JOURNAL = "another journal"
    ROLLED_BACK = "restored from an older copy"
    OTHER_STATE = "skipped entries differ"
    ANOTHER_KEY = "another key"


ADVICE = {
    Refusal.REMOVED: "this node was removed from the cluster; stop it, and let the"
    " machine join as a new node, under another id, with an empty data folder"
    " (docs/runbooks/removed-node.md)",
    Refusal.ANOTHER_JOURNAL: "this node's journal is not the one that the cluster knows,"
    " so its earlier promises are lost; remove this node from the cluster, and let the"
    " machine join as a new node, under another id (docs/runbooks/blank-node.md)",
    Refusal.ROLLED_BACK: f"{rollback.ADVICE} (docs/runbooks/restored-machine.md)",
    Refusal.OTHER_STATE: "one node has skipped an entry of the log that the other has"
    f" applied, so their states differ ({RUNBOOK})",
    Refusal.ANOTHER_KEY: "this node's certificate has another key than the one that the"
    " cluster has recorded; if an operator has replaced the key, let the members accept it"
    " (docs/runbooks/expired-certificates.md)",
}
"""What happened, and what the operator does next."""

FINAL = frozenset(set(Refusal) - {Refusal.OTHER_STATE, Refusal.ANOTHER_KEY})
"""
A node that one member refuses for such a reason is refused by all, for good. If skipped
entries differ, the majority goes on, whatever a single node says. And a member may lag behind
the record of a new key.
"""


def explained(why: str) -> str:
    """Return the words for the reason of a refusal, which may be one of `Refusal`."""
    return ADVICE[Refusal(why)] if why in set(Refusal) else why


def is_final(why: str) -> bool:
    """Return whether a member that refuses for this reason will always do so."""
    return why in FINAL


def refusal(
    agreed: Configuration, newest: Configuration, peer: str, journal_id: str
) -> Refusal | None:
    """
    Return why a node is refused, None if it is not.

    A removal that is not committed may still be taken back, perhaps by the very node
    that it removes: until then that node is listened to.
    """
    if peer in agreed.removed:
        return Refusal.REMOVED
    if newest.names_another_journal(peer, journal_id):
        return Refusal.ANOTHER_JOURNAL
    return None


@dataclass(slots=True)
class Admission:
    """The nodes that the engine listens to. Belongs to its thread."""

    journal: Journal
    rollbacks: Rollbacks
    _hellos: dict[str, Hello] = field(default_factory=dict)
    """
    What the members have shown, also while the configuration does not have it yet.
    """
    _links: dict[str, str] = field(default_factory=dict)
    """The nodes that messages reach, each with the name of its journal."""

    def why_not(
        self, peer: str, kind: str, hello: Hello, *, has_leader: bool
    ) -> str | None:
        """
        Return why a message is dropped, None if it is not.

        *has_leader*: this node hears a leader that is not the sender.
        """
        if cause := self._refusal(peer, hello.journal_id):
            return cause
        if not self.rollbacks.hears(peer, hello):
            return Refusal.ROLLED_BACK
        if self.journal.configuration.member(peer) is None:
            is_hellos = kind in REQUESTS_OF_ANYONE and not has_leader
            return None if is_hellos else "not a member"
        self._hellos[peer] = hello
        return None

    def _refusal(self, peer: str, journal_id: str) -> Refusal | None:
        newest = self.journal.configuration
        agreed = self.journal.agreed_configuration
        if cause := refusal(agreed, newest, peer, journal_id):
            return cause
        member, hello = newest.member(peer), self._hellos.get(peer)
        unwritten = member is not None and not member.journal_id
        if unwritten and hello is not None and hello.journal_id not in ("", journal_id):
            return Refusal.ANOTHER_JOURNAL
        return None

    def hello(self, peer: str) -> Hello | None:
        """Return what a member has shown."""
        return self._hellos.get(peer)

    def refusal_of_link(
        self, peer: str, hello: Hello, *, fresh: bool
    ) -> Refusal | None:
        """
        Return why a link with a node must not begin, None if it may.

        *fresh*: see `Rollbacks.accepts`.
        """
        if cause := self._refusal(peer, hello.journal_id):
            return cause
        kept = self.rollbacks.accepts(peer, hello, fresh=fresh)
        return None if kept else Refusal.ROLLED_BACK

    def link_began(self, peer: str, journal_id: str) -> None:
        """Record that messages reach *peer*."""
        self._links[peer] = journal_id

    def link_ended(self, peer: str) -> None:
        """Record that messages do not reach *peer* any more."""
        self._links.pop(peer, None)

    def is_linked(self, peer: str) -> bool:
        """Return whether messages reach a node that is listened to."""
        journal_id = self._links.get(peer)
        if journal_id is None:
            return False
        return self._refusal(peer, journal_id) is None
