# SPDX-License-Identifier: Apache-2.0
"""The metrics named in deploy/ and docs/ exist."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparecode_node.daemon.metrics.catalog import CATALOG, Kind

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yaml"
DASHBOARD = ROOT / "deploy/grafana/sparecode.json"
NAME = re.compile(r"\bsparecode_\w+")
SELECTOR = re.compile(r"\b(sparecode_\w+)\{([^}]*)\}")


def exposed() -> set[str]:
    """Return the names of all time series, as in PromQL."""
    names = set()
    for metric in CATALOG:
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
        else:
            names.add(metric.name)
    return names


def alert_expressions() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@pytest.mark.parametrize("read", [alert_expressions, dashboard_expressions])
def test_every_named_metric_exists(read):
    expressions = read()
    named = {name for each in expressions for name in NAME.findall(each)}
    assert named
    assert named - exposed() == set()


@pytest.mark.parametrize("read", [alert_expressions, dashboard_expressions])
def test_every_selected_label_exists(read):
    labels = {metric.name: set(metric.labels) for metric in CATALOG}
    for expression in read():
        for name, selectors in SELECTOR.findall(expression):
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            chosen = set(re.findall(r"(\w+)=", selectors))
            assert chosen <= labels[name if name in labels else base], expression


def test_names_and_labels_follow_prometheus_rules():
    for metric in CATALOG:
        assert re.fullmatch(r"sparecode_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert metric.meaning.endswith(".")
    assert len({metric.name for metric in CATALOG}) == len(CATALOG)


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken
                assert x < 24
                taken.add((x, y))


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: make system-packages"
)
@pytest.mark.parametrize(
    ("command", "file"), [("rules", ALERTS), ("config", PROMETHEUS)]
)
def test_promtool_accepts_the_files(command, file):
    done = subprocess.run(
        ["promtool", "check", command, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_reference_pages_match_the_code():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
