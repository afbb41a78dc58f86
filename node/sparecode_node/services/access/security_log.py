# SPDX-License-Identifier: Apache-2.0
"""
The security log of a node: callers refused before anything was decided (U1).

It has its own logger and writes at WARNING. A flood of strangers must not fill a disk,
so the number of lines per second is bounded. The next line tells how many were left
out.
"""

import collections
import logging
import re
import threading
from collections.abc import Mapping

from sparecode_node.services.ambient import Clock
from sparecode_node.services.error_table import Answer, Code
from sparecode_node.services.load.rates import TokenBuckets

log = logging.getLogger("sparecode_node.security")
grpc_log = logging.getLogger("grpc")

LINES_PER_S = 2
"""On average; a burst may have ten seconds' worth."""

PAUSE_S = 1.0
"""Between two lines about malformed messages, which cost their sender nothing."""

HANDSHAKE_FAILED = "TLS handshake failed"
CALL_REFUSED = "call refused"
MALFORMED = "malformed message"
PACKET_DROPPED = "RADIUS packet dropped"
RADIUS_UNSUPPORTED = "RADIUS request without PAP"
RADIUS_EVENTS = (PACKET_DROPPED, RADIUS_UNSUPPORTED)
EVENTS = (CALL_REFUSED, HANDSHAKE_FAILED, MALFORMED, *RADIUS_EVENTS)

_GRPC_LINE = re.compile(
    r"(?P<level>[IWEF])\d{4} [\d:.]+ +\d+ (?P<source>[\w.-]+:\d+)\] (?P<text>.*)"
)
_FAILED = "Handshake failed with error "
_OPENSSL = re.compile(r"OPENSSL_internal:(?P<cause>[A-Z0-9_]+)(: (?P<detail>.*))?")


def turns_away(answer: Answer) -> bool:
    """Return whether an answer turns its caller away, whatever the call asks for."""
    return answer.code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)


class SecurityLog:
    """Writes the lines. Safe in any thread."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._calls, self._packets = _Lines(clock), _Lines(clock)
        self._clock = clock
        self._malformed_left_out = 0
        self._next_malformed_s = 0.0
        self.counts: collections.Counter[str] = collections.Counter()
        """How often each event happened since the start, with or without a line."""

    def note(self, event: str, **fields: str) -> None:
        """
        Write that a caller was refused. *fields* must not hold a secret.

        A stranger can send any number of RADIUS packets, so they have lines of their
        own, and hide no refused call.
        """
        with self._lock:
            self.counts[event] += 1
            lines = self._packets if event in RADIUS_EVENTS else self._calls
            left_out = lines.take()
        if left_out is None:
            return
        if left_out:
            fields["left_out"] = str(left_out)
        log.warning(event, extra=fields)

    def refused_call(
        self,
        answer: Answer,
        door_log: logging.Logger,
        fields: Mapping[str, str],
        *,
        peer: str,
        is_stranger: bool = False,
    ) -> None:
        """
        Write that a call was refused: into this log, or into that of its door.

        Every door calls this, so that all of them judge alike: a caller that is not
        known, or may not do this, is for the security log. The others were refused for
        what they asked. *fields* has `method` and `caller`; a door's own log gets all of
        them. *is_stranger*: the door knows no callers, only what they bring.
        """
        if is_stranger or turns_away(answer):
            self.note(
                CALL_REFUSED,
                method=fields["method"],
                caller=fields["caller"],
                peer=peer,
                reason=answer.reason,
            )
            return
        door_log.info(
            CALL_REFUSED,
            extra={**fields, "code": answer.code.name, "reason": answer.reason},
        )

    def handshake_failed(self, listener: str, error: OSError) -> None:
        """Write that a handshake failed at a listener other than those of gRPC."""
        cause = getattr(error, "reason", "") or type(error).__name__
        self.note(HANDSHAKE_FAILED, listener=listener, cause=str(cause))

    def malformed(self, method: str, peer: str) -> None:
        """Write that a message did not decode: at most one line in `PAUSE_S`."""
        with self._lock:
            self.counts[MALFORMED] += 1
            now_s = self._clock.monotonic_s()
            if now_s < self._next_malformed_s:
                self._malformed_left_out += 1
                return
            left_out, self._malformed_left_out = self._malformed_left_out, 0
            self._next_malformed_s = now_s + PAUSE_S
        fields = {"method": method, "peer": peer}
        if left_out:
            fields["left_out"] = str(left_out)
        log.warning(MALFORMED, extra=fields)

    def grpc_line(self, line: str) -> None:
        """
        Handle a line that gRPC has written to its own log.

        Only there does gRPC tell that a handshake failed, and why; it does not tell
        with whom. Its other warnings become lines of the `grpc` logger.
        """
        match = _GRPC_LINE.match(line)
        if match is None:
            return
        text = match["text"]
        if text.startswith(_FAILED):
            self.note(HANDSHAKE_FAILED, cause=_cause(text.removeprefix(_FAILED)))
        elif match["level"] != "I":
            grpc_log.warning(text, extra={"source": match["source"]})


class _Lines:
    """Bounds the lines of one kind, and counts those that are left out."""

    def __init__(self, clock: Clock) -> None:
        self._bucket = TokenBuckets(per_s=LINES_PER_S, clock=clock, secret=b"", cells=1)
        self._left_out = 0

    def take(self) -> int | None:
        """Return how many lines were left out before this one; None: so is this one."""
        if self._bucket.take(""):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out


def _cause(text: str) -> str:
    """Return the cause of a failed handshake, in the words of the TLS library."""
    match = _OPENSSL.search(text)
    if match is None:
        return text
    cause = match["cause"].replace("_", " ").lower()
    # The detail tells what is wrong with a peer's certificate; otherwise it is this text.
    detail = match["detail"]
    if not detail or detail == "Invalid certificate verification context":
        return cause
    return f"{cause}: {detail}"
