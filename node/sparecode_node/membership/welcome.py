# SPDX-License-Identifier: Apache-2.0
"""The admission of new nodes by a running member."""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from typing import Any

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.replicator import Replicator
from sparecode_node.rpc.authority_calls import AuthorityCalls
from sparecode_node.rpc.joining import JoiningServicer
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.authority_replacement import (
    AuthorityReplacement,
)
from sparecode_node.services.cluster.authority_watch import AuthorityWatch
from sparecode_node.services.cluster.joining import Admissions
from sparecode_node.services.cluster.membership_sync import MembershipSync
from sparecode_node.services.cluster.renewals import Renewals
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing


class Welcome:
    """Builds the parts that admit nodes, in two steps of the node's start."""

    def __init__(
        self, config: Config, refusals: Refusals, clock: Clock, entropy: Entropy
    ) -> None:
        self._config = config
        self._authority = FileAuthority(config)
        self._refusals = refusals
        self._clock = clock
        self._entropy = entropy
        self._servicer: JoiningServicer | None = None

    def authorities(self) -> tuple[bytes, ...]:
        """Return the certificates of the members' authorities, DER."""
        return self._authority.members_ca_der()

    def authority_work(
        self,
        replicator: Replicator,
        state: LocalState,
        trusted: Callable[[], tuple[AuthorityKey, ...]],
    ) -> tuple[tuple[Coroutine[Any, Any, None], str], ...]:
        """
        Return what a running node does about authorities that are due, with names (P6a).

        *trusted* returns the authorities that this node trusts.
        """
        watch = AuthorityWatch(
            replicator=replicator,
            state=state,
            entropy=self._entropy,
            keys=self._authority.keys,
            trusted=trusted,
        )
        replacement = AuthorityReplacement(
            replicator=replicator,
            state=state,
            clock=self._clock,
            entropy=self._entropy,
            accepted=self.accepted,
            make=self._make_successor,
            made_here=lambda each: self._authority.made.authority(each) is not None,
        )
        return (watch.run(), "authorities"), (replacement.run(), "replacement")

    def accepted(self) -> tuple[Successor, ...]:
        """Return the successors of authorities that this node trusts."""
        return tuple(
            each for kind in AuthorityKind for each in self._authority.accepted(kind)
        )

    def _make_successor(self, key: AuthorityKey) -> Successor | None:
        """Return a successor made by this node; None: it lacks the authority's key."""
        now = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
        return self._authority.made.make(key, NodeId(self._config.node.id), now)

    def servicer(
        self, read_doors: Callable[[], tuple[bytes, ...]], member_keys: MemberKeys
    ) -> JoiningServicer:
        """Return the servicer for the peers listener; it refuses all nodes until `begin`."""
        self._servicer = JoiningServicer(read_doors, self._refusals, member_keys)
        return self._servicer

    def _tls(self) -> PeerTls:
        """Return this member's own certificate; it may have been renewed."""
        peers = self._config.peers
        return PeerTls(
            certificate=peers.certificate.read_bytes(),
            key=peers.key.read_bytes(),
            ca=self._authority.members_ca(),
        )

    def begin(
        self, replicator: Replicator, state: LocalState, ring: KeyRing
    ) -> "asyncio.Task[None]":
        """Start admitting nodes; return the task that adds them to the engine's members."""
        self._authority.ring = ring
        if self._servicer is not None:
            self._servicer.serve(
                Admissions(
                    replicator=replicator,
                    state=state,
                    sealing=Sealing(ring),
                    authority=self._authority,
                    refusals=self._refusals,
                    clock=self._clock,
                    entropy=self._entropy,
                    pass_on=AuthorityCalls(self._tls).pass_on,
                ),
                Renewals(
                    replicator=replicator,
                    state=state,
                    authority=self._authority,
                    clock=self._clock,
                    entropy=self._entropy,
                ),
            )
        membership_sync = MembershipSync(replicator, state)
        return asyncio.create_task(membership_sync.run(), name="membership sync")
