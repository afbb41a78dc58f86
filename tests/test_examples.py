# SPDX-License-Identifier: Apache-2.0
"""
The programs in `examples/` and on the page, each run against a cluster in this process.

`examples/test_sign_in.py` is an example itself, and runs on its own.
"""

import ast
import asyncio
import re
import runpy
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

import flask_login
import help_desk
import portal
import sign_in
import watch_codes
from sign_in_async import sign_in_all
from sparecode_client import Agent
from sparecode_client.testing import ADMINISTRATOR, PASSWORD, FakeCluster

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as cluster:
        yield cluster


def test_every_example_is_on_the_page_and_in_a_test():
    page = (ROOT / "examples/README.md").read_text()
    tests = Path(__file__).read_text()
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert names == set(re.findall(r"\]\((\w+\.py)\)", page))
    for name in names - {"test_sign_in.py"}:
        stem = name.removesuffix(".py")
        assert re.search(rf"^(import|from) {stem}\b", tests, re.MULTILINE)


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [("", 0, "Welcome."), ("4719000000", 1, "Wrong passcode.")],
    ids=["right", "wrong"],
)
def test_sign_in_at_the_terminal(
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    code: int,
    words: str,
):
    user = f"terminal{code}"
    token = cluster.add_user(user, pin="4719")
    given = {}

    def agent(nodes: list[str], **files: str) -> Agent:
        given.update(nodes=nodes, **files)
        return cluster.agent("vpn")

    monkeypatch.setattr(sign_in, "Agent", agent)
    monkeypatch.setattr("getpass.getpass", lambda _: typed or token.passcode())
    monkeypatch.setattr("sys.argv", ["sign_in.py", user])
    for name in ("AGENT_NODES", "CA", "AGENT_CERTIFICATE", "AGENT_KEY"):
        monkeypatch.setenv(f"SPARECODE_{name}", f"{name.lower()},b")

    assert sign_in.main() == code
    assert capsys.readouterr().out == f"{words}\n"
    assert given["nodes"] == ["agent_nodes", "b"]
    assert given["key"] == "agent_key,b"


def test_sign_in_with_a_new_pin(cluster: FakeCluster):
    token = cluster.add_user("newpin", pin="4719")
    cluster.admin().clear_pin(token.serial)
    answers = iter([token.tokencode(), "3682", token.tokencode()])

    assert sign_in.sign_in(cluster.agent("vpn"), "newpin", lambda _: next(answers))


def test_many_users_sign_in_at_a_time(cluster: FakeCluster):
    tokens = [cluster.add_user(f"user{number}", pin="4719") for number in range(3)]
    passcodes = {each.username: each.passcode() for each in tokens}
    cluster.agent("vpn")

    async def run() -> dict[str, bool | None]:
        async with cluster.async_agent("vpn") as agent:
            return await sign_in_all(agent, {**passcodes, "nobody": "4719000000"})

    assert asyncio.run(run()) == {**dict.fromkeys(passcodes, True), "nobody": False}


def test_without_a_quorum_no_user_has_an_answer(cluster: FakeCluster):
    token = cluster.add_user("alone")
    cluster.agent("vpn")

    async def run() -> dict[str, bool | None]:
        async with cluster.async_agent("vpn") as agent:
            with cluster.no_quorum():
                return await sign_in_all(agent, {"alone": token.passcode()})

    assert asyncio.run(run()) == {"alone": None}


def test_the_help_desk_issues_codes_and_sees_who_refuses_them(
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    token = cluster.add_user("lost", pin="4719")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    cluster.register_agent("portal", restricted=True)
    monkeypatch.setattr(
        help_desk,
        "Admin",
        lambda nodes, ca: type(cluster.admin()).over(cluster.async_admin()),
    )
    monkeypatch.setattr("sys.argv", ["help_desk.py", "lost"])
    for name, value in {
        "NODES": "n1",
        "CA": "ca.pem",
        "ADMINISTRATOR": ADMINISTRATOR,
        "PASSWORD_FILE": str(tmp_path / "password"),
    }.items():
        monkeypatch.setenv(f"SPARECODE_{name}", value)

    assert help_desk.main() == 0
    output = capsys.readouterr()
    codes = output.out.split()
    assert len(codes) == 5
    assert "The allow lists of these agents exclude the user: portal." in output.err
    agent = cluster.agent("vpn")
    assert agent.authenticate("lost", token.passcode(codes[0])).accepted
    assert not agent.authenticate("lost", token.passcode(codes[0])).accepted


def test_tokens_whose_codes_run_out_are_found(cluster: FakeCluster):
    few, many = (cluster.add_user(f"codes{count}") for count in (2, 5))
    few.issue_codes(2)
    many.issue_codes(5)

    serials = [each.serial for each in watch_codes.running_out(cluster.admin())]

    assert few.serial in serials
    assert many.serial not in serials


def test_codes_expire_when_time_passes(cluster: FakeCluster):
    token = cluster.add_user("later")
    issued = cluster.admin().issue_tokencodes(
        token.serial, count=1, lifetime=timedelta(days=1)
    )
    cluster.advance(timedelta(days=2))

    answer = cluster.agent("vpn").authenticate("later", issued.codes[0].code)

    assert not answer.accepted
    with pytest.raises(ValueError, match="never goes back"):
        cluster.advance(timedelta(days=-1))


def test_the_portal_signs_in_for_nginx(cluster: FakeCluster):
    """A code opens once, a new PIN is asked for, and a stale cookie opens nothing."""
    token = cluster.add_user("portal-user", pin="4719")
    cluster.agent("vpn")
    app = portal.app(lambda: cluster.async_agent("vpn"))

    async def run() -> None:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="https://portal.test"
            ) as browser,
        ):
            typed = {"username": "portal-user", "passcode": token.passcode()}
            assert (await browser.get("/auth")).status_code == 401
            assert (await browser.post("/login", data=typed)).status_code == 303
            signed_in = await browser.get("/auth")
            assert signed_in.status_code == 204
            assert signed_in.headers["X-User"] == "portal-user"
            browser.cookies.clear()
            assert (await browser.post("/login", data=typed)).status_code == 403
            assert (await browser.get("/auth")).status_code == 401

            await asyncio.to_thread(cluster.admin().clear_pin, token.serial)
            typed = {"username": "portal-user", "passcode": token.tokencode()}
            step = await browser.post("/login", data=typed)
            assert "A new PIN" in step.text
            assert (await browser.get("/auth")).status_code == 401
            typed = {"new_pin": "3682", "tokencode": token.tokencode()}
            assert (await browser.post("/login", data=typed)).status_code == 303
            assert (await browser.get("/auth")).status_code == 204

            browser.cookies.clear()
            with cluster.no_quorum():
                assert (await browser.post("/login", data=typed)).status_code == 503

    asyncio.run(run())


def test_a_flask_application_signs_in(cluster: FakeCluster):
    """A code opens once; without a decision no one enters."""
    token = cluster.add_user("flask-user", pin="4719")
    app = flask_login.create_app(cluster.agent("vpn"), "a key")
    typed = {"username": "flask-user", "passcode": token.passcode()}
    browser, other = app.test_client(), app.test_client()
    secure = {"base_url": "https://flask.test"}
    assert browser.post("/login", data=typed, **secure).status_code == 303
    assert browser.get("/", **secure).text == "Welcome."
    assert other.post("/login", data=typed, **secure).status_code == 403
    assert other.get("/", **secure).status_code == 302
    with cluster.no_quorum():
        assert other.post("/login", data=typed, **secure).status_code == 503


def test_python_on_the_page_can_be_copied(tmp_path: Path):
    """Every block parses and imports, and the test in one of them passes."""
    blocks = BLOCK.findall(PAGE.read_text())
    imports = [
        ast.unparse(node)
        for block in blocks
        # What is awaited stands inside of a coroutine.
        for node in ast.walk(
            ast.parse(f"async def program():\n{textwrap.indent(block, '    ')}")
        )
        if isinstance(node, ast.ImportFrom)
    ]
    (example,) = (each for each in blocks if "def test_" in each)
    file = tmp_path / "example.py"
    file.write_text("\n".join([*imports, example]))

    names = runpy.run_path(str(file))

    names["test_a_code_opens_once"]()
    assert {"Agent", "Admin", "OutcomeUnknown", "FakeCluster"} <= names.keys()
