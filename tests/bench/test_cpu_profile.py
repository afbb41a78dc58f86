# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.bench.cpu_profile import (
    LOOP,
    NATIVE,
    Thread,
    garbage_of,
    garbage_table,
    kind_of,
    part_table,
    samples_in,
    since,
    thread_table,
)
from tests.bench.node_numbers.sitecustomize import Numbers
from tests.bench.numbers import NodeNumbers

RAW = """\
thread (7): MainThread;run (uvloop);authenticate (/a/sparecode_node/services/x.py:1) 3
thread (7): MainThread;run (uvloop) 1
thread (9): engine;tick (/a/sparecode_node/replication/raft/engine.py:2);\
apply (/a/sparecode_node/statemachine/machine.py:3);loads (/usr/lib/json/decoder.py:4) 2
thread (9): engine;tick (/a/sparecode_node/replication/raft/engine.py:2);\
apply (/a/sparecode_node/statemachine/machine.py:3) 1
"""


def test_a_sample_belongs_to_the_innermost_part_of_the_node():
    samples = samples_in(RAW)

    assert samples["7"] == Counter({"use case of the call": 3, LOOP: 1})
    assert samples["9"] == Counter({"applying: rules and SQLite": 1, "JSON": 2})


def test_threads_of_one_pool_are_counted_together():
    assert {kind_of(name) for name in ("kdf_0", "kdf_1")} == {"kdf"}
    unnamed = ("Thread-3 (_worker)", "Thread-12 (_worker)")
    assert {kind_of(name) for name in unnamed} == {"_worker"}
    assert kind_of("uvloop") == "uvloop"


def test_a_thread_that_began_meanwhile_counts_from_its_beginning():
    thread = Thread(name="kdf", cpu_s=2.0, switches=5, preempted=1)

    assert since(None, thread) == thread
    assert since(Thread(name="kdf", cpu_s=0.5, switches=2), thread).cpu_s == 1.5


def test_times_of_threads_are_split_between_primary_and_replicas():
    spent = {
        "n1": {
            "1": Thread(
                name="engine", cpu_s=0.3, waited_s=0.02, turns=300, switches=200
            )
        },
        "n2": {
            "2": Thread(
                name="engine", cpu_s=0.1, waited_s=0.01, turns=100, switches=100
            )
        },
    }

    lines = list(thread_table(spent, "n1", calls=100))

    # 30 ms of waiting in 400 turns.
    assert "| engine | 3000 | 1000 | 200 | 100 | 75 | 3.00 | 0.00 |" in lines
    assert lines[-1] == "| all | 3000 | 1000 | 200 | 100 | 75 | 3.00 | 0.00 |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_garbage_collector_gets_its_share_of_each_node():
    spent = {
        "n1": {"1": Thread(name="engine", cpu_s=0.05)},
        "n2": {"2": Thread(name="engine", cpu_s=0.2)},
    }
    counts = {"collections": 7, "full_collections": 1, "collecting_s": 0.01}
    counts["longest_collection_s"] = 0.004

    lines = list(garbage_table({"n2": counts, "n1": counts}, spent, "n1", calls=100))

    assert lines[2:] == [
        "| primary | 100.0 | 20.0% | 70.0 | 1 | 4.0 |",
        "| replica | 100.0 | 5.0% | 70.0 | 1 | 4.0 |",
    ]


def test_a_node_without_counts_of_its_collector_is_refused(tmp_path: Path):
    """It would show that the collector takes nothing."""
    numbers = NodeNumbers({"n1": tmp_path / "n1"})
    estate = Mock()
    estate.cluster.nodes = [Mock(node_id="n1")]
    with pytest.raises(RuntimeError, match="n1 has not counted"):
        garbage_of(numbers, estate)
    Numbers(tmp_path / "n1")["collections"] = 3
    assert garbage_of(numbers, estate)["n1"]["collections"] == 3


def test_a_part_gets_its_share_of_the_time_of_each_thread():
    spent = {
        "n1": {
            "1": Thread(name="engine", cpu_s=0.4),
            "2": Thread(name=NATIVE, cpu_s=0.1),
        }
    }
    samples = {"n1": {"1": Counter({"stamping": 3, LOOP: 1})}}

    lines = list(part_table(spent, samples, calls=100))

    assert lines[2:] == [
        "| stamping | 3000 |",
        f"| {LOOP} | 1000 |",
        f"| {NATIVE} | 1000 |",
        "| all | 5000 |",
    ]
