# SPDX-License-Identifier: Apache-2.0
"""
Use case of a member: admit a node that shows its ticket (P5).

The joiner has proved in the TLS handshake that it holds the ticket; now it shows its
key. One command uses up the ticket and records the node. Only after its commit is a
certificate signed, and the key ring wrapped for that key alone.
"""

import datetime as dt
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import (
    AuthorityKey,
    AuthorityKind,
    Successor,
    certificate_hosts,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import membership
from sparecode_node.queries.membership import TicketTerms
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.members import MEMBER_URI, Member
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import Deadline
from sparecode_node.services.errors import InvalidFieldError, Refused, refusal
from sparecode_node.services.idempotency import content_of
from sparecode_node.services.load.rates import PeerRates
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.secrets.tickets import is_signed
from sparecode_node.services.secrets.wrapping import MemberSecrets, can_wrap, wrap
from sparecode_node.statemachine.commands import RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.membership import AdmitNode
from sparecode_node.statemachine.handlers.membership import ticket_id_of

JOIN = "JoiningService/Join"


class MemberAuthority(Protocol):
    """The authorities and keys of this node that make a new member."""

    def members_ca(self) -> bytes:
        """Return the members' authorities, PEM."""

    def agents_ca(self) -> bytes:
        """Return the agents' authorities, PEM."""

    def can_sign(self, successor: str = "") -> bool:
        """
        Return whether this node holds the key of the members' authority.

        *successor*: the fingerprint of one of its successors instead.
        """

    def sign(
        self,
        node_id: NodeId,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: dt.datetime,
        successor: str = "",
    ) -> bytes:
        """Return a member's certificate, PEM. *successor*: see `can_sign`."""

    def keys(self) -> tuple[AuthorityKey, ...]:
        """Return the authorities whose keys this node holds."""

    def accepted(self, kind: AuthorityKind) -> tuple[Successor, ...]:
        """Return the successors whose proof this node has checked, the earliest first."""

    def secrets(self, *, with_authority: bool) -> MemberSecrets:
        """Return the key ring, and *with_authority* the authorities' keys, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """The request of a joining node."""

    ticket_certificate: bytes
    """The certificate from its handshake, DER."""
    request_id: str
    address: str
    certificate_request: bytes = b""
    """DER; empty: the node already has a certificate."""
    certificate: bytes = b""
    """DER."""
    hosts: tuple[str, ...] = ()
    ticket_signature: bytes = b""
    """By the ticket's key, over `signed_content`; empty: a joiner of release 0.1.0."""
    passed_on_by: NodeId | None = None
    """The member that the joiner has called; None: it has called this node."""

    def signed_content(self) -> bytes:
        """Return what the ticket's key signs: no member can make up a request."""
        return b"sparecode/v1/join-request\0" + content_of(
            {
                "request_id": self.request_id,
                "address": self.address,
                "certificate_request": self.certificate_request,
                "certificate": self.certificate,
                "hosts": self.hosts,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinGrant:
    """What a joining node receives."""

    cluster_id: str
    certificate: bytes
    """PEM; empty: the node already has one."""
    members_ca: bytes
    agents_ca: bytes
    wrapped: bytes = field(repr=False)
    members: tuple[tuple[NodeId, str], ...]


PassOn = Callable[[Joiner, Sequence[Member], float], Awaitable[JoinGrant | None]]
"""
Passes a joiner's request on to the members, with a timeout in seconds.

Returns the answer of the first one that has the authority's key, or None.
"""


async def to_nobody(*_: object) -> None:
    """Pass a request on to no member."""


class Admissions:
    """Admits nodes on behalf of the cluster."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        authority: MemberAuthority,
        refusals: Refusals,
        clock: Clock,
        entropy: Entropy,
        pass_on: PassOn = to_nobody,
    ) -> None:
        self._rates = PeerRates(clock=clock, entropy=entropy)
        self._pass_on = pass_on
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._authority = authority
        self._refusals = refusals
        self._clock = clock

    async def admit(self, joiner: Joiner, *, timeout_s: float) -> JoinGrant:
        """
        Use up the ticket, and return what makes the node a member.

        If the authority's key is needed and this node lacks it, the request goes to
        the other members: the first one that has the key admits the joiner.

        A retry with the same key and address succeeds while the ticket is valid: the
        first answer may be lost. Raises `InvalidFieldError`, `RateError`, `Refused` and
        `ProposeError`; then nothing is changed.
        """
        self._rates.join(ticket_id_of(joiner.ticket_certificate))
        deadline = Deadline(self._clock, self._clock.monotonic_s() + timeout_s)
        request_id, original = fields.request_id(joiner.request_id), joiner
        joiner = replace(joiner, address=fields.address("address", joiner.address))
        if len(joiner.hosts) > fields.HOSTS_MAX:
            raise InvalidFieldError("hosts", f"at most {fields.HOSTS_MAX}")
        # Check before using up the ticket: afterwards no certificate could be signed.
        joiner = replace(
            joiner, hosts=tuple(fields.host("hosts", each) for each in joiner.hosts)
        )
        ticket_id = ticket_id_of(joiner.ticket_certificate)
        await self._replicator.read_barrier(timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            terms = await membership.ticket_terms(transaction, ticket_id)
            known = await membership.nodes(transaction)
        key = None
        if terms is not None:
            joiner = replace(joiner, hosts=self._hosts(joiner, terms))
            key = self._key_of(joiner, terms.node_id)
            if self._lacks_authority(joiner, terms):
                return await self._passed_on(original, terms, deadline)
            # Apply refuses a node that was removed, and records the refusal.
            if all(node.node_id != terms.node_id for node in known):
                self._check_new(terms.node_id, joiner.address)
        await self._admit(
            AdmitNode(
                ticket_id=ticket_id,
                address=joiner.address,
                key_fingerprint=fingerprint_of(key) if key else "",
                authorities=self._authority.keys()
                if terms is not None and terms.with_authority
                else (),
            ),
            request_id,
            deadline,
        )
        reach(Point.JOIN_ADMITTED)
        if terms is None or key is None:
            raise TypeError("an unknown ticket was accepted")
        return self._admission(joiner, terms, key)

    def _hosts(self, joiner: Joiner, terms: TicketTerms) -> tuple[str, ...]:
        """
        Return the hosts for the joiner's certificate: those of the ticket.

        A joiner that chose its own could stand in for another node's address. Raises
        `InvalidFieldError` if the joiner asks for another one.
        """
        if terms.address is None:
            return joiner.hosts
        allowed = certificate_hosts(terms.address, terms.hosts)
        for host in joiner.hosts:
            if host not in allowed:
                raise InvalidFieldError(
                    "hosts",
                    f"the ticket is not for {host}: create one that is, with --host",
                )
        return allowed

    def _key_of(self, joiner: Joiner, node_id: NodeId) -> ec.EllipticCurvePublicKey:
        """Return the joiner's key, if its certificate can be a member's."""
        try:
            key = (
                self._key_of_certificate(joiner.certificate, node_id)
                if joiner.certificate
                else key_of_request(joiner.certificate_request)
            )
        except ValueError:
            raise self._noted(
                _unfit("it is not a certificate (DER)"), node_id
            ) from None
        except Refused as refused:
            raise self._noted(refused, node_id) from None
        return key

    def _lacks_authority(self, joiner: Joiner, terms: TicketTerms) -> bool:
        """Return whether this node lacks an authority's key that the joiner needs."""
        needed = terms.with_authority or not joiner.certificate
        return needed and not self._authority.can_sign()

    async def _passed_on(
        self, joiner: Joiner, terms: TicketTerms, deadline: Deadline
    ) -> JoinGrant:
        """Return another member's answer. Raises `Refused` if none has the key."""
        own = self._replicator.node_id
        if joiner.passed_on_by is None and joiner.ticket_signature:
            others = [m for m in self._replicator.members() if m.node_id != own]
            answer = await self._pass_on(joiner, others, deadline.left_s())
            if answer is not None:
                return answer
        raise self._noted(
            refusal(
                Rejected(
                    Reason.AUTHORITY_MISSING,
                    f"{own} does not have the key of the members' authority",
                )
            ),
            terms.node_id,
        )

    def passes_on(self, joiner: Joiner, member: NodeId) -> bool:
        """Return whether *member* may pass on this request, which the ticket's key signs."""
        return any(
            each.node_id == member for each in self._replicator.members()
        ) and is_signed(
            joiner.signed_content(), joiner.ticket_signature, joiner.ticket_certificate
        )

    def _key_of_certificate(
        self, content: bytes, node_id: NodeId
    ) -> ec.EllipticCurvePublicKey:
        certificate = x509.load_der_x509_certificate(content)
        authorities = x509.load_pem_x509_certificates(self._authority.members_ca())
        if not any(_signed(certificate, each) for each in authorities):
            raise _unfit("it is not signed by the members' authority of this cluster")
        names = _member_names(certificate)
        if names != [f"{MEMBER_URI}{node_id}"]:
            raise _unfit(
                f"the ticket is for {node_id}, and the certificate for "
                f"{', '.join(names) or 'no member'}"
            )
        now = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
        if (
            not certificate.not_valid_before_utc
            <= now
            < certificate.not_valid_after_utc
        ):
            raise _unfit("it is not valid now")
        return _usable(certificate.public_key())

    def _check_new(self, node_id: NodeId, address: str) -> None:
        """Refuse the id or address of a member that the state has no row of."""
        for member in self._replicator.members():
            if member.node_id == node_id:
                words = f"{node_id} is already a member"
            elif member.address == address:
                words = f"{address} is the address of {member.node_id}"
            else:
                continue
            raise self._noted(refusal(Rejected(Reason.MEMBER_EXISTS, words)), node_id)

    def _noted(self, refused: Refused, node_id: NodeId) -> Refused:
        """Record a refusal that apply has not seen, for the audit log (U1)."""
        reason = refused.rejected.reason.value
        self._refusals.record(JOIN, reason, f"joiner:{node_id}")
        return refused

    async def _admit(
        self, command: AdmitNode, request_id: RequestId, deadline: Deadline
    ) -> None:
        tag, *other_tags = self._sealing.request_tags(
            JOIN,
            content_of({"address": command.address, "key": command.key_fingerprint}),
        )
        call = UnstampedCall(
            command=command,
            request=RequestKey(
                caller=f"joiner:{command.ticket_id}",
                method=JOIN,
                request_id=request_id,
                tag=tag,
                other_tags=tuple(other_tags),
            ),
            node_id=self._replicator.node_id,
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=deadline.left_s()
        )
        if isinstance(result, Rejected):
            raise refusal(result)

    def _admission(
        self, joiner: Joiner, terms: TicketTerms, key: ec.EllipticCurvePublicKey
    ) -> JoinGrant:
        authority, cluster_id = self._authority, self._sealing.cluster_id
        node_id = terms.node_id
        certificate = b""
        if not joiner.certificate:
            now = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
            certificate = authority.sign(node_id, key, joiner.hosts, now)
        return JoinGrant(
            cluster_id=cluster_id,
            certificate=certificate,
            members_ca=authority.members_ca(),
            agents_ca=authority.agents_ca(),
            wrapped=wrap(
                authority.secrets(with_authority=terms.with_authority),
                key,
                cluster_id=cluster_id,
                node_id=node_id,
            ),
            members=tuple(
                (member.node_id, member.address)
                for member in self._replicator.members()
            ),
        )


def key_of_request(content: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a certificate request. Raises `ValueError` and `Refused`."""
    request = x509.load_der_x509_csr(content)
    if not request.is_signature_valid:
        raise _unfit("the certificate request is not signed by its key")
    return _usable(request.public_key())


def _usable(key: object) -> ec.EllipticCurvePublicKey:
    if not (isinstance(key, ec.EllipticCurvePublicKey) and can_wrap(key)):
        raise _unfit(
            "the key ring can only be wrapped for keys on the curves P-256, P-384 and "
            "P-521; for another key, copy the ring yourself and use: sparecode cluster add"
        )
    return key


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _member_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return [uri for uri in uris if uri.startswith(MEMBER_URI)]


def fingerprint_of(key: PublicKeyTypes) -> str:
    """Return the SHA-256 of a public key, in hexadecimal digits."""
    return hashlib.sha256(
        key.public_bytes(
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
    ).hexdigest()


def _unfit(words: str) -> Refused:
    return refusal(
        Rejected(Reason.JOINER_CERTIFICATE, f"the joiner's certificate: {words}")
    )
