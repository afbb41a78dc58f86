# SPDX-License-Identifier: Apache-2.0
"""
Use case of a member with the authority's key: renew another member's certificate (P5).

The member has proved in the handshake who it is, with the certificate that expires. The
new one has the same names: a member that could choose them could stand in for another.
"""

import datetime as dt
import logging

from cryptography import x509

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.links.tls import NAME_SUFFIX
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock
from sparecode_node.services.cluster.joining import MemberAuthority, key_of_request
from sparecode_node.services.errors import Refused, refusal

log = logging.getLogger(__name__)


class Renewals:
    """Signs new certificates for members."""

    def __init__(
        self, *, replicator: Replicator, authority: MemberAuthority, clock: Clock
    ) -> None:
        self._replicator = replicator
        self._authority = authority
        self._clock = clock

    def is_member(self, node_id: NodeId) -> bool:
        """Return whether a node is a current member."""
        return any(each.node_id == node_id for each in self._replicator.members())

    def renew(self, member: NodeId, shown: bytes, certificate_request: bytes) -> bytes:
        """
        Return a new certificate for *member*, PEM, with the names of the one it showed.

        *shown* is PEM. Raises `Refused` (`AUTHORITY_MISSING`, `JOINER_CERTIFICATE`).
        """
        if not self._authority.can_sign():
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
        now = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
        certificate = self._authority.sign(member, key, hosts_in(shown), now)
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
