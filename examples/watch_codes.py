# SPDX-License-Identifier: Apache-2.0
"""Finds the tokens whose emergency codes run out, page by page."""

from collections.abc import Iterator

from sparecode_client import Admin, EmergencyAccess

FEW = 2


def running_out(admin: Admin) -> Iterator[EmergencyAccess]:
    """Yield the tokens with at most `FEW` live codes, by serial."""
    page_token = ""
    while True:
        page = admin.list_emergency_access(live_codes_max=FEW, page_token=page_token)
        yield from page.items
        page_token = page.next_page_token
        if not page_token:
            return
