# SPDX-License-Identifier: Apache-2.0
"""A real sudo with pam_radius and the packaged file."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.radius.door import Door
from tests.radius.pam import MODULES, name_nodes, write_pam
from tests.services.one_node import PIN

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not MODULES or shutil.which("sudo") is None,
        reason="make system-packages (libpam-radius-auth, sudo)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace"),
]
GROUPS = {"alice": 4711, "bob": 4712}
FILES = ("pam.d", "passwd", "shadow", "group", "sudoers")


@pytest.fixture
def machine(tmp_path: Path, door: Door) -> Path:
    """Return a folder with the files of sudo and PAM."""
    write_pam(tmp_path, name_nodes(tmp_path, door, wait_s=20), "sudo")
    sudoers = tmp_path / "sudoers"
    sudoers.write_text("alice ALL=(ALL) ALL\nbob ALL=(ALL) ALL\n")
    sudoers.chmod(0o440)
    return tmp_path


async def sudo(machine: Path, user: str, *typed: str) -> tuple[str, str]:
    """Run `id -un` by sudo as a user; return what it prints, and the prompts."""
    mounts = [f"mount --bind {machine}/{name} /etc/{name}" for name in FILES]
    become = f"exec setpriv --reuid {user} --regid {GROUPS[user]} --clear-groups"
    script = " && ".join([*mounts, f"{become} sudo -S -k id -un"])
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-m", "sh", "-c", script),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, prompts = await asyncio.wait_for(
        process.communicate("".join(f"{each}\n" for each in typed).encode()), 90
    )
    return printed.decode().strip(), prompts.decode(errors="replace")


@pytest.mark.long
async def test_sudo_needs_a_passcode_unless_for_break_glass(door, machine):
    """(D1, D3, D4) A code works once; while no node answers, Bob alone becomes root."""
    issued = await door.node.issue()
    first, second, _ = (PIN + each.code for each in issued.codes)
    printed, prompts = await sudo(machine, "alice", first)
    assert printed == "root", prompts
    assert "Passcode:" in prompts
    assert (await sudo(machine, "alice", first))[0] == ""

    door.listener.leave()
    name_nodes(machine, door, wait_s=1)
    assert (await sudo(machine, "alice", second))[0] == ""
    assert (await sudo(machine, "bob"))[0] == "root"
