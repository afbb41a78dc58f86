# SPDX-License-Identifier: Apache-2.0
"""
Completes the software bill of materials that `make sbom` writes, and validates it.

    python deploy/release/sbom.py dist/sparecode-0.1.0.cdx.json

cyclonedx-bom lists the Python packages of an environment. The wheel also contains files
from npm, htmx, icons of Lucide and fonts of DejaVu, which no environment lists: this module adds them,
with their hash.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONSOLE = Path(__file__).parents[2] / "node" / "sparecode_node" / "console"
REGISTRY = "https://registry.npmjs.org"
HTMX = "htmx.org"
HTMX_FILE = CONSOLE / "static" / "htmx.min.js"
ICONS = "lucide-static"
ICONS_FOLDER = CONSOLE / "icons"
FONTS = "dejavu-fonts-ttf"
FONTS_FOLDER = CONSOLE / "fonts"
LICENSES = {FONTS: "Bitstream-Vera"}
"""Of packages that refer to a file instead: the file is in the wheel, too."""


def components() -> list[dict[str, Any]]:
    """Return what is from npm, with versions and archives from the package lock."""
    return [
        component(HTMX, HTMX_FILE.read_bytes()),
        component(ICONS, _together(ICONS_FOLDER.glob("*.svg"))),
        component(FONTS, _together(FONTS_FOLDER.glob("*.ttf"))),
    ]


def _together(files: Iterable[Path]) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(files))


def component(name: str, content: bytes) -> dict[str, Any]:
    """Return a component; *content* is what the wheel has of it, its files in order."""
    lock = json.loads((CONSOLE / "assets" / "package-lock.json").read_text())
    package = lock["packages"][f"node_modules/{name}"]
    algorithm, _, digest = package["integrity"].partition("-")
    purl = f"pkg:npm/{name}@{package['version']}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": package["version"],
        "purl": purl,
        "licenses": [{"license": {"id": LICENSES.get(name, package["license"])}}],
        "hashes": [
            {
                "alg": "SHA-256",
                "content": hashlib.sha256(content).hexdigest(),
            }
        ],
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"{REGISTRY}/{name}/-/{name}-{package['version']}.tgz",
                "hashes": [
                    {
                        "alg": algorithm.upper().replace("SHA", "SHA-"),
                        "content": base64.b64decode(digest).hex(),
                    }
                ],
            }
        ],
    }


def completed(bom: dict[str, Any]) -> dict[str, Any]:
    """Return the bill with what is from npm as dependencies of Sparecode."""
    more = components()
    refs = [each["bom-ref"] for each in more]
    root = bom["metadata"]["component"]["bom-ref"]
    dependencies = []
    for each in bom["dependencies"]:
        wanted = each.get("dependsOn", [])
        if each["ref"] == root:
            wanted = sorted([*wanted, *refs])
        dependencies.append({**each, **({"dependsOn": wanted} if wanted else {})})
    return {
        **bom,
        "components": [*bom["components"], *more],
        "dependencies": [*dependencies, *({"ref": ref} for ref in refs)],
    }


def main() -> int:
    """Complete the file that the argument names."""
    # Only in the environment of `make sbom`; tests use the functions above.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    (path,) = map(Path, sys.argv[1:])
    text = json.dumps(completed(json.loads(path.read_text())), indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        print(f"{path}: not a CycloneDX 1.6 file: {problem}", file=sys.stderr)
        return 1
    path.write_text(text)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
