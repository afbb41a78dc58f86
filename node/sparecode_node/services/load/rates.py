# SPDX-License-Identifier: Apache-2.0
"""
How fast callers may have this node hash: token buckets in front of the KDF (L7, I12).

They shed before anything costs, and are this node's own: the guesses that a user
has are counted by the replicated lockout, and by nothing here. Nobody is locked
out; whoever is too fast is told when to try again.
"""

import hashlib
from array import array
from dataclasses import dataclass

from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.errors import RateError

BURST_S = 10
"""A bucket that was left alone holds so many seconds' worth."""
CELLS = 2**15
ROWS = 2
SECRET_BYTES = 16
INDEX_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What a caller may do each second, on the average of a few."""

    agent: int = 500
    """Attempts of one agent's certificate."""
    client_address: int = 20
    """Attempts that come from one address, as agents say."""
    user: int = 5
    """Attempts for one name, whoever has it and whether anybody has."""
    sign_in: int = 1
    """Passwords for one administrator's name."""
    peer: int = 5
    """Passwords from one address."""
    codes: int = 50
    """Codes that one administrator issues."""


DEFAULT_LIMITS = RateLimits()


class TokenBuckets:
    """
    A bucket for each of however many keys, in memory of one size.

    A bucket is a moment: until when it is spoken for (the virtual scheduling of
    GCRA, ITU-T I.371). It lies in one cell of each of two rows, by keyed hashes
    of the key, and the emptier cell counts. So a flood of keys evicts nobody's
    bucket; at worst, keys that share both cells are held to one rate, and nobody
    can choose with whom.
    """

    def __init__(
        self, *, per_s: int, clock: Clock, secret: bytes, cells: int = CELLS
    ) -> None:
        self._per_s = per_s
        self._clock = clock
        self._secret = secret
        self._cells = cells
        self._rows = [array("d", bytes(8 * cells)) for _ in range(ROWS)]

    @property
    def burst(self) -> int:
        """What a full bucket holds."""
        return self._per_s * BURST_S

    def take(self, key: str, cost: int = 1) -> float:
        """
        Take *cost* out of the key's bucket, and return 0.

        Where there is too little, take nothing, and return in how many seconds
        there will be enough. What costs more than a full bucket takes a full one.
        """
        now_s = self._clock.monotonic_s()
        cost_s = min(cost, self.burst) / self._per_s
        at = self._indexes(key)
        until_s = max(now_s, min(row[i] for row, i in zip(self._rows, at, strict=True)))
        wait_s = until_s + cost_s - now_s - BURST_S
        if wait_s > 0:
            return wait_s
        for row, i in zip(self._rows, at, strict=True):
            row[i] = max(row[i], until_s + cost_s)
        return 0

    def _indexes(self, key: str) -> list[int]:
        digest = hashlib.blake2b(
            key.encode(errors="replace"),
            key=self._secret,
            digest_size=ROWS * INDEX_BYTES,
        ).digest()
        return [
            int.from_bytes(digest[at : at + INDEX_BYTES]) % self._cells
            for at in range(0, len(digest), INDEX_BYTES)
        ]


class Rates:
    """The buckets of a node. Every method raises `RateError`, with a hint."""

    def __init__(
        self, limits: RateLimits = DEFAULT_LIMITS, *, clock: Clock, entropy: Entropy
    ) -> None:
        secret = entropy.token_bytes(SECRET_BYTES)

        def buckets(per_s: int) -> TokenBuckets:
            return TokenBuckets(per_s=per_s, clock=clock, secret=secret)

        self._agents = buckets(limits.agent)
        self._addresses = buckets(limits.client_address)
        self._users = buckets(limits.user)
        self._sign_ins = buckets(limits.sign_in)
        self._peers = buckets(limits.peer)
        self._codes = buckets(limits.codes)

    def attempt(self, *, agent: str, client_address: str, name_tag: bytes) -> None:
        """Let an agent ask about a passcode (L7)."""
        self._take(self._agents, "this agent", agent)
        if client_address:
            self._take(self._addresses, "this client address", client_address)
        self._take(self._users, "this user", name_tag.hex())

    def next_step(self, *, agent: str, user: str) -> None:
        """Let an agent answer a challenge; no user: it does not open (L7)."""
        self._take(self._agents, "this agent", agent)
        self._take(self._users, "this user", f"challenge of {user}")

    def sign_in(self, *, administrator: str, peer: str) -> None:
        """Let a password be tried: it waits, and is never locked out (L7)."""
        if peer:
            self._take(self._peers, "this address", peer)
        self._take(self._sign_ins, "this administrator", administrator)

    def issue(self, *, administrator: str, codes: int) -> None:
        """Let an administrator draw codes, or set a PIN, which costs as much (I12)."""
        self._take(self._codes, "this administrator", administrator, codes)

    def _take(self, buckets: TokenBuckets, whose: str, key: str, cost: int = 1) -> None:
        wait_s = buckets.take(key, cost)
        if wait_s:
            raise RateError(whose, retry_after_s=wait_s)
