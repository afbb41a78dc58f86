# SPDX-License-Identifier: Apache-2.0
"""pam_radius, unmodified, with the packaged files: what sshd and sudo would do."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sparecode_node.console.pages.snippets import OPENVPN, PAM_RADIUS
from tests.radius.door import Door
from tests.radius.pam import MODULES, name_nodes, write_pam
from tests.services.one_node import PIN, SERIAL

SERVICE = "example"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not MODULES or shutil.which("pamtester") is None,
        reason="make system-packages (libpam-radius-auth, pamtester)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace"),
]


@pytest.fixture
def machine(tmp_path: Path, door: Door) -> Path:
    """Return a folder with PAM's files: its first node is down, the door is the second."""
    write_pam(tmp_path, name_nodes(tmp_path, door, wait_s=60), SERVICE)
    return tmp_path


async def sign_in(machine: Path, *typed: str, user: str = "alice") -> tuple[bool, str]:
    """Sign in with answers to the prompts; return whether it worked, and the output."""
    script = " && ".join(
        [
            *(
                f"mount --bind {machine}/{name} /etc/{name}"
                for name in ("pam.d", "passwd", "group")
            ),
            f"exec pamtester {SERVICE} {user} authenticate",
        ]
    )
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-m", "sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(
        process.communicate("".join(f"{each}\n" for each in typed).encode()), 90
    )
    return process.returncode == 0, output.decode(errors="replace")


async def test_pam_asks_for_the_passcode_and_the_next_node(door, machine):
    """(D1, D3) The first node is down; a code works once."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    worked, output = await sign_in(machine, passcode)
    assert worked, output
    assert "Passcode:" in output
    worked, output = await sign_in(machine, passcode)
    assert not worked, output


@pytest.mark.long
@pytest.mark.parametrize(
    "snippet", [PAM_RADIUS, OPENVPN], ids=lambda snippet: snippet.key
)
async def test_pam_understands_the_lines_to_copy(door, machine, snippet):
    """OpenVPN answers the prompt `Passcode`, so there is one."""
    lines = [
        line for line in snippet.text.splitlines() if line.startswith(("auth ", "acc"))
    ]
    service = "\n".join(lines).replace(
        "/etc/sparecode-pam.conf", str(machine / "sparecode-pam.conf")
    )
    (machine / "pam.d" / SERVICE).write_text(
        f"{service}\nauth required pam_permit.so\naccount required pam_permit.so\n"
    )
    issued = await door.node.issue()
    worked, output = await sign_in(machine, PIN + issued.codes[0].code)
    assert worked, output
    assert "Passcode:" in output
    worked, output = await sign_in(machine, "wrong")
    assert not worked, output


async def test_pam_shows_the_next_steps(door, machine):
    """(K2, K3) A user without a PIN chooses one at the same prompt."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    first = door.node.tokencode()
    worked, output = await sign_in(
        machine, first, "82649173", "82649173", door.node.tokencode(step=1)
    )
    assert worked, output
    assert "Enter a new PIN:" in output
    assert "Enter the new PIN again:" in output


async def test_pam_fails_closed(door, machine):
    """(D4) A node that cannot decide is silent, and PAM refuses."""
    issued = await door.node.issue()
    door.listener.leave()
    name_nodes(machine, door, wait_s=1)
    worked, output = await sign_in(machine, PIN + issued.codes[0].code)
    assert not worked, output


@pytest.mark.long
async def test_a_break_glass_user_needs_no_passcode(door, machine):
    """Only members of the local group, and also while no node answers."""
    door.listener.leave()
    name_nodes(machine, door, wait_s=1)
    worked, output = await sign_in(machine, user="bob")
    assert worked, output
    worked, output = await sign_in(machine, "anything", user="alice")
    assert not worked, output
