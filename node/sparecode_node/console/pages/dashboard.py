# SPDX-License-Identifier: Apache-2.0
"""The dashboard: charts, cluster, emergency access, lockouts and recent events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.responses import Response

from sparecode_node.console.kit import charts
from sparecode_node.console.kit.charts import Chart
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.cluster import Health, health, status_of
from sparecode_node.console.pages.review import if_not_open
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.queries.alarms import AlarmView
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.queries.views import EmergencyAccessView, Page, UserView
from sparecode_node.services.access.authorization import SHOW_ACTIVITY
from sparecode_node.services.cluster.activity import Day
from sparecode_node.services.cluster.status import ClusterStatus, bundle_needed
from sparecode_node.services.fields import PAGE_SIZE_MAX

SHOWN: Final = 6
LOW_SHOWN: Final = 30
"""More than elsewhere, because no other page lists these sets."""
EVENTS: Final = 8
SOON_MS: Final = 2 * DAY_MS
END_DAYS: Final = 7
NAMES: Final = 12
"""People whose codes end on one day, shown by name."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The first items of a list, and the length of the list."""

    items: tuple[object, ...]
    total: int
    has_more: bool
    """Whether the list has more items than were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The charts of the last 24 hours, and their sums."""

    day: Day
    sign_ins: Chart
    codes: Chart
    accepted: int
    refused: int
    issued: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndDay:
    """Tokens whose last codes end within one day of 24 hours."""

    number: int
    """1: within the next 24 hours."""
    ends: tuple[EmergencyAccessView, ...]
    """The first of them, by their end."""
    total: int


async def show(visit: Visit) -> Response:
    """Show the parts that the role may see."""
    status: ClusterStatus | None = None
    condition: Health | None = None
    if visit.may("ClusterService/GetStatus"):
        status = await status_of(visit)
        condition = health(status)
    activity = await _activity(visit) if visit.may(SHOW_ACTIVITY) else None
    emergency = low = locked = None
    ends: tuple[EndDay, ...] = ()
    if visit.may("EmergencyAccessService/ListEmergencyAccess"):
        policy = await visit.read(
            "PolicyService/GetPolicy",
            lambda call, stale_ok: visit.site.services.policies.get(
                call, stale_ok=stale_ok
            ),
        )
        in_emergency = await _in_emergency_access(visit)
        emergency = _excerpt(in_emergency)
        ends = _end_days(in_emergency.items, visit.site.clock.now_ms())
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
    alarms: tuple[AlarmView, ...] = ()
    if visit.may("UserService/ListUsers"):
        alarms = await visit.read(
            "UserService/ListUsers",
            lambda call, stale_ok: visit.site.services.alarms.recent(
                call, stale_ok=stale_ok
            ),
        )
    events: tuple[AuditRecord, ...] = ()
    if visit.may("AuditService/ListAuditEvents"):
        events = (await _last_events(visit)).items
    return visit.page(
        "dashboard.html",
        cluster=status,
        review=await if_not_open(visit),
        alarms=alarms,
        health=condition,
        bundle=bundle_needed(status) if status is not None else "",
        activity=activity,
        ends=ends,
        ends_chart=charts.draw([each.total for each in ends]),
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


async def _activity(visit: Visit) -> Activity:
    day = await visit.read(
        SHOW_ACTIVITY,
        lambda call, stale_ok: visit.site.services.activity.day(
            call, stale_ok=stale_ok
        ),
    )
    counts = [each for _, each in day.hours]
    accepted, refused = (
        [each.accepted for each in counts],
        [each.refused for each in counts],
    )
    issued, used = [each.issued for each in counts], [each.used for each in counts]
    return Activity(
        day=day,
        sign_ins=charts.draw(accepted, refused),
        codes=charts.draw(issued, used),
        accepted=sum(accepted),
        refused=sum(refused),
        issued=sum(issued),
        used=sum(used),
    )


def _end_days(items: Sequence[EmergencyAccessView], now_ms: int) -> tuple[EndDay, ...]:
    """Return the next days, with the tokens whose last codes end on each."""
    days: list[list[EmergencyAccessView]] = [[] for _ in range(END_DAYS)]
    for each in sorted(items, key=lambda item: item.ends_at_ms or 0):
        if each.ends_at_ms is not None and each.ends_at_ms >= now_ms:
            day = (each.ends_at_ms - now_ms) // DAY_MS
            if day < END_DAYS:
                days[day].append(each)
    return tuple(
        EndDay(number=number, ends=tuple(ends[:NAMES]), total=len(ends))
        for number, ends in enumerate(days, start=1)
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
