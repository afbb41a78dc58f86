# SPDX-License-Identifier: Apache-2.0
"""Real processes: a cluster of three nodes on this machine, with cheap hashing."""

from collections.abc import Iterator

import pytest
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Return a running cluster of three, for the tests of one module."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
