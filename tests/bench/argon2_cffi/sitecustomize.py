# SPDX-License-Identifier: Apache-2.0
"""
Make a node hash by argon2-cffi: with this folder in PYTHONPATH, before its other modules.

`tests.bench.hashing` compares both libraries with it. No node reads this elsewhere.
"""

from argon2.low_level import Type, hash_secret_raw
from nacl.pwhash import argon2id


def kdf(
    size: int, password: bytes, salt: bytes, *, opslimit: int, memlimit: int
) -> bytes:
    """Return the hash that libsodium would compute."""
    return hash_secret_raw(
        secret=password,
        salt=salt,
        time_cost=opslimit,
        memory_cost=memlimit // 1024,
        parallelism=1,
        hash_len=size,
        type=Type.ID,
    )


argon2id.kdf = kdf
