# SPDX-License-Identifier: Apache-2.0
"""Charts of throughput and latency over the number of clients."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # Needs no screen.
from matplotlib import pyplot as plt
from matplotlib.ticker import StrMethodFormatter

CURVES = {
    "echo with mutual TLS": "raw echo with mutual TLS",
    "authenticate, codes": "emergency codes, three nodes",
    "authenticate, codes, one node": "emergency codes, one node",
    "authenticate, TOTP": "TOTP, three nodes",
    "authenticate, codes, production hashing, separate sessions": (
        "emergency codes, three nodes, production hashing"
    ),
}


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the loads of `CURVES` into an image file."""
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 8), layout="constrained"
    )
    for name, label in CURVES.items():
        points = sorted(
            (each["clients"], each["per_s"], each["p50_ms"])
            for each in results
            if each["name"] == name and "per_s" in each
        )
        if points:
            clients, per_s, p50_ms = zip(*points, strict=True)
            above.plot(clients, per_s, marker="o", label=label)
            below.plot(clients, p50_ms, marker="o", label=label)
    above.set_ylabel("answers a second")
    below.set_ylabel("p50 in ms")
    below.set_xlabel("clients at once")
    for axes in (above, below):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(visible=True, alpha=0.3)
        axes.xaxis.set_major_formatter(
            StrMethodFormatter("{x:.0f}")
        )  # 64, not 2 to the 6th.
    # Below the charts: inside it would cover a curve.
    figure.legend(
        *above.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize="small",
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
