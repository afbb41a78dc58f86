# SPDX-License-Identifier: Apache-2.0
"""All use cases together, each with what it needs."""

from dataclasses import dataclass
from typing import Self

from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.agents import Agents
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.authentication import Authentication
from sparecode_node.services.authorization import Authorization
from sparecode_node.services.cluster import Cluster
from sparecode_node.services.emergency_access import Emergency
from sparecode_node.services.kdf import Kdf
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import Sealing
from sparecode_node.services.sessions import Sessions
from sparecode_node.services.tokens import Tokens
from sparecode_node.services.users import Users


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases that the gRPC edge translates."""

    authentication: Authentication
    sessions: Sessions
    users: Users
    tokens: Tokens
    emergency: Emergency
    agents: Agents
    cluster: Cluster

    @classmethod
    def build(
        cls,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
        entropy: Entropy,
    ) -> Self:
        """Build every service over the same replicator, state, keys and clock."""
        authorization = Authorization(replicator=replicator, state=state, clock=clock)
        proposer = Proposer(
            replicator=replicator,
            authorization=authorization,
            sealing=sealing,
            clock=clock,
        )
        reader = Reader(
            replicator=replicator,
            state=state,
            authorization=authorization,
            clock=clock,
        )
        return cls(
            authentication=Authentication(
                replicator=replicator,
                state=state,
                sealing=sealing,
                kdf=kdf,
                clock=clock,
                entropy=entropy,
            ),
            sessions=Sessions(
                proposer=proposer,
                reader=reader,
                state=state,
                sealing=sealing,
                kdf=kdf,
                clock=clock,
            ),
            users=Users(
                proposer=proposer, reader=reader, sealing=sealing, entropy=entropy
            ),
            tokens=Tokens(
                proposer=proposer,
                reader=reader,
                sealing=sealing,
                kdf=kdf,
                clock=clock,
            ),
            emergency=Emergency(
                proposer=proposer,
                reader=reader,
                sealing=sealing,
                kdf=kdf,
                clock=clock,
                entropy=entropy,
            ),
            agents=Agents(proposer=proposer, reader=reader),
            cluster=Cluster(
                replicator=replicator,
                state=state,
                authorization=authorization,
                clock=clock,
            ),
        )
