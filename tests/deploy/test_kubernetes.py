# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes manifests agree with the schemas, each other and the node."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from sparecode_node.config import load_config

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
OLDEST = "1.27"
"""The first with `unhealthyPodEvictionPolicy` in it; docs/deploy.md names it, too."""
FILES = sorted(
    path for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml"
)


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def resources() -> dict[tuple[str, str], dict]:
    return {
        (each["kind"], each["metadata"]["name"]): each
        for path in FILES
        for each in documents(path)
    }


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_manifest_matches_the_schema(path, version):
    result = documents(path)
    assert result
    for each in result:
        assert kubernetes_validate.validate(each, version, strict=True)


def test_kustomizations_name_every_file():
    for path in MANIFESTS.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text())
        named = set(kustomization["resources"])
        there = {file.name for file in path.parent.glob("*.yaml")}
        assert named == there - {"kustomization.yaml"}
        for generator in kustomization["configMapGenerator"]:
            for entry in generator["files"]:
                assert (path.parent / entry.rpartition("=")[2]).exists()


def test_every_pod_has_its_configuration_and_its_port():
    """Every name that one file uses is defined in another."""
    result = resources()
    nodes = result["StatefulSet", "sparecode"]
    pod = nodes["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    names = {f"sparecode-{n}" for n in range(nodes["spec"]["replicas"])}
    assert {path.stem for path in (MANIFESTS / "nodes").glob("*.toml")} == names
    for path in (MANIFESTS / "nodes").glob("*.toml"):
        config = load_config(path, {})
        assert config.node.id == path.stem
        assert set(config.members) == names
        for member, address in config.members.items():
            assert address.host == f"{member}.{nodes['spec']['serviceName']}"
        for name, port in ports.items():
            listener = getattr(config, name)
            assert listener.listen.port == port
            assert listener.listen.host != "127.0.0.1"
    labels = pod["metadata"]["labels"]
    assert nodes["spec"]["selector"]["matchLabels"] == labels
    for name in ("sparecode", "sparecode-members"):
        service = result["Service", name]["spec"]
        assert service["selector"] == labels
        for port in service["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    budget = result["PodDisruptionBudget", "sparecode"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    policy = result["NetworkPolicy", "sparecode"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels


def test_pod_sees_its_own_key_and_no_other_pods():
    """Of the secret's files those below its name, and its node.toml names them."""
    nodes = resources()["StatefulSet", "sparecode"]["spec"]
    pod = nodes["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    named = [
        each["name"]
        for each in pod["volumes"]
        if each.get("secret", {}).get("secretName") == "sparecode-certificates"
    ]
    assert named == ["certificates"]
    mount = mounts["certificates"]
    assert mount["subPathExpr"] == "$(POD_NAME)"
    assert mount["readOnly"]
    items = volumes["certificates"]["secret"]["items"]
    placed = {each["path"]: each["key"] for each in items}
    for number in range(nodes["replicas"]):
        pod_name = f"sparecode-{number}"
        config = load_config(MANIFESTS / f"nodes/{pod_name}.toml", {})
        for kind in ("pem", "key"):
            assert placed.pop(f"{pod_name}/node.{kind}") == f"{pod_name}.{kind}"
        for listener in (config.agents, config.peers, config.admin, config.console):
            assert str(listener.certificate) == f"{mount['mountPath']}/node.pem"
            assert str(listener.key) == f"{mount['mountPath']}/node.key"
    assert placed == {}


def test_node_may_write_its_ring_and_only_read_the_wrapping_key():
    """(T3, P5) Otherwise no key could be rotated."""
    nodes = resources()["StatefulSet", "sparecode"]["spec"]["template"]["spec"]
    (container,) = nodes["containers"]
    writable = [
        Path(each["mountPath"])
        for each in container["volumeMounts"]
        if not each.get("readOnly")
    ]
    for path in (MANIFESTS / "nodes").glob("*.toml"):
        config = load_config(path, {})
        assert any(config.keys_file.is_relative_to(each) for each in writable)
        assert not config.keys_file.is_relative_to(config.node.data_dir)
        for read in (config.wrapping_key_file, config.given_ring_file):
            assert read is not None
            assert not any(read.is_relative_to(each) for each in writable)


def test_nodes_do_not_wait_for_each_other_to_be_ready():
    """A node needs others to be ready: started one by one, the first never would be."""
    result = resources()
    assert (
        result["StatefulSet", "sparecode"]["spec"]["podManagementPolicy"] == "Parallel"
    )
    members = result["Service", "sparecode-members"]["spec"]
    assert members["publishNotReadyAddresses"]
    assert members["clusterIP"] == "None"


def test_probes_ask_for_liveness_and_readiness():
    """Losing the quorum must not restart a pod: it is not ready, but alive."""
    template = resources()["StatefulSet", "sparecode"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    calls = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert calls == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_the_page_tells_how_long_a_start_may_take():
    """An operator raises the limit for a start that makes a large state shorter."""
    template = resources()["StatefulSet", "sparecode"]["spec"]["template"]
    probe = template["spec"]["containers"][0]["startupProbe"]
    times, period_s = probe["failureThreshold"], probe["periodSeconds"]
    page = " ".join((ROOT / "docs/operations.md").read_text().split())
    assert (
        f"after {times * period_s // 60} minutes (`startupProbe`: {times} times {period_s} "
        "seconds)"
    ) in page
    raised = 900
    assert (
        f"`failureThreshold` in your overlay for this restart, such as to {raised}"
        in page
    )
    assert raised * period_s == 30 * 60, "half an hour, as the page says"


def test_founding_file_is_written_where_the_first_node_looks():
    result = resources()
    claim = result["PersistentVolumeClaim", "data-sparecode-0"]["spec"]
    (template,) = result["StatefulSet", "sparecode"]["spec"]["volumeClaimTemplates"]
    assert claim == template["spec"]
    first = MANIFESTS / "nodes/sparecode-0.toml"
    assert (MANIFESTS / "founding/sparecode-0.toml").read_text() == first.read_text()


def test_cluster_starts_with_the_files_of_the_page_s_commands(tmp_path):
    """Certificates that name every pod, and the command of the founding job."""
    page = (ROOT / "docs/deploy.md").read_text()
    section = page.partition("\n## In Kubernetes\n")[2].partition("\n## ")[0]
    block = re.search(r"^    ```\n(.*?)^    ```$", section, re.MULTILINE | re.DOTALL)
    assert block is not None
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("bash", "-euo", "pipefail", "-c", block[1])
    made = tmp_path / "certificates"
    for path in (MANIFESTS / "nodes").glob("*.toml"):
        config = load_config(path, {})
        certificate = x509.load_pem_x509_certificate(
            (made / f"{path.stem}.pem").read_bytes()
        )
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value.get_values_for_type(x509.DNSName)
        assert config.members[config.node.id].host in names
        assert "sparecode.sparecode.svc" in names

    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("correct horse battery staple\n")
    job = resources()["Job", "sparecode-founding"]["spec"]["template"]["spec"]
    (container,) = job["containers"]
    (tmp_path / "sparecode-0.toml").write_text(
        (MANIFESTS / "founding/sparecode-0.toml")
        .read_text()
        .replace("/var/lib/sparecode", str(tmp_path / "volume"))
        .replace("/etc/sparecode/keys", str(tmp_path))
    )
    places = {
        "/etc/sparecode/nodes": str(tmp_path),
        "/etc/sparecode/administrator/password": str(password),
    }
    arguments = []
    for each in container["args"]:
        for theirs, ours in places.items():
            each = each.replace(theirs, ours)  # noqa: PLW2901
        arguments.append(each)
    run("sparecode-node", *arguments)
    ring = tmp_path / "volume/keys/keyring.json"
    assert ring.stat().st_mode & 0o777 == 0o600
    assert ring.read_text() != (tmp_path / "keyring.json").read_text()
