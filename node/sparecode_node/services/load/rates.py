# SPDX-License-Identifier: Apache-2.0
"""
Rates of callers: token buckets before the KDF and before the log (L7, I12, Q3).

They shed calls before any expensive work. Each node has its own buckets: guesses are
counted by the replicated lockout, not here. A rate is no lock: a caller that
exceeds it learns when to try again.
"""

import hashlib
from array import array
from dataclasses import dataclass

from sparecode_node.domain.caller_addresses import source_of
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.errors import RateError

BURST_S = 10
"""A full bucket holds this many seconds' worth."""
COSTLY_READ = 500
"""
A costly read counts as this many calls of a session.

With the default of 100 a second, an administrator has two at once, and one every 5 s.
"""
POLL_COST = 4
"""
A poll of a sign-in counts as this many passwords.

With the default of 1 a second, a program has two at once, and one every 4 s. It is told
to wait 5 s.
"""
THIS_AGENT = "this agent"
"""Whose rate it is, in a `RateError` about all attempts of one agent."""
UNSIGNED_PER_S = 20
"""Unsigned requests of one RADIUS client that are judged."""
COPIES_PER_S = 50
"""Copies of decided requests of one RADIUS client that are answered."""
TRANSFER_COST = 2
"""A transfer costs this much: each one interrupts calls for a moment."""
CELLS = 2**15
PEER_CELLS = 2**10
"""For callers of the members' listener, which are few."""
ROWS = 2
SECRET_BYTES = 16
INDEX_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Calls per second, averaged over a few seconds."""

    agent: int = 500
    """Attempts of one agent's certificate."""
    client_address: int = 20
    """Attempts from one client address, as reported by agents."""
    user: int = 5
    """Attempts for one username, whether or not the user exists."""
    sign_in: int = 1
    """Passwords for one administrator's name, and new ones that one administrator sets."""
    peer: int = 5
    """Passwords from one address."""
    codes: int = 50
    """Codes that one administrator issues."""
    session: int = 100
    """Calls of one session, and of one address without a session that is known here."""
    transfers: int = 1
    """Seconds' worth of transfers of the primary by one administrator, see `transfer`."""
    resets: int = 1
    """Resets that root requests on this node's machine."""


DEFAULT_LIMITS = RateLimits()


class TokenBuckets:
    """
    A bucket for each key, for any number of keys, in memory of a fixed size.

    A bucket is a moment: the time until which it is used up (the virtual scheduling of
    GCRA, ITU-T I.371). It is stored in one cell of each of two rows, chosen by keyed
    hashes of the key, and the emptier cell counts. So a flood of keys evicts no
    bucket. At worst, keys that share both cells share a rate; a caller cannot choose
    which keys do.
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
        """The content of a full bucket."""
        return self._per_s * BURST_S

    def take(self, key: str, cost: int = 1) -> float:
        """
        Take *cost* out of the key's bucket, and return 0.

        If the bucket holds less, take nothing, and return the seconds until it holds
        enough. A cost above a full bucket takes a full bucket.
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
    """The buckets of a node. Every method raises `RateError`, with a retry hint."""

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
        self._sessions = buckets(limits.session)
        self._unsigned = buckets(UNSIGNED_PER_S)
        self._copies = buckets(COPIES_PER_S)
        self._transfers = buckets(limits.transfers)
        self._resets = buckets(limits.resets)

    def unsigned(self, *, agent: str) -> None:
        """
        Count one unsigned request by RADIUS. Anyone can send it (D2).

        It has a rate of its own, so forged ones do not use up that of the agent.
        """
        _take(self._unsigned, THIS_AGENT, agent)

    def copy(self, *, agent: str) -> None:
        """Count one copy of a decided request. Anyone who saw the packet can send it."""
        _take(self._copies, THIS_AGENT, agent)

    def attempt(self, *, agent: str, client_address: str, name_tag: bytes) -> None:
        """Count one attempt of an agent (L7)."""
        _take(self._agents, THIS_AGENT, agent)
        if client_address:
            _take(self._addresses, "this client address", source_of(client_address))
        _take(self._users, "this user", name_tag.hex())

    def next_step(self, *, agent: str, user: str) -> None:
        """Count one answer to a challenge. Empty user: the challenge did not open (L7)."""
        _take(self._agents, THIS_AGENT, agent)
        _take(self._users, "this user", f"challenge of {user}")

    def sign_in(self, *, administrator: str, peer: str, client: str = "") -> None:
        """
        Count one password. Passwords have a rate, and never a lockout (L7).

        *client*: a known device or session. It has a rate of its own, which strangers
        with its administrator's name or its address do not use up.
        """
        if client:
            _take(self._sign_ins, "this device", f"client {client}")
            return
        if peer:
            _take(self._peers, "this address", source_of(peer))
        _take(self._sign_ins, "this administrator", f"name {administrator}")

    def browser_login(self, *, peer: str, client: str = "") -> None:
        """
        Count one request to sign in through a browser (P9).

        *client*: a known device, which has a rate of its own. All strangers together
        share one on each node: each of their requests is an entry of the log.
        """
        if client:
            _take(self._sign_ins, "this device", f"client {client}")
            return
        if peer:
            _take(self._sign_ins, "this address", f"browser login of {source_of(peer)}")
        _take(self._peers, "unknown devices", "browser logins")

    def poll(self, *, login_id: str) -> None:
        """Count one poll of a sign-in: `slow_down` of RFC 8628, 3.5 (P9)."""
        _take(self._sign_ins, "this sign-in", f"poll of {login_id}", POLL_COST)

    def new_password(self, *, setter: str) -> None:
        """Count one password that an administrator sets, in all sessions together (P4)."""
        _take(self._sign_ins, "this administrator", f"set by {setter}")

    def issue(self, *, administrator: str, codes: int) -> None:
        """Count the codes that an administrator draws, or a PIN, which costs the same (I12)."""
        _take(self._codes, "this administrator", administrator, codes)

    def session(self, session_id: str) -> None:
        """Count one call of a valid session (Q3)."""
        _take(self._sessions, "this session", session_id)

    def costly_read(self, *, administrator: str) -> None:
        """Count one read that takes a node seconds, in every session together (Q3)."""
        _take(self._sessions, "this administrator", f"of {administrator}", COSTLY_READ)

    def stranger(self, peer: str) -> None:
        """Count one call with a session that this node does not know."""
        if peer:
            _take(self._sessions, "this address", f"peer {source_of(peer)}")

    def transfer(self, *, administrator: str) -> None:
        """Count one transfer of the primary: five at once, then one in two seconds (Q3)."""
        _take(self._transfers, "this administrator", administrator, TRANSFER_COST)

    def reset(self, *, node_id: str) -> None:
        """Count one local reset of an administrator (P4)."""
        _take(self._resets, "this node", node_id)


class PeerRates:
    """The buckets of the members' listener. Every method raises `RateError`."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        secret = entropy.token_bytes(SECRET_BYTES)

        def buckets() -> TokenBuckets:
            return TokenBuckets(per_s=1, clock=clock, secret=secret, cells=PEER_CELLS)

        self._renewals, self._joins = buckets(), buckets()

    def join(self, ticket_id: str) -> None:
        """Count one request to join with a ticket (P5)."""
        _take(self._joins, "this ticket", ticket_id)

    def renewal(self, member: str) -> None:
        """Count one renewal of a member's certificate: one in ten seconds (P5)."""
        _take(self._renewals, "this member", member, self._renewals.burst)


def _take(buckets: TokenBuckets, whose: str, key: str, cost: int = 1) -> None:
    wait_s = buckets.take(key, cost)
    if wait_s:
        raise RateError(whose, retry_after_s=wait_s)
