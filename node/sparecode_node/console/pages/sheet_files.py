# SPDX-License-Identifier: Apache-2.0
"""
The sheet of codes as a file, made from what the browser sends back.

No node keeps the codes, so the browser has the only copy.
"""

import re
from dataclasses import replace
from typing import Final

from starlette.responses import PlainTextResponse, Response

from sparecode_node.console.kit import sheet, sheet_pdf
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages import tokens
from sparecode_node.services.emergency.emergency_access import ShownCode
from sparecode_node.services.errors import InvalidFieldError

SAVE: Final = "EmergencyAccessService/SaveEmergencyAccess"
CODE = re.compile(r"[A-Z0-9]{1,8}(-[A-Z0-9]{1,8}){0,7}", re.ASCII)


def codes_in(form: Form) -> tuple[ShownCode, ...]:
    """Return the codes that the browser sent back, ignoring anything else."""
    return tuple(
        ShownCode(ordinal=ordinal, code=code)
        for ordinal, code in enumerate(form.all("code"), start=1)
        if CODE.fullmatch(code)
    )


async def download(visit: Visit) -> Response:
    """Return the codes that the browser sent, as a file that says what the sheet says."""
    visit.require(SAVE)
    serial = visit.request.path_params["serial"]
    token = await tokens.find(visit, serial)
    by = visit.session.administrator if visit.session else ""
    text = sheet.text_of(token, codes_in(visit.form), visit.form, by)
    return PlainTextResponse(
        text,
        headers={
            "content-disposition": f'attachment; filename="tokencodes-{token.serial}.txt"'
        },
    )


async def download_pdf(visit: Visit) -> Response:
    """Return the same as a PDF, encrypted with the password on the browser's page."""
    visit.require(SAVE)
    serial = visit.request.path_params["serial"]
    secret = visit.form.secret("pdf_password")
    if not sheet_pdf.PASSWORD.fullmatch(secret):
        raise InvalidFieldError("pdf_password", _("must be the password on the page"))
    token = await tokens.find(visit, serial)
    if await sheet_pdf.lacks_letters(token.username):
        raise InvalidFieldError(
            "pdf_password",
            _("the PDF has no letters for this user name: print the sheet instead"),
        )
    if await sheet_pdf.lacks_letters(token.display_name):
        token = replace(token, display_name="")
    by = visit.session.administrator if visit.session else ""
    made = sheet.of_form(token, codes_in(visit.form), visit.form, by)
    return Response(
        await sheet_pdf.pdf_of(made, secret, visit.site.clock.now_ms()),
        media_type="application/pdf",
        headers={
            "content-disposition": f'attachment; filename="tokencodes-{token.serial}.pdf"'
        },
    )
