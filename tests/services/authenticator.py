# SPDX-License-Identifier: Apache-2.0
"""A browser and a security key in software, which can also do what real ones refuse."""

import hashlib
import json
import struct
from dataclasses import dataclass, field

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import bytes_to_base64url as text

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """A key with one passkey."""

    origin: str
    """The address of the page that asks."""
    count: int = 1
    """The next count of uses. 0: a synced passkey, which states none."""
    flags: int = PRESENT | VERIFIED
    cross_origin: bool = False
    domain: str = ""
    """Empty: the domain of the options."""
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def credential_id(self) -> bytes:
        """The id of the passkey, which follows from its key."""
        numbers = self.key.public_key().public_numbers()
        return hashlib.sha256(numbers.x.to_bytes(32)).digest()

    def made(self, options: str) -> str:
        """Return the answer to options of a registration."""
        parsed = json.loads(options)
        numbers = self.key.public_key().public_numbers()
        cose = cbor2.dumps(
            {
                1: 2,
                3: -7,
                -1: 1,
                -2: numbers.x.to_bytes(32),
                -3: numbers.y.to_bytes(32),
            }
        )
        data = self._data(parsed["rp"]["id"], self.flags | ATTESTED)
        data += bytes(16) + struct.pack(">H", len(self.credential_id))
        data += self.credential_id + cose
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._answer(
            clientDataJSON=self._client_data("webauthn.create", parsed["challenge"]),
            attestationObject=attestation,
        )

    def used(self, options: str) -> str:
        """Return the answer to options of a sign-in."""
        parsed = json.loads(options)
        client_data = self._client_data("webauthn.get", parsed["challenge"])
        data = self._data(parsed["rpId"], self.flags)
        signed = data + hashlib.sha256(client_data).digest()
        return self._answer(
            clientDataJSON=client_data,
            authenticatorData=data,
            signature=self.key.sign(signed, ec.ECDSA(hashes.SHA256())),
        )

    def _data(self, domain: str, flags: int) -> bytes:
        count, self.count = self.count, self.count and self.count + 1
        domain_hash = hashlib.sha256((self.domain or domain).encode()).digest()
        return domain_hash + bytes([flags]) + struct.pack(">I", count)

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps(
            {
                "type": kind,
                "challenge": challenge,
                "origin": self.origin,
                "crossOrigin": self.cross_origin,
            }
        ).encode()

    def _answer(self, **response: bytes) -> str:
        return json.dumps(
            {
                "id": text(self.credential_id),
                "rawId": text(self.credential_id),
                "type": "public-key",
                "clientExtensionResults": {},
                "response": {name: text(value) for name, value in response.items()},
            }
        )
