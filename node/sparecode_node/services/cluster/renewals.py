# SPDX-License-Identifier: Apache-2.0
"""
Use case of a member with the authority's key: renew another member's certificate (P5).

The member has proved in the handshake who it is, with the certificate that expires. It
does not choose the names in the new one: it could stand in for another member. They are
those of its ticket, which are in the state. For a member that joined without one, they
are those that the authority has signed before.

The renewal is in the log, and so in the audit log, before anything is signed.
"""

import asyncio
import datetime as dt
import logging

from cryptography import x509

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import AuthorityKind
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import membership
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.links.tls import NAME_SUFFIX
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.authority_use import trusted_successor
from sparecode_node.services.cluster.joining import (
    MemberAuthority,
    fingerprint_of,
    key_of_request,
)
from sparecode_node.services.context import Deadline
from sparecode_node.services.errors import Refused, refusal
from sparecode_node.services.load.rates import PeerRates
from sparecode_node.services.proposing import applied
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import RenewCertificate

log = logging.getLogger(__name__)


class Renewals:
    """Signs new certificates for members."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        authority: MemberAuthority,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._authority = authority
        self._clock = clock
        self._entropy = entropy
        self._rates = PeerRates(clock=clock, entropy=entropy)

    def is_member(self, node_id: NodeId) -> bool:
        """Return whether a node is a current member."""
        return any(each.node_id == node_id for each in self._replicator.members())

    async def renew(
        self,
        member: NodeId,
        shown: bytes,
        certificate_request: bytes,
        *,
        new_authority: bool = False,
        timeout_s: float,
    ) -> bytes:
        """
        Return a new certificate for *member*, PEM.

        *shown*: the certificate of its handshake, PEM. *new_authority*: a successor of
        the authority signs, which every member trusts (P6a). Raises `RateError`, `Refused`
        (`AUTHORITY_MISSING`, `JOINER_CERTIFICATE`, `MEMBER_NOT_READY`, `MEMBER_REMOVED`)
        and `ProposeError`.
        """
        self._rates.renewal(member)
        deadline = Deadline(self._clock, self._clock.monotonic_s() + timeout_s)
        successor = ""
        if new_authority:
            accepted = await asyncio.to_thread(
                self._authority.accepted, AuthorityKind.MEMBERS
            )
            successor = await trusted_successor(
                self._replicator, accepted, timeout_s=deadline.left_s()
            )
        if not self._authority.can_sign(successor):
            raise _refused(
                Reason.AUTHORITY_MISSING,
                f"{self._replicator.node_id} does not have the key of the members' "
                "authority",
            )
        try:
            key = key_of_request(certificate_request)
        except ValueError:
            raise _refused(
                Reason.JOINER_CERTIFICATE, "it is not a certificate request (DER)"
            ) from None
        command = RenewCertificate(node_id=member, key_fingerprint=fingerprint_of(key))
        call = UnstampedCall.of_node(
            self._replicator.node_id, command, RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=deadline.left_s()
        )
        if isinstance(result, Rejected):
            raise refusal(result)
        await self._replicator.wait_applied(
            applied(result).index, timeout_s=deadline.left_s()
        )
        async with self._state.transaction() as transaction:
            known = await membership.nodes(transaction)
        named = [each.hosts for each in known if each.node_id == member]
        hosts = (named[0] if named else None) or hosts_in(shown)
        reach(Point.RENEWAL_RECORDED)
        now = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
        certificate = self._authority.sign(member, key, hosts, now, successor)
        log.warning("certificate_renewed", extra={"member": member})
        return certificate


def hosts_in(certificate: bytes) -> tuple[str, ...]:
    """Return the host names and addresses in a member's certificate (PEM)."""
    names = (
        x509.load_pem_x509_certificate(certificate)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    return tuple(
        name
        for name in (
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        )
        if not name.endswith(NAME_SUFFIX)
    )


def _refused(reason: Reason, words: str) -> Refused:
    return refusal(Rejected(reason, words))
