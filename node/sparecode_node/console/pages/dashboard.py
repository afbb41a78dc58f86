# SPDX-License-Identifier: Apache-2.0
"""The dashboard: cluster, emergency access, lockouts and recent events."""

from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.responses import Response

from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.cluster import Health, health, status_of
from sparecode_node.console.pages.review import if_not_open
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.queries.views import EmergencyAccessView, Page, UserView
from sparecode_node.services.cluster.status import ClusterStatus, bundle_needed
from sparecode_node.services.fields import PAGE_SIZE_MAX

SHOWN: Final = 6
LOW_SHOWN: Final = 30
"""More than elsewhere, because no other page lists these sets."""
EVENTS: Final = 8
SOON_MS: Final = 2 * DAY_MS

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The first items of a list, and the length of the list."""

    items: tuple[object, ...]
    total: int
    has_more: bool
    """Whether the list has more items than were counted."""


async def show(visit: Visit) -> Response:
    """Show the parts that the role may see."""
    status: ClusterStatus | None = None
    condition: Health | None = None
    if visit.may("ClusterService/GetStatus"):
        status = await status_of(visit)
        condition = health(status)
    emergency = low = locked = None
    if visit.may("EmergencyAccessService/ListEmergencyAccess"):
        policy = await visit.read(
            "PolicyService/GetPolicy",
            lambda call, stale_ok: visit.site.services.policies.get(
                call, stale_ok=stale_ok
            ),
        )
        in_emergency = await _in_emergency_access(visit)
        emergency = _excerpt(in_emergency)
        soon_ms = visit.site.clock.now_ms() + SOON_MS
        low = _excerpt(
            Page(
                items=tuple(
                    each
                    for each in in_emergency.items
                    # A fixed tokencode is one code that use does not spend.
                    if (not each.fixed and each.live_codes <= policy.set_low_threshold)
                    or (each.ends_at_ms is not None and each.ends_at_ms < soon_ms)
                ),
                next_page_token=in_emergency.next_page_token,
            ),
            shown=LOW_SHOWN,
        )
        locked = _excerpt(await _locked(visit))
    events: tuple[AuditRecord, ...] = ()
    if visit.may("AuditService/ListAuditEvents"):
        events = (await _last_events(visit)).items
    return visit.page(
        "dashboard.html",
        cluster=status,
        review=await if_not_open(visit),
        health=condition,
        bundle=bundle_needed(status) if status is not None else "",
        emergency=emergency,
        low=low,
        locked=locked,
        events=events,
    )


def _excerpt(page: Page[T], *, shown: int = SHOWN) -> Excerpt:
    return Excerpt(
        items=page.items[:shown],
        total=len(page.items),
        has_more=bool(page.next_page_token),
    )


async def _in_emergency_access(visit: Visit) -> Page[EmergencyAccessView]:
    return await visit.read(
        "EmergencyAccessService/ListEmergencyAccess",
        lambda call, stale_ok: visit.site.services.emergency.list(
            call, page_size=PAGE_SIZE_MAX, stale_ok=stale_ok
        ),
    )


async def _locked(visit: Visit) -> Page[UserView]:
    return await visit.read(
        "UserService/ListUsers",
        lambda call, stale_ok: visit.site.services.users.list(
            call, page_size=PAGE_SIZE_MAX, locked=True, stale_ok=stale_ok
        ),
    )


async def _last_events(visit: Visit) -> Page[AuditRecord]:
    return await visit.read(
        "AuditService/ListAuditEvents",
        lambda call, stale_ok: visit.site.services.audit.list(
            call, criteria=AuditFilter(), page_size=EVENTS, stale_ok=stale_ok
        ),
    )
