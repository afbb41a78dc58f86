# SPDX-License-Identifier: Apache-2.0
"""The active key of the ring, and its rotation (T3, P5)."""

from contextlib import aclosing
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt, redirect_with_notice
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.visits import READ_S, Visit
from sparecode_node.services.context import CallContext
from sparecode_node.services.keys.rotation import Phase, RotationProgress

ROTATE: Final = "ClusterService/RotateKeys"


async def rotate(visit: Visit) -> Response:
    """Show the progress of a rotation; start one."""
    if visit.is_form:
        visit.require(ROTATE)
        rotation = await attempt(visit, ROTATE, lambda call: _begin(visit, call))
        if rotation is not None:
            return redirect_with_notice(visit, "/keys", Notice(words=_notice(rotation)))
    progress = await visit.site.services.rotation.progress(
        visit.call("ClusterService/GetStatus", within_s=READ_S)
    )
    return visit.page("keys.html", progress=progress, phase=progress.phase.name)


async def _begin(visit: Visit, call: CallContext) -> RotationProgress | None:
    """Activate a new key; the cluster then continues by itself."""
    progress = await visit.site.services.rotation.rotate(
        call,
        at_once=visit.form.flag("at_once"),
        keep_old_key=visit.form.flag("keep_old_key"),
    )
    async with aclosing(progress):
        async for each in progress:
            if each.phase is not Phase.HANDING_OUT:
                return each
    return None


def _notice(rotation: RotationProgress) -> str:
    if rotation.resumed:
        return _("A rotation was already under way; no other was started.")
    return _("Key %(key_id)s is active on all nodes.", key_id=rotation.key_id)
