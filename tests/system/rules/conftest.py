# SPDX-License-Identifier: Apache-2.0
"""One running cluster of three for every rule, with clocks that can be moved."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from tests.faults.clocks import NodeClock
from tests.system.rules.stage import Clocks, Stage

_RUNNING = pytest.StashKey[LocalCluster]()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """
    Stop the cluster after the last rule.

    A folder without `__init__.py` is no package: its fixtures would end with the run.
    """
    folder = item.path.parent
    running = item.config.stash.get(_RUNNING, None)
    if running and (nextitem is None or folder not in nextitem.path.parents):
        running.kill()


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    """Return a cluster that does not run yet."""
    return set_up(tmp_path_factory.mktemp("rules"), testing=True)


@pytest.fixture(scope="package")
def clocks(made: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    """Return the clocks of its nodes, which are moved together."""
    directory = tmp_path_factory.mktemp("clocks")
    return Clocks([NodeClock(node, directory) for node in made.nodes])


@pytest.fixture(scope="package")
def cluster(
    made: LocalCluster, clocks: Clocks, pytestconfig: pytest.Config
) -> Iterator[LocalCluster]:
    """Return the cluster, running by these clocks."""
    assert clocks.ahead_s == 0
    pytestconfig.stash[_RUNNING] = made
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest_asyncio.fixture
async def stage(cluster: LocalCluster, clocks: Clocks) -> AsyncIterator[Stage]:
    """Return clients of every node; at the end all replicas have one state."""
    async with Stage(cluster, clocks) as stage:
        yield stage
        await stage.until_equal()
