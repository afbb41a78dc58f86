# SPDX-License-Identifier: Apache-2.0
"""
The image and compose.yaml, without a container engine.

The steps of the Dockerfile run in a clean folder that holds only what COPY would bring;
the ARGs name folders of the test.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from sparecode_node.config import load_config

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy/container"
COMPOSE = CONTAINER / "compose.yaml"


@pytest.fixture(scope="module")
def steps():
    # The parser writes into the folder of what it reads; it is given the text alone.
    return parsed((CONTAINER / "Dockerfile").read_text()).structure


def parsed(text: str) -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO(text.encode()))


def values(steps, instruction):
    return [each["value"] for each in steps if each["instruction"] == instruction]


def test_image_has_no_root_and_is_as_small_as_its_base(steps):
    assert values(steps, "USER") == ["10001:10001"]
    bases = values(steps, "FROM")
    assert all(base.startswith("python:3.11-slim") for base in bases)
    last = max(n for n, each in enumerate(steps) if each["instruction"] == "FROM")
    # Nothing is installed in the last stage: what it has comes from the first.
    assert not values(steps[last:], "RUN")


@pytest.mark.long
def test_steps_of_the_image_run_in_a_clean_folder(steps, tmp_path):
    build = tmp_path / "build"
    (dist := build / "dist").mkdir(parents=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", dist, ROOT)
    arguments = {
        "PREFIX": str(tmp_path / "opt/sparecode"),
        "DATA": str(tmp_path / "var/lib/sparecode"),
    }
    assert {value.partition("=")[0] for value in values(steps, "ARG")} == set(arguments)
    (tmp_path / "opt").mkdir()
    copied = next(value for value in values(steps, "COPY") if "--from" not in value)
    *sources, _ = copied.split()
    for source in sources:
        for path in (build if source.startswith("dist") else ROOT).glob(source):
            (build / path.name).write_bytes(path.read_bytes())
    # The image has a `python`; Debian has that name in virtual environments only.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for step in values(steps, "RUN"):
        run("sh", "-c", step, cwd=build, env={"PATH": path, **arguments})
    program = Path(arguments["PREFIX"], "bin/sparecode-node")
    assert "sparecode-node" in run(program, "--version", env={"PATH": "/usr/bin:/bin"})
    assert Path(arguments["DATA"]).stat().st_mode & 0o777 == 0o700
    # Nothing that could install more software is there.
    assert not list(Path(arguments["PREFIX"], "bin").glob("pip*"))


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_compose_file_matches_its_schema():
    """The schema is the one of the Compose Specification that check-jsonschema ships."""
    output = run(
        *(sys.executable, "-m", "check_jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", COMPOSE),
    )
    assert output.startswith("ok -- validation done")


def test_compose_confines_every_node():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"n1", "n2", "n3"}
    for name, service in services.items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert f"{name}:/var/lib/sparecode" in service["volumes"]
        # Ports of members and metrics are not published.
        assert not {"7301", "7303"} & {
            port.rpartition(":")[2] for port in service["ports"]
        }


def test_configuration_of_a_container_is_valid():
    config = load_config(CONTAINER / "node.toml", {})
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(config.members) == set(services)
    assert {address.host for address in config.members.values()} == set(services)
    # (T3, P5) The ring is written when keys are rotated: on the volume, not /etc.
    volume = Path("/var/lib/sparecode")
    assert config.keys_file.is_relative_to(volume)
    assert config.wrapping_key_file == CONTAINER / "wrapping.key"
    assert config.given_ring_file == CONTAINER / "keyring.json"
    assert not config.keys_file.is_relative_to(config.node.data_dir)


def test_version_of_the_image_is_that_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = yaml.safe_load(COMPOSE.read_text())["services"]["n1"]["image"]
    assert image == f"sparecode:{version}"
    for path in (ROOT / "deploy/kubernetes").rglob("kustomization.yaml"):
        assert f"newTag: {version}" in path.read_text()


STUBS = """
make() { test "$*" = wheel; }
chown() { test "$1" = -R && test -d "$3"; }
docker() {
    echo "$*" >> "$HOME/docker.log"
    case "$*" in "compose run "*) cp -Rp cluster "$HOME/given";; esac
}
"""
"""What the page's commands are that cannot be run here, and what they find."""


def test_commands_of_the_page_give_every_container_what_it_needs(tmp_path):
    """
    The commands run as printed, in a copy.

    The first node starts, and no ring is left.
    """
    page = (ROOT / "docs/deploy.md").read_text()
    section = page.partition("\n## In containers")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    shutil.copytree(CONTAINER, tmp_path / "deploy/container")
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = STUBS + "".join(blocks)
    run("bash", "-euo", "pipefail", "-c", script, cwd=tmp_path, env=environment)
    assert (tmp_path / "docker.log").read_text().splitlines() == [
        "compose build",
        "compose run --rm n1 --config /etc/sparecode/node.toml init",
        "compose up --wait",  # Only then may the rings go that were given.
    ]
    assert not list((tmp_path / "deploy/container").rglob("keyring.json"))
    for name in ("n1", "n2", "n3"):
        file = tmp_path / "given" / name / "node.toml"
        text = file.read_text()
        file.write_text(text.replace("/var/lib/sparecode", str(tmp_path / "volume")))
        config = load_config(file, {})
        assert config.node.id == name
        for listener in (config.agents, config.peers, config.admin):
            assert listener.certificate.exists()
            assert listener.key.stat().st_mode & 0o777 == 0o600
        assert config.agents.ca.exists()
        assert config.peers.ca.exists()
        for secret in (config.wrapping_key_file, config.given_ring_file):
            assert secret.stat().st_mode & 0o777 == 0o600
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("correct horse battery staple\n")
    run(
        *("sparecode-node", "--config", tmp_path / "given/n1/node.toml", "init"),
        *("--administrator", "admin", "--password-file", password),
        env=environment,
    )
    assert (tmp_path / "volume/keys/keyring.json").exists()
