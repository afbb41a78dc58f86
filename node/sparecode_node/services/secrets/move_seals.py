# SPDX-License-Identifier: Apache-2.0
"""
The secrets of a move of users, and seals that go from one key ring to another.

The secrets follow from the ring and the id of the move, so neither log nor state has
them. Pieces of an export are encrypted by HPKE (RFC 9180) for the target, and signed by
the source: else anyone who reads a ticket could write an export with a PIN of their own.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from sparecode_node.domain.ids import AdministratorName, KeyId, RequestId, UserId
from sparecode_node.domain.moves import MoveState, MoveTicket
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.sealing import (
    CODE_TAG_BYTES,
    FORMER_CODE,
    Sealing,
)

MOVE_ID: Final = "move-id"
EXPORT: Final = "move-export"
RECEIPT: Final = "move-receipt"
SIGNATURE: Final = "move-signature"

KEY_BYTES = 32
MOVE_ID_DIGITS = 32

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class BrokenPieceError(Exception):
    """A piece of an export is of another move or source, or was altered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPiece:
    """One piece of an export, encrypted for the target and signed by the source."""

    move_id: str
    number: int
    chain: bytes
    """The hash over the contents of all pieces up to this one."""
    last: bool
    sealed: bytes = field(repr=False)
    signature: bytes


def next_chain(chain: bytes, content: bytes) -> bytes:
    """Return the hash over the contents of the pieces up to this *content*."""
    return sha256(chain + sha256(content).digest()).digest()


class MoveSeals(Sealing):
    """What a cluster needs of its ring to move users."""

    def move_id(self, name: AdministratorName, request_id: RequestId) -> str:
        """Return the id of a new move: a retry of the request gets the same one."""
        message = f"{name}\0{request_id}".encode()
        return self._mac(MOVE_ID, message, self.active_key).hex()[:MOVE_ID_DIGITS]

    def public_key(self, move_id: str, key_id: KeyId) -> bytes:
        """Return the key that an export to this cluster is encrypted for."""
        return self._export_key(move_id, key_id).public_key().public_bytes_raw()

    def receipt(self, move_id: str, state: MoveState, key_id: KeyId) -> bytes:
        """Return the secret that proves an end of a move. Show it after the commit."""
        return self._mac(RECEIPT, f"{move_id}\0{state}".encode(), key_id)

    def signature_key(self, key_id: KeyId) -> bytes:
        """Return the public key that verifies exports of this cluster."""
        return self._signing_key(key_id).public_key().public_bytes_raw()

    def seal_piece(
        self,
        ticket: MoveTicket,
        content: bytes,
        *,
        number: int,
        chain: bytes,
        last: bool,
    ) -> SealedPiece:
        """Encrypt a piece for the target of a move, and sign it."""
        sealed = _SUITE.encrypt(
            content,
            X25519PublicKey.from_public_bytes(ticket.public_key),
            _bound(ticket, number),
        )
        signed = _signed(ticket, number, chain, sealed, last=last)
        return SealedPiece(
            move_id=ticket.move_id,
            number=number,
            chain=chain,
            last=last,
            sealed=sealed,
            signature=self._signing_key(KeyId(ticket.source_key_id)).sign(signed),
        )

    def verify_piece(
        self, ticket: MoveTicket, piece: SealedPiece, *, source_key: bytes
    ) -> None:
        """
        Check that the source has written a piece for this move.

        The signature covers all of it but the content, which is encrypted: the number,
        the chain, and whether it is the last one. Raises `BrokenPieceError`.
        """
        signed = _signed(
            ticket, piece.number, piece.chain, piece.sealed, last=piece.last
        )
        try:
            Ed25519PublicKey.from_public_bytes(source_key).verify(
                piece.signature, signed
            )
        except (InvalidSignature, ValueError):
            raise _broken(piece) from None

    def open_piece(
        self,
        ticket: MoveTicket,
        piece: SealedPiece,
        *,
        key_id: KeyId,
        source_key: bytes,
    ) -> bytes:
        """Return the content of a piece. Raises `BrokenPieceError`, `UnknownKeyError`."""
        self.verify_piece(ticket, piece, source_key=source_key)
        key = self._export_key(ticket.move_id, key_id)
        try:
            return _SUITE.decrypt(piece.sealed, key, _bound(ticket, piece.number))
        except (InvalidTag, ValueError):
            raise _broken(piece) from None

    def hash_in(
        self, verifier: bytes, key_id: KeyId, secret: Secret, *belongs_to: str
    ) -> bytes:
        """Return the hash in a verifier. Raises `BrokenSealError`, `UnknownKeyError`."""
        return self._hash_in(verifier, key_id, secret, *belongs_to)

    def hashes_in(self, tags: bytes, user: UserId, key_id: KeyId) -> list[bytes]:
        """Return what the tags of a former set have of the hashes of its codes."""
        return [
            self._opened(
                key_id,
                FORMER_CODE,
                tags[start : start + CODE_TAG_BYTES],
                [FORMER_CODE, user],
            )
            for start in range(0, len(tags), CODE_TAG_BYTES)
        ]

    def _export_key(self, move_id: str, key_id: KeyId) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(
            self._mac(EXPORT, move_id.encode(), key_id)
        )

    def _signing_key(self, key_id: KeyId) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(
            self.ring.subkey(key_id, SIGNATURE)[:KEY_BYTES]
        )


def _broken(piece: SealedPiece) -> BrokenPieceError:
    return BrokenPieceError(f"piece {piece.number} is not of this move, or was altered")


def _bound(ticket: MoveTicket, number: int) -> bytes:
    """Return what a piece is bound to: it opens as no other one."""
    return (
        f"sparecode/v1/move\0{ticket.move_id}\0{ticket.source}\0{ticket.target}\0"
        f"{ticket.first_slot}\0{ticket.last_slot}\0{number}\0"
        f"{'same' if ticket.same_administrators else 'other'} administrators"
    ).encode()


def _signed(
    ticket: MoveTicket, number: int, chain: bytes, sealed: bytes, *, last: bool
) -> bytes:
    ends = b"last" if last else b"more"
    return b"\0".join(
        (_bound(ticket, number), ends, chain.hex().encode(), sha256(sealed).digest())
    )
