# SPDX-License-Identifier: Apache-2.0
"""
A node of a Sparecode cluster.

The layers, the highest first; each imports only layers below it (node/DESIGN.md):

    __main__
    tool | testing
    daemon
    membership
    rpc | console | radius | http
    web
    services
    replication | queries
    statemachine
    domain | durable_files | fault_points
"""

import importlib
import sys


def main() -> None:
    """Run `sparecode-node`, or print which extra is missing: `sparecode` has the client."""
    try:
        program = importlib.import_module("sparecode_node.__main__")
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in {"", "sparecode", "sparecode_node"}:
            raise
        sys.exit(
            f"sparecode-node: {name} is not installed: a node needs the extra `node`. "
            'Run: pip install "sparecode[node]"'
        )
    program.main()
