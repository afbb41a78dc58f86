# SPDX-License-Identifier: Apache-2.0
"""FreeRADIUS as a proxy in front of a RADIUS door, as docs/radius.md configures it."""

import asyncio
import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator
from pathlib import Path

from local_cluster.cluster import free_ports

from sparecode_node.membership.certificates import write_certificates
from tests.radius.door import TIMEOUT_S, Door

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
SECRET = "testing-123-testing-123-testing-123"
MODULES = """
modules {
    always ok {
        rcode = ok
    }
    eap {
        default_eap_type = ttls
        timer_expire = 60
        tls-config tls-common {
            private_key_file = ${confdir}/n1.key
            certificate_file = ${confdir}/n1.pem
            ca_file = ${confdir}/members-ca.pem
            tls_min_version = "1.2"
            tls_max_version = "1.3"
        }
        ttls {
            tls = tls-common
            default_eap_type = md5
            virtual_server = inner-tunnel
        }
    }
}
"""


ACCOUNTING = """
listen {{
    type = acct
    ipaddr = {host}
    port = {port}
}}
accounting {{
    ok
}}
"""


def documented(title: str) -> str:
    """Return the configuration below a heading of docs/radius.md."""
    page = (ROOT / "docs/radius.md").read_text()
    found = re.search(
        rf"^### {title}\n.*?^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


def configuration(
    folder: Path, door: Door, port: int, *, eap: bool, accounting: int
) -> str:
    """Return a whole radiusd.conf around the one of the documentation."""
    proxy, _, sites = documented("FreeRADIUS as a proxy").partition("# In ")
    proxy = (
        proxy.replace("10.1.0.1", HOST)
        .replace("10.1.0.2", HOST)
        .replace("port = 1812", f"port = {door.port}", 1)
        .replace("SECRET", door.secret)
    )
    # One door is enough: the second server has the port of nothing.
    inner = sites[sites.index("\n") :]
    return f"""
    name = freeradius
    confdir = {folder}
    logdir = {folder}
    run_dir = {folder}
    libdir = /usr/lib/freeradius
    max_request_time = 30
    log {{
        destination = stdout
    }}
    client eapol {{
        ipaddr = {HOST}
        secret = {SECRET}
        require_message_authenticator = yes
    }}
    {MODULES}
    {proxy}
    server default {{
        listen {{
            type = auth
            ipaddr = {HOST}
            port = {port}
        }}
        authorize {{
            {"eap" if eap else inner}
        }}
        authenticate {{
            eap
        }}
        post-proxy {{
            eap
        }}
        {ACCOUNTING.format(host=HOST, port=accounting) if accounting else ""}
    }}
    server inner-tunnel {{
        authorize {{
            {inner}
        }}
    }}
    """


@contextlib.asynccontextmanager
async def freeradius(
    door: Door, folder: Path, *, eap: bool = True, ports: tuple[int, int] = (0, 0)
) -> AsyncIterator[int]:
    """
    Run FreeRADIUS in front of a door, for EAP or for PAP; yield its port.

    *ports*: its own, and one for accounting; 0: any, and none.
    """
    folder.mkdir()  # noqa: ASYNC240 - quick.
    write_certificates(
        folder, members=["n1"], agents=[], hosts=[HOST], now=dt.datetime.now(dt.UTC)
    )
    port, accounting = ports
    if not port:
        [port] = free_ports(1)
    (folder / "radiusd.conf").write_text(
        configuration(folder, door, port, eap=eap, accounting=accounting)
    )
    process = await asyncio.create_subprocess_exec(
        *("freeradius", "-f", "-l", "stdout", "-d", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        printed = b""
        async with asyncio.timeout(TIMEOUT_S):
            while b"Ready to process requests" not in printed:
                line = await process.stdout.readline()
                assert line, printed.decode()
                printed += line
        reading = asyncio.create_task(process.stdout.read())
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        with contextlib.suppress(UnboundLocalError):
            await reading
