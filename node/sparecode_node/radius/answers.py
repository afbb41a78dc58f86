# SPDX-License-Identifier: Apache-2.0
"""Answers, apart from the packet that they answer: each reply is built for its request."""

from dataclasses import dataclass, field

from pyrad.packet import AccessAccept, AccessChallenge, AccessReject

from sparecode_node.domain.radius import AcceptAttributes
from sparecode_node.radius import packets

NO_ECHO = bytes(4)
"""Prompt: what the user types is not shown (RFC 2869, 5.10)."""
ECHO = (1).to_bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A code, and the attributes besides signature and Proxy-State."""

    code: int
    verdict: str
    """The word for it in the counters, see `packet_counts`."""
    attributes: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)

    @property
    def accepted(self) -> bool:
        """Whether it lets the user in."""
        return self.code == AccessAccept


def accepted(told: AcceptAttributes) -> Answer:
    """Return the Access-Accept for a user, with the attributes of the agent."""
    attributes = []
    if told.filter_id:
        attributes.append((packets.FILTER_ID, told.filter_id.encode()))
    if told.class_attribute:
        attributes.append((packets.CLASS, told.class_attribute.encode()))
    if told.session_timeout_s:
        attributes.append((packets.SESSION_TIMEOUT, told.session_timeout_s.to_bytes(4)))
    return Answer(code=AccessAccept, verdict="accepted", attributes=tuple(attributes))


def rejected(message: str = "", *, verdict: str = "rejected") -> Answer:
    """Return an Access-Reject. *message* must not depend on whether a user exists (A6)."""
    attributes = ((packets.REPLY_MESSAGE, message.encode()),) if message else ()
    return Answer(code=AccessReject, verdict=verdict, attributes=attributes)


def challenged(message: str, state: bytes, *, echo: bool) -> Answer:
    """Return an Access-Challenge that prompts the user."""
    return Answer(
        code=AccessChallenge,
        verdict="challenged",
        attributes=(
            (packets.REPLY_MESSAGE, _shortened(message)),
            (packets.STATE, state),
            (packets.PROMPT, ECHO if echo else NO_ECHO),
        ),
    )


def _shortened(message: str) -> bytes:
    """Return a text that fits into an attribute, and ends with a whole character."""
    cut = message.encode()[: packets.VALUE_MAX]
    return cut.decode(errors="ignore").encode()


ALIVE = Answer(code=AccessAccept, verdict="status")
"""The answer to a Status-Server (RFC 5997, section 3)."""
