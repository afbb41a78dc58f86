# SPDX-License-Identifier: Apache-2.0
"""A real nginx with the configuration of the example, in front of `portal.py`."""

import asyncio
import datetime as dt
import shutil
import ssl
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn
from local_cluster.cluster import free_ports
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import portal
from sparecode_client.testing import FakeCluster
from sparecode_node.membership.certificates import write_certificates
from tests.http.door import HOST, trusting

SITE = Path(__file__).parents[1] / "examples/nginx/site.conf"
STARTED_S = 60.0

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None,
    reason="nginx is missing: apt-get install nginx",
)


def configuration(folder: Path, portal_port: int, site_port: int, port: int) -> Path:
    """Write nginx.conf with the site of the example on our ports; return its path."""
    site = SITE.read_text()
    for written, here in (
        ("listen 443 ssl", f"listen {HOST}:{port} ssl"),
        ("/etc/nginx/portal", str(folder / "tls" / "n1")),
        ("127.0.0.1:8000", f"{HOST}:{portal_port}"),
        ("127.0.0.1:8080", f"{HOST}:{site_port}"),
    ):
        assert written in site, written
        site = site.replace(written, here)
    paths = "".join(
        f"{each}_temp_path {folder};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths}\n{site}\n}}\n"
    )
    return path


async def until_served(client: httpx.AsyncClient) -> httpx.Response:
    """Return the first answer of nginx, which has just started."""
    async with asyncio.timeout(STARTED_S):
        while True:
            try:
                return await client.get("/")
            except httpx.ConnectError:
                await asyncio.sleep(0.05)


@pytest.mark.asyncio
async def test_the_site_opens_after_a_login_alone(tmp_path: Path) -> None:
    """The application behind it learns the name from nginx, whatever a browser says."""
    (tmp_path / "tls").mkdir()
    write_certificates(
        tmp_path / "tls",
        members=["n1"],
        agents=["vpn"],
        hosts=[HOST],
        now=dt.datetime.now(dt.UTC),
    )

    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse(f"Hello {request.headers['x-user']}")  # type: ignore[attr-defined]

    with FakeCluster() as cluster:
        token = cluster.add_user("alice", pin="4719")
        cluster.agent("vpn")
        ports = free_ports(3)
        servers = [
            uvicorn.Server(
                uvicorn.Config(
                    app, host=HOST, port=port, log_config=None, lifespan="on"
                )
            )
            for app, port in (
                (portal.app(lambda: cluster.async_agent("vpn")), ports[0]),
                (Starlette(routes=[Route("/{path:path}", hello)]), ports[1]),
            )
        ]
        running = [asyncio.create_task(each._serve()) for each in servers]
        async with asyncio.timeout(STARTED_S):  # nginx says so if they do not listen.
            while not all(each.started for each in servers):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        nginx = await asyncio.create_subprocess_exec(
            *("nginx", "-p", str(tmp_path), "-c", str(configuration(tmp_path, *ports))),
            stdout=sys.stderr,
            stderr=sys.stderr,
        )
        context: ssl.SSLContext = trusting(tmp_path / "tls")
        try:
            async with httpx.AsyncClient(
                base_url=f"https://{HOST}:{ports[2]}",
                verify=context,
                trust_env=False,
                timeout=STARTED_S,
            ) as browser:
                closed = await until_served(browser)
                assert (closed.status_code, closed.headers["location"][-6:]) == (
                    302,
                    "/login",
                )
                assert "Hello" not in closed.text
                typed = {"username": "alice", "passcode": token.passcode()}
                assert (await browser.post("/login", data=typed)).status_code == 303
                opened = await browser.get("/", headers={"x-user": "root"})
                assert (opened.status_code, opened.text) == (200, "Hello alice")
                browser.cookies.clear()
                assert (await browser.post("/login", data=typed)).status_code == 403
                assert (await browser.get("/")).status_code == 302
        finally:
            nginx.terminate()
            await nginx.wait()
            for each in servers:
                each.should_exit = True
            await asyncio.gather(*running)
