# SPDX-License-Identifier: Apache-2.0
"""Operators' secrets that must show up nowhere: for `test_canary.py`."""

import asyncio
import base64
import dataclasses
import json
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pyotp
from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode

from sparecode_client import AdministratorRole, AsyncAdmin
from sparecode_node.rpc.tickets import from_text
from tests.console.paper import Paper
from tests.system.estate import PATIENCE, Estate

TEMPORARY = "canary password for one sign-in"
OWN = "canary password of an operator"
PASSPHRASE = "canary passphrase of a bundle"


@dataclass
class Operated:
    """Secrets of operators, and what they have taken out of the cluster."""

    secrets: list[str | bytes] = field(default_factory=list)
    exports: dict[str, bytes] = field(default_factory=dict)


async def operate(estate: Estate, folder: Path) -> Operated:
    """Second factor, ticket, backup, bundle, console and another key, at real nodes."""
    operated = Operated(secrets=[TEMPORARY, OWN, PASSPHRASE])
    await set_a_second_factor(estate, operated)
    await use_the_console(estate, operated)
    await ask_for_a_ticket(estate, operated)
    take_keys(estate.cluster, operated)
    await asyncio.to_thread(make_backup_key, estate.cluster.nodes[0], operated, folder)
    await back_up(estate, operated, folder)
    await estate.admin.rotate_keys(at_once=True)
    await back_up(estate, operated, folder)
    take_keys(estate.cluster, operated)
    return operated


async def set_a_second_factor(estate: Estate, operated: Operated) -> None:
    """Let an administrator enroll a second factor, use it, and fail once."""
    await estate.admin.create_administrator(
        "olga", AdministratorRole.HELP_DESK, TEMPORARY, username=None
    )
    async with AsyncAdmin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
        timeout=PATIENCE,
    ) as olga:
        await olga.login("olga", TEMPORARY)
        await olga.change_password(OWN, old_password=TEMPORARY)
        operated.secrets.append((await olga.login("olga", OWN)).session)
        enrolled = await olga.enroll_second_factor()
        # The six digits that it shows are left out: they are in times by chance.
        operated.secrets += [enrolled.secret, base64.b32decode(enrolled.secret)]
        app = pyotp.TOTP(enrolled.secret)
        await olga.confirm_second_factor(enrolled, app.now())


async def use_the_console(estate: Estate, operated: Operated) -> None:
    """Sign in with a browser, and without success; generate codes and save them."""
    cluster = estate.cluster
    async with httpx.AsyncClient(
        base_url=cluster.nodes[1].console_url,
        verify=ssl.create_default_context(cafile=str(cluster.members_ca)),
        timeout=PATIENCE.total_seconds(),
    ) as client:
        browser = Paper(client)
        page = await browser.sign_in("olga", OWN)
        assert page.path == "/sign-in"  # For want of her second factor.
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while page.path != "/":  # An earlier wrong password still has its wait.
                page = await browser.sign_in(ADMINISTRATOR, cluster.password)
        operated.secrets += list(client.cookies.values())
        await browser.open("/tokens/carl/emergency-access")
        page = await browser.send("Generate Codes", count="3")
        assert len(page.codes) == 3, page.text
        codes = page.codes
        page = await browser.send("Save")
        assert "Committed by a quorum" in page.text
        operated.secrets += codes
        operated.secrets += [code.replace("-", "") for code in codes]


async def ask_for_a_ticket(estate: Estate, operated: Operated) -> None:
    """Create a join ticket that is never used."""
    ticket = (await estate.admin.create_join_ticket("n4", "n4:7301")).ticket
    operated.secrets += [ticket, from_text(ticket).secret]


def take_keys(cluster: LocalCluster, operated: Operated) -> None:
    """Read what is in the key rings now: it is to be in no other file."""
    for node in cluster.nodes:
        for key in json.loads(node.key_ring.read_text())["keys"].values():
            operated.secrets += [key, base64.b64decode(key)]


def make_backup_key(node: LocalNode, operated: Operated, folder: Path) -> None:
    """Make a key that opens backups, and a recovery bundle with a passphrase."""
    identity, passphrase = folder / "backup.key", folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    _run(node, "backup", "keygen", identity)
    lines = identity.read_text().splitlines()
    operated.secrets += [line for line in lines if not line.startswith("#")]
    _run(node, "bundle", folder / "a.bundle", "--passphrase-file", passphrase)
    operated.exports["recovery bundle"] = (folder / "a.bundle").read_bytes()


async def back_up(estate: Estate, operated: Operated, folder: Path) -> None:
    """Take a backup, which is encrypted to that key."""
    identity = folder / "backup.key"
    policy = await estate.admin.get_policy()
    if not policy.backup_recipients:
        text = identity.read_text()
        (public,) = (word for word in text.split() if word.startswith("age1"))
        await estate.admin.update_policy(
            dataclasses.replace(policy, backup_recipients=public)
        )
    pieces: list[bytes] = []
    await estate.admin.create_backup(pieces.clear, pieces.append)
    operated.exports[f"backup {len(operated.exports)}"] = b"".join(pieces)


def _run(node: LocalNode, *arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "sparecode_node", "--config", node.config, *arguments],
        env=node.environment,
        capture_output=True,
        check=True,
    )
