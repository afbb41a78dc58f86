# SPDX-License-Identifier: Apache-2.0
"""
Give a node another number of hashing workers: with this folder in PYTHONPATH.

`tests.bench.shed` compares numbers with it. A node has one for each core, and no setting.
"""

import functools
import os

# As the node does before it imports gRPC, which reads it then.
os.environ.pop("GRPC_VERBOSITY", None)

from sparecode_node.services.secrets.kdf import Kdf

WORKERS = int(os.environ["SPARECODE_BENCH_HASHING_WORKERS"])
Kdf.__init__ = functools.partialmethod(Kdf.__init__, workers=WORKERS)  # type: ignore[assignment,method-assign]
