# SPDX-License-Identifier: Apache-2.0
"""
Encryption of files that leave the cluster, in the format of `age` (age-encryption.org/v1).

X25519, HKDF-SHA-256 and ChaCha20-Poly1305 in chunks; or a passphrase, by scrypt. The
format is documented and has other implementations: years from now, an operator can open
a backup or a recovery bundle with `age` alone.
"""

import os
from collections.abc import Iterable, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

import pyrage

from sparecode_node.services.secrets.keyring import forbidden_bits

IDENTITY_PREFIX = "AGE-SECRET-KEY-"
KEY_FILE_BYTES_MAX = 65_536


class AgeError(Exception):
    """A file cannot be encrypted or opened. The message gives the reason; it quotes no key."""


class _Pieces:
    """
    A file that is read and written by Python code.

    The library holds Python's global lock while it computes. Between the pieces that
    it reads and writes, other threads get the lock: above all the engine's.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return *size* bytes, or fewer at the end."""
        return self._file.read(size)

    def write(self, data: bytes) -> int:
        """Write all of *data*."""
        return self._file.write(data)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def new_identity() -> tuple[str, str]:
    """Draw a key pair; return the secret and the public key in age's notation."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_problem(recipient: str) -> str:
    """Return what is wrong with a public key. Empty: nothing."""
    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        return str(error) or "not an age public key"
    return ""


def encrypt(source: Path, target: Path, recipients: Sequence[str]) -> None:
    """Encrypt a file to the holders of the *recipients*' keys. Raises `AgeError`."""
    try:
        keys = [pyrage.x25519.Recipient.from_str(each) for each in recipients]
        with source.open("rb") as plain, target.open("xb") as sealed:
            pyrage.encrypt_io(_python_file(plain), _python_file(sealed), keys)
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        raise AgeError(f"it cannot be encrypted: {error}") from None


def decrypt(sealed: IO[bytes], plain: IO[bytes], identities: Sequence[str]) -> None:
    """Decrypt with the one of *identities* that it was encrypted to. Raises `AgeError`."""
    try:
        keys = [pyrage.x25519.Identity.from_str(each) for each in identities]
        pyrage.decrypt_io(_python_file(sealed), _python_file(plain), keys)
    except pyrage.IdentityError:
        raise AgeError("the key file contains a line that is not an age key") from None
    except pyrage.DecryptError as error:
        raise AgeError(
            f"it does not open ({error}): it is damaged, or encrypted to another key"
        ) from None
    except OSError as error:
        # The library raises this error for a damaged chunk.
        raise AgeError(f"it does not open: {error}") from None


def encrypt_bytes(plain: bytes, recipients: Iterable[str]) -> bytes:
    """Encrypt a few bytes to the holders of the *recipients*' keys."""
    try:
        keys = [pyrage.x25519.Recipient.from_str(each) for each in recipients]
        return pyrage.encrypt(plain, keys)
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        raise AgeError(f"it cannot be encrypted: {error}") from None


def encrypt_with_passphrase(plain: bytes, passphrase: str) -> bytes:
    """Encrypt a few bytes under a passphrase. This takes seconds on purpose."""
    return pyrage.passphrase.encrypt(plain, passphrase)


def decrypt_bytes(
    sealed: bytes, *, identities: Sequence[str] = (), passphrase: str = ""
) -> bytes:
    """Decrypt with a key or the passphrase. Raises `AgeError`."""
    try:
        if passphrase:
            return pyrage.passphrase.decrypt(sealed, passphrase)
        keys = [pyrage.x25519.Identity.from_str(each) for each in identities]
        return pyrage.decrypt(sealed, keys)
    except pyrage.IdentityError:
        raise AgeError("the key file contains a line that is not an age key") from None
    except pyrage.DecryptError as error:
        raise AgeError(
            f"it does not open ({error}): it is damaged, or the key or passphrase is "
            "another one"
        ) from None


def read_identities(path: Path) -> tuple[str, ...]:
    """Return the secret keys of a key file that only its owner may read. Raises `AgeError`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & forbidden_bits(status.st_uid, os.geteuid()):
                raise AgeError(f"{path}: other users have access; chmod 600 {path}")
            lines = file.read(KEY_FILE_BYTES_MAX).decode("ascii").split()
    except OSError as error:
        raise AgeError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise AgeError(f"{path}: not an age key file") from None
    identities = tuple(line for line in lines if line.startswith(IDENTITY_PREFIX))
    if not identities:
        raise AgeError(f"{path}: contains no age key ({IDENTITY_PREFIX}...)")
    return identities


def _python_file(file: IO[bytes]) -> BufferedIOBase:
    # The library only reads, writes and flushes the file.
    return cast("BufferedIOBase", _Pieces(file))
