# SPDX-License-Identifier: Apache-2.0
"""
Hashes are those of Argon2id as RFC 9106 describes it, and of release 0.1.0 (T3).

libsodium offers neither four lanes nor a secret key, so it cannot compute the vectors
of RFC 9106. argon2-cffi does, and both compute the same hash of any other input.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from argon2.low_level import Type, core, ffi, hash_secret_raw
from argon2.low_level import lib as argon2
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.services.secrets.kdf import (
    PRODUCTION,
    TESTING,
    Argon2Parameters,
    KdfInput,
    Secret,
    hashed,
)

TEXTS = (
    "",
    "0",
    "1234",
    "K7PM4XQ2",
    "null\0byte",
    "\0",
    "Grüße, Ελλάδα, 東京, \N{KEY}\N{ZERO WIDTH JOINER}",
    "e\N{COMBINING ACUTE ACCENT}",
    "half a pair: \ud83d",
    *("x" * length for length in (63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 65_536)),
)
SALTS = (bytes(16), b"\xff" * 16, bytes(range(16)))
COSTS = (
    TESTING,
    Argon2Parameters(memory_kib=9, passes=1),
    Argon2Parameters(memory_kib=15, passes=4),
    Argon2Parameters(memory_kib=64, passes=3),
    Argon2Parameters(memory_kib=1027, passes=2),
)

PASSWORD = "Grüße aus Köln"
WRITTEN_BY_0_1_0 = [
    (
        PRODUCTION,
        Secret.PIN,
        "4711",
        "3ae3df708314e59e058b0f86c7cd0a55860366de09d57ca7823e5a02eccd191e",
    ),
    (
        PRODUCTION,
        Secret.CODE,
        "K7PM4XQ2",
        "6b10cbbc4c64e01f168a10117437652f4f722764d9b7801ed05ee2a7bdbab9da",
    ),
    (
        PRODUCTION,
        Secret.PASSWORD,
        PASSWORD,
        "202d3936a856ad97d1d16713ac8d5292c6aab0d40e90c2242ad1cdca9c9e56b2",
    ),
    (
        TESTING,
        Secret.PIN,
        "4711",
        "ca3261bbe9de1fb4ef44d68dda33838a084e0df6da7de670076f727ca840d5ee",
    ),
    (
        TESTING,
        Secret.CODE,
        "K7PM4XQ2",
        "7e9ad1d7bc7b9614384fdf1fa24c81586a038431be9f56ccf25f584d25939917",
    ),
    (
        TESTING,
        Secret.PASSWORD,
        PASSWORD,
        "98180dde49800359a193ff4011326b25973bc88900b0440bc58ff17bc843b0b1",
    ),
]
"""Printed by the `hashed` of release 0.1.0, with the salt 00 01 ... 0f."""


def reference(profile: Argon2Parameters, each: KdfInput) -> bytes:
    """Return what release 0.1.0 computes: its words, with its library."""
    return hash_secret_raw(
        secret=b"sparecode/"
        + each.secret.encode()
        + b"\0"
        + each.text.encode(errors="replace"),
        salt=each.salt,
        time_cost=profile.passes,
        memory_cost=profile.memory_kib,
        parallelism=1,
        hash_len=32,
        type=Type.ID,
    )


def differing(
    profiles: Sequence[Argon2Parameters], inputs: Sequence[KdfInput]
) -> list[tuple[Argon2Parameters, KdfInput]]:
    """Return the inputs whose hash is another one than that of argon2-cffi."""
    return [
        (profile, each)
        for profile, each in product(profiles, inputs)
        if hashed(profile, each) != reference(profile, each)
    ]


def inputs_of(texts: Sequence[str]) -> list[KdfInput]:
    return [
        KdfInput(secret=secret, salt=salt, text=text)
        for secret, salt, text in product(Secret, SALTS, texts)
    ]


def test_argon2_cffi_computes_the_vector_of_the_rfc() -> None:
    """RFC 9106, section 5.3: four lanes, a secret key, and associated data."""
    password, salt, key, data = (
        bytes([value]) * length for value, length in ((1, 32), (2, 16), (3, 8), (4, 12))
    )
    held = [ffi.new("uint8_t[]", each) for each in (password, salt, key, data)]
    out = ffi.new("uint8_t[]", 32)
    context = ffi.new(
        "argon2_context *",
        {
            "out": out,
            "outlen": 32,
            "pwd": held[0],
            "pwdlen": len(password),
            "salt": held[1],
            "saltlen": len(salt),
            "secret": held[2],
            "secretlen": len(key),
            "ad": held[3],
            "adlen": len(data),
            "t_cost": 3,
            "m_cost": 32,
            "lanes": 4,
            "threads": 4,
            "version": 0x13,
            "allocate_cbk": ffi.NULL,
            "free_cbk": ffi.NULL,
            "flags": argon2.ARGON2_DEFAULT_FLAGS,
        },
    )
    assert core(context, Type.ID.value) == argon2.ARGON2_OK
    assert bytes(ffi.buffer(out)).hex() == (
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    )


def test_both_libraries_compute_the_same_hashes() -> None:
    assert not differing(COSTS, inputs_of(TEXTS))


def test_both_libraries_compute_the_same_hashes_in_production() -> None:
    assert not differing([PRODUCTION], inputs_of(("4711", "Grüße"))[::5])


@given(
    text=st.text(st.characters(), max_size=300),
    salt=st.binary(min_size=16, max_size=16),
    secret=st.sampled_from(Secret),
    memory_kib=st.integers(8, 80),
    passes=st.integers(1, 3),
)
def test_both_libraries_compute_the_same_hash_of_any_input(
    text: str, salt: bytes, secret: Secret, memory_kib: int, passes: int
) -> None:
    each = KdfInput(secret=secret, salt=salt, text=text)
    assert not differing(
        [Argon2Parameters(memory_kib=memory_kib, passes=passes)], [each]
    )


@pytest.mark.parametrize(("profile", "secret", "text", "written"), WRITTEN_BY_0_1_0)
def test_hashes_that_release_0_1_0_wrote_are_computed_again(
    profile: Argon2Parameters, secret: Secret, text: str, written: str
) -> None:
    """Users have these verifiers, so they hold whatever library computes them."""
    each = KdfInput(secret=secret, salt=bytes(range(16)), text=text)
    assert hashed(profile, each).hex() == written


def test_threads_and_forked_processes_compute_the_same_hashes() -> None:
    inputs = inputs_of(TEXTS[:6])
    alone = [hashed(TESTING, each) for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: hashed(TESTING, each), inputs * 4))
    assert together == alone * 4
    # In a process of its own: this one has threads, and must not fork.
    forking = """
import os, sys
from sparecode_node.services.secrets.kdf import PRODUCTION, KdfInput, Secret, hashed
def show():
    each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
    os.write(1, hashed(PRODUCTION, each).hex().encode() + b"\\n")
show()
child = os.fork()
show()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
    shown = python(forking).split()
    each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
    assert shown == [hashed(PRODUCTION, each).hex()] * 3


def test_the_interpreter_runs_while_a_hash_is_computed() -> None:
    """Otherwise no heartbeat and no answer would leave a node while it hashes."""
    each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
    deadline = time.monotonic() + 120
    took_s: list[float] = []

    def hash_it() -> None:
        began = time.perf_counter()
        hashed(PRODUCTION, each)
        took_s.append(time.perf_counter() - began)

    while True:
        took_s.clear()
        # The longest time that this thread was kept from running.
        kept_s, last = 0.0, time.perf_counter()
        thread = threading.Thread(target=hash_it)
        thread.start()
        ended = False
        while not ended:
            ended = bool(took_s)
            now = time.perf_counter()
            kept_s, last = max(kept_s, now - last), now
        thread.join()
        # A busy machine may keep it, too, but not each time.
        if kept_s < took_s[0] / 2:
            break
        assert time.monotonic() < deadline, (kept_s, took_s)


def test_a_hash_without_memory_is_an_error_and_the_next_one_is_right() -> None:
    limited = """
import resource
from sparecode_node.services.secrets.kdf import PRODUCTION, KdfInput, Secret, hashed
each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
usual = resource.getrlimit(resource.RLIMIT_AS)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(
    resource.RLIMIT_AS, (pages * resource.getpagesize() + 10 * 2**20, usual[1])
)
try:
    hashed(PRODUCTION, each)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, usual)
print(hashed(PRODUCTION, each).hex())
"""
    each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
    assert python(limited).splitlines() == [
        "no 19456 KiB for a hash",
        hashed(PRODUCTION, each).hex(),
    ]


@pytest.mark.parametrize("length", [0, 8, 15, 17, 32])
def test_a_salt_of_another_length_is_refused(length: int) -> None:
    """A salt that is cut or padded would give a verifier that no release accepts."""
    each = KdfInput(secret=Secret.PIN, salt=bytes(length), text="4711")
    with pytest.raises(ValueError, match="salt must be exactly 16 bytes"):
        hashed(TESTING, each)


def python(code: str) -> str:
    """Run code in a process of its own; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
