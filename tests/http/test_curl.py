# SPDX-License-Identifier: Apache-2.0
"""The console's configuration for curl, in a shell with the real program (D5)."""

import asyncio
import json
import shutil

import pytest

from sparecode_node.console.pages.snippets import CURL
from tests.http.door import HOST, Door
from tests.http.test_keys import create
from tests.http.test_v1 import issued

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        shutil.which("curl") is None, reason="curl is missing: make system-packages"
    ),
]


async def test_the_text_to_copy_signs_a_user_in_once(door: Door) -> None:
    """The key comes from its file, and each code works once."""
    key_file = door.folder / "key"
    key_file.write_text(await create(door.node))
    text = CURL.text
    for written, here in (
        ("KEYFILE", str(key_file)),
        ("members-ca.pem", str(door.folder / "members-ca.pem")),
        ("4711123456", await issued(door)),
        ("10.1.0.1:7305", f"{HOST}:{door.server.port}"),
    ):
        assert written in text, written
        text = text.replace(written, here)
    decisions = []
    for _ in range(2):
        curl = await asyncio.create_subprocess_exec(
            *("bash", "-c", text), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            answer, _errors = await curl.communicate()
        decisions.append(json.loads(answer)["decision"])
    assert decisions == ["ACCEPTED", "REFUSED"]
