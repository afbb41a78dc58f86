# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes manifests as kubectl renders them, each against the strict schema."""

from pathlib import Path

import kubernetes_validate
import yaml

from tests.packages.engine import EngineError, run

MANIFESTS = Path(__file__).parents[2] / "deploy/kubernetes"


def rendered(folder: Path) -> list[dict[str, object]]:
    """Return the resources that `kubectl apply -k` would send."""
    text = run("kubectl", "kustomize", folder).stdout
    return [each for each in yaml.safe_load_all(text) if each]


def check(folder: Path) -> str:
    """Check the resources of a folder; return their kinds. Raises `EngineError`."""
    resources = rendered(folder)
    version = kubernetes_validate.latest_version()
    for each in resources:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise EngineError(f"{folder.name}, {each['kind']}: {error}") from error
    kinds = ", ".join(sorted(str(each["kind"]) for each in resources))
    return f"valid for Kubernetes {version}: {kinds}"
