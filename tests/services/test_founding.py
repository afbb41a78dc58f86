# SPDX-License-Identifier: Apache-2.0
"""A cluster is initialized once, with the administrator that its founder named (P4)."""

import contextlib
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.people import founding
from sparecode_node.services.people.founding import (
    Founder,
    FoundingError,
    prepare_founding,
)
from sparecode_node.services.secrets.kdf import TESTING, Kdf
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.results import Applied

SEALING = Sealing(KeyRing.draw(SystemEntropy()))


class Answers:
    """A replicator that gives prepared answers and records its calls."""

    node_id = "n1"

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.calls = []

    async def propose(self, proposal, *, timeout_s):
        assert timeout_s > 0
        self.calls.append(proposal.call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> Path:
    """Prepare the founding of a cluster."""
    path = tmp_path / "bootstrap.json"
    with contextlib.closing(Kdf(TESTING, workers=1)) as kdf:
        await prepare_founding(
            path,
            administrator="Root",
            password="correct horse battery",
            sealing=SEALING,
            kdf=kdf,
            entropy=SystemEntropy(),
        )
    return path


def founder(path: Path) -> Founder:
    loaded = Founder.load(path, cluster_id=SEALING.cluster_id)
    assert loaded is not None
    return loaded


@pytest.mark.asyncio
async def test_file_is_deleted_once_the_founding_is_committed(path):
    replicator = Answers(Applied(index=1))
    await founder(path).run(replicator)
    (call,) = replicator.calls
    assert not path.exists()
    assert call.command.administrator == "root"
    assert call.command.cluster_id == SEALING.cluster_id
    assert call.request.caller == "node:n1"


@pytest.mark.asyncio
async def test_founding_is_proposed_until_it_is_decided(path, monkeypatch):
    """
    With the same request id, since an unknown outcome may have been a success.

    A restart in between reads the same id from the file.
    """
    monkeypatch.setattr(founding, "RETRY_S", 0)
    first = Answers(NoQuorumError(), OutcomeUnknownError(), TypeError("it dies"))
    with pytest.raises(TypeError):
        await founder(path).run(first)
    assert path.exists()
    second = Answers(Applied(index=1))
    await founder(path).run(second)
    ids = {call.request.request_id for call in (*first.calls, *second.calls)}
    assert len(first.calls) == 3
    assert len(ids) == 1


@pytest.mark.asyncio
async def test_second_founding_changes_nothing_and_is_deleted(path, caplog):
    await founder(path).run(Answers(Rejected(Reason.ALREADY_INITIALIZED)))
    assert not path.exists()
    assert "was not added" in caplog.text


def test_node_without_the_file_founds_nothing(tmp_path):
    assert Founder.load(tmp_path / "bootstrap.json", cluster_id="c") is None


@pytest.mark.asyncio
async def test_file_of_another_cluster_is_refused(path):
    with pytest.raises(FoundingError, match="the key ring of another cluster"):
        Founder.load(path, cluster_id="another")
