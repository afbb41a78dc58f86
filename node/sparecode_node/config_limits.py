# SPDX-License-Identifier: Apache-2.0
"""The section `[limits]` of `node.toml`: calls per second."""

from dataclasses import dataclass

from sparecode_node.config_section import Section

_PER_S = range(1, 1_000_001)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """The calls per second that this node accepts, averaged over a few seconds."""

    agent_per_s: int
    client_address_per_s: int
    user_per_s: int
    sign_in_per_s: int
    peer_per_s: int
    codes_per_s: int
    session_per_s: int


def read_limits(section: Section) -> LimitsConfig:
    """Return the limits. Raises `ConfigError`."""
    limits = LimitsConfig(
        agent_per_s=section.number("agent_per_s", 500, _PER_S),
        client_address_per_s=section.number("client_address_per_s", 20, _PER_S),
        user_per_s=section.number("user_per_s", 5, _PER_S),
        sign_in_per_s=section.number("sign_in_per_s", 1, _PER_S),
        peer_per_s=section.number("peer_per_s", 5, _PER_S),
        codes_per_s=section.number("codes_per_s", 50, _PER_S),
        session_per_s=section.number("session_per_s", 100, _PER_S),
    )
    section.done()
    return limits
