# SPDX-License-Identifier: Apache-2.0
"""
What browsers sign with passkeys, and whether an answer is right (Web Authentication).

The challenge is a seal, so any node can check an answer, and nothing is stored for a
challenge without an answer. It names what it is for and the browser that asked for it:
a stolen answer is worth nothing elsewhere. The answer must come from a page of a
console, and from a device that has verified its user by PIN, finger or face.
"""

import enum
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import base64url_to_bytes
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from sparecode_node.domain.ids import AdministratorName, SessionId
from sparecode_node.domain.passkeys import (
    PASSKEY_CHALLENGE_MS,
    PasskeyAnswer,
    is_within,
)
from sparecode_node.queries.passkeys import PasskeyView
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.secrets.sealed_values import PasskeyChallenge
from sparecode_node.services.secrets.sealing import (
    BrokenSealError,
    Sealing,
)

log = logging.getLogger(__name__)

NAME = "Sparecode"
ANSWER_MAX = 16_384
"""Maximum characters of an answer."""
CREDENTIAL_ID_MAX = 1_023
PUBLIC_KEY_MAX = 1_024
ALGORITHMS = [
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]


class Purpose(enum.StrEnum):
    """What the answer to a challenge is for. The values are in the seals."""

    SIGN_IN = "sign in"
    CONFIRM = "confirm"
    REGISTER = "register"


class Asking(NamedTuple):
    """A use of passkeys by one browser. The answer to another one is not accepted."""

    purpose: Purpose
    browser: SessionId
    """The id of the browser's session; before a sign-in, the hash of its visit's secret."""


class RefusedAnswerError(Exception):
    """The answer of a passkey is not accepted. The message says why, for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRegistration:
    """A new passkey whose answer is right."""

    answer: PasskeyAnswer
    public_key: bytes


class PasskeyChecks:
    """Makes challenges for browsers, and checks their answers."""

    def __init__(
        self,
        *,
        sealing: Sealing,
        clock: Clock,
        entropy: Entropy,
        consoles: Iterable[str],
    ) -> None:
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy
        self._consoles = tuple(consoles)

    def origins(self, domain: str) -> list[str]:
        """
        Return the addresses of the consoles that can use passkeys of *domain*.

        Only configured addresses count: other hosts of the domain are not ours.
        """
        return [
            console
            for console in self._consoles
            if domain and is_within(urlsplit(console).hostname or "", domain)
        ]

    def registration(
        self,
        asking: Asking,
        name: AdministratorName,
        domain: str,
        known: Iterable[bytes],
    ) -> str:
        """Return the options with which a browser makes a passkey, as JSON."""
        # Authenticators replace the passkey of an equal user, and show no hash.
        user = hashlib.sha256(f"{self._sealing.cluster_id} {name}".encode()).digest()
        options = webauthn.generate_registration_options(
            rp_id=domain,
            rp_name=NAME,
            user_id=user,
            user_name=name,
            challenge=self._challenge(asking),
            timeout=PASSKEY_CHALLENGE_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=id_) for id_ in known
            ],
            supported_pub_key_algs=ALGORITHMS,
        )
        return webauthn.options_to_json(options)

    def request(self, asking: Asking, domain: str) -> str:
        """
        Return the options with which a browser asks for a passkey, as JSON.

        They list no passkeys, so a stranger does not learn who has one.
        """
        options = webauthn.generate_authentication_options(
            rp_id=domain,
            challenge=self._challenge(asking),
            timeout=PASSKEY_CHALLENGE_MS,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return webauthn.options_to_json(options)

    def check_registration(
        self, answer: str, asking: Asking, domain: str
    ) -> CheckedRegistration:
        """Check the answer to `registration`. Raises `RefusedAnswerError`."""
        content = _parsed(answer)
        sealed = _challenge_in(content)
        challenge = self._opened(sealed, asking)
        try:
            verified = webauthn.verify_registration_response(
                credential=content,
                expected_challenge=sealed,
                expected_rp_id=domain,
                expected_origin=self.origins(domain),
                require_user_verification=True,
                supported_pub_key_algs=ALGORITHMS,
            )
        except Exception as error:
            # Any caller can send anything, and the library's errors are not a closed list.
            raise RefusedAnswerError(str(error)) from error
        if (
            len(verified.credential_id) > CREDENTIAL_ID_MAX
            or len(verified.credential_public_key) > PUBLIC_KEY_MAX
        ):
            raise RefusedAnswerError("its id or public key is too long")
        return CheckedRegistration(
            answer=_answer(verified.credential_id, verified.sign_count, challenge),
            public_key=verified.credential_public_key,
        )

    def check(
        self,
        answer: str,
        asking: Asking,
        passkeys: Sequence[PasskeyView],
        domain: str,
    ) -> PasskeyAnswer:
        """
        Check the answer to `request`, which one of *passkeys* must have given.

        An answer that is not accepted has no credential: then apply refuses and charges
        it. Apply also decides about the count of uses and the challenge.
        """
        try:
            content = _parsed(answer)
            sealed = _challenge_in(content)
            challenge = self._opened(sealed, asking)
            passkey = _passkey_in(content, passkeys)
            try:
                verified = webauthn.verify_authentication_response(
                    credential=content,
                    expected_challenge=sealed,
                    expected_rp_id=domain,
                    expected_origin=self.origins(domain),
                    credential_public_key=passkey.public_key,
                    credential_current_sign_count=0,  # Apply decides.
                    require_user_verification=True,
                )
            except Exception as error:
                raise RefusedAnswerError(str(error)) from error
        except RefusedAnswerError as error:
            log.info("passkey not accepted", extra={"why": str(error)})
            return PasskeyAnswer()
        return _answer(passkey.credential_id, verified.new_sign_count, challenge)

    def _challenge(self, asking: Asking) -> bytes:
        """Return a sealed challenge, which is also unpredictable."""
        challenge = PasskeyChallenge(
            challenge_id=f"passkey {self._entropy.uuid()}",
            purpose=asking.purpose.value,
            browser=asking.browser,
            ends_at_ms=self._clock.now_ms() + PASSKEY_CHALLENGE_MS,
        )
        return self._sealing.seal_passkey_challenge(challenge)

    def _opened(self, sealed: bytes, asking: Asking) -> PasskeyChallenge:
        try:
            challenge = self._sealing.unseal_passkey_challenge(sealed)
        except (BrokenSealError, TypeError):
            # `TypeError`: a later release may add a field.
            raise RefusedAnswerError("its challenge is not of this cluster") from None
        if (challenge.purpose, challenge.browser) != asking:
            raise RefusedAnswerError(
                "its challenge was made for another browser or purpose"
            )
        return challenge


def _parsed(answer: str) -> dict[str, Any]:
    """Return the answer's JSON object."""
    if len(answer) > ANSWER_MAX:
        raise RefusedAnswerError("it is too long")
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RefusedAnswerError("it is no JSON object")
    return content


def _challenge_in(content: dict[str, Any]) -> bytes:
    """Return the challenge that the browser has signed, from a page of its own."""
    try:
        client_data = json.loads(
            base64url_to_bytes(content["response"]["clientDataJSON"])
        )
        if client_data.get("crossOrigin") or client_data.get("topOrigin"):
            raise RefusedAnswerError("the page was inside another site's page")
        return base64url_to_bytes(client_data["challenge"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise RefusedAnswerError("its client data is malformed") from None


def _passkey_in(
    content: dict[str, Any], passkeys: Sequence[PasskeyView]
) -> PasskeyView:
    """Return the passkey that the answer names."""
    try:
        credential_id = base64url_to_bytes(content["id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        credential_id = b""
    for passkey in passkeys:
        if passkey.credential_id == credential_id:
            return passkey
    raise RefusedAnswerError("it is no passkey of this administrator")


def _answer(
    credential_id: bytes, sign_count: int, challenge: PasskeyChallenge
) -> PasskeyAnswer:
    return PasskeyAnswer(
        credential_id=credential_id,
        sign_count=sign_count,
        challenge_id=challenge.challenge_id,
        challenge_ends_at_ms=challenge.ends_at_ms,
    )
