# SPDX-License-Identifier: Apache-2.0
"""The admission of new nodes by a running member."""

import asyncio
from collections.abc import Callable

from sparecode_node.config import Config
from sparecode_node.domain.membership import AuthorityKey
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.replicator import Replicator
from sparecode_node.rpc.authority_calls import AuthorityCalls
from sparecode_node.rpc.joining import JoiningServicer
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, Entropy
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

    def authority_keys(self) -> tuple[AuthorityKey, ...]:
        """Return the authorities whose keys this node has."""
        return self._authority.keys()

    def servicer(self, read_doors: Callable[[], tuple[bytes, ...]]) -> JoiningServicer:
        """Return the servicer for the peers listener; it refuses all nodes until `begin`."""
        self._servicer = JoiningServicer(read_doors, self._refusals)
        return self._servicer

    def _tls(self) -> PeerTls:
        """Return this member's own certificate; it may have been renewed."""
        peers = self._config.peers
        return PeerTls(
            certificate=peers.certificate.read_bytes(),
            key=peers.key.read_bytes(),
            ca=peers.ca.read_bytes(),
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
