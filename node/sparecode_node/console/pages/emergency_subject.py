# SPDX-License-Identifier: Apache-2.0
"""The token of the page of emergency access, and what stands in the way of its codes."""

from dataclasses import dataclass

from sparecode_node.console.kit import explanations
from sparecode_node.console.kit.explanations import Obstacle
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages import tokens
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import Policy
from sparecode_node.queries.views import EmergencyAccessView, TokenView

SERVICE = "EmergencyAccessService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The token of the page in its present state."""

    token: TokenView
    access: EmergencyAccessView
    policy: Policy
    obstacles: tuple[Obstacle, ...]
    """What stands in the way of its codes now; also what stops them from being issued."""
    other_tokens: tuple[str, ...]
    """Serials of the user's other tokens that work, if this one counts as lost."""

    @property
    def locked(self) -> bool:
        """Whether codes saved now are refused because of wrong passcodes (L5)."""
        return any(each.is_lock for each in self.obstacles)

    @property
    def stays_refused(self) -> bool:
        """Whether the token is refused after emergency access is off (R2)."""
        recovers = self.access.recovery is RecoveryPolicy.ALLOW_AND_DISABLE
        return self.access.lost and not recovers and bool(self.token.username)

    @property
    def strands(self) -> bool:
        """Whether turning it off leaves the user without a way to sign in."""
        return self.stays_refused and not self.other_tokens


async def find(visit: Visit, serial: str) -> Subject:
    """Read the token, its emergency access and what stands in the way of its codes."""
    services = visit.site.services
    token = await tokens.find(visit, serial)
    access = await visit.read(
        f"{SERVICE}/GetEmergencyAccess",
        lambda call, stale_ok: services.emergency.get(call, serial, stale_ok=stale_ok),
    )
    policy = await visit.read(
        "PolicyService/GetPolicy",
        lambda call, stale_ok: services.policies.get(call, stale_ok=stale_ok),
    )
    explanation = await explanations.of_token(visit, serial)
    obstacles = explanations.obstacles(visit, explanation)
    return Subject(
        token=token,
        access=access,
        policy=policy,
        obstacles=tuple(each for each in obstacles if each.concerns_codes),
        other_tokens=await _other_tokens(visit, token) if access.lost else (),
    )


async def _other_tokens(visit: Visit, token: TokenView) -> tuple[str, ...]:
    """Return the serials of the user's other tokens that are accepted, or have codes."""
    if not token.username:
        return ()
    others = await visit.read(
        "TokenService/ListTokens",
        lambda call, stale_ok: visit.site.services.tokens.list(
            call, username=token.username, stale_ok=stale_ok
        ),
    )
    now_ms = visit.site.clock.now_ms()
    return tuple(
        each.serial
        for each in others.items
        if each.serial != token.serial
        and each.enabled
        and (each.expires_at_ms is None or each.expires_at_ms > now_ms)
        and (not each.lost or each.live_codes)
    )
