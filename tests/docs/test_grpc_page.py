# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/grpc.md, run as written, against a cluster like that of `make run`."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.__main__ import write_environment
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster
from local_cluster.setup import set_up

from sparecode_client import Admin

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/grpc.md"
REFERENCE = ROOT / "docs/grpc-reference.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """Return a folder like a checkout in which `make run` runs."""
    cluster = set_up(tmp_path / "var/local", testing=True, doors=True)
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    try:
        cluster.start()
        write_environment(cluster)
        register(cluster)
        yield tmp_path
    finally:
        cluster.kill()


def register(cluster: LocalCluster) -> None:
    """Register the agent whose certificate the page shows."""
    nodes = [node.admin_address for node in cluster.nodes]
    with Admin(nodes, ca=cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")


@pytest.mark.timeout(180)
def test_commands_of_the_page_can_be_copied(checkout: Path) -> None:
    """Every command works, from the list of methods to the decision on a passcode."""
    script = "".join(BLOCK.findall(PAGE.read_text()))
    here = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env={**os.environ, "PATH": f"{here}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "sparecode.v1.EmergencyAccessService/IssueTokencodes",
        '"SERVING"',
        "AUTHENTICATION_DECISION_REFUSED",
    ):
        assert words in done.stdout


def test_the_reference_explains_every_method_field_and_value() -> None:
    """Those of each file, with the words of its comments."""
    text = REFERENCE.read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| `\w+` \|", line)]
    assert all(not row.endswith("|  |") for row in rows)
    counted = 0
    for module in sorted((ROOT / "protos/sparecode/v1").glob("*_pb2.py")):
        file = importlib.import_module(f"sparecode.v1.{module.stem}").DESCRIPTOR
        for service in file.services_by_name.values():
            assert f"### {service.name}\n" in text
            counted += len(service.methods)
        for message in file.message_types_by_name.values():
            assert f"### {message.name}\n" in text
            counted += len(message.fields)
            counted += sum(len(each.values) for each in message.enum_types)
        for enum in file.enum_types_by_name.values():
            assert f"### {enum.name}\n" in text
            counted += len(enum.values)
    assert len(rows) == counted > 0
