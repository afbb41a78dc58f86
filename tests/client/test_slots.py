# SPDX-License-Identifier: Apache-2.0
"""The slot table: slots of names, and what is wrong with a file."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_client.clusters.slots import (
    SLOTS,
    SlotTable,
    SlotTableError,
    canonical,
    slot_of,
)
from sparecode_node.domain.users import fold

TABLE = """
version = 3

[clusters.east]
nodes = ["east-1.example.com", "east-2.example.com:7400"]
ca = "east-ca.pem"
certificate = "vpn.pem"
key = "/etc/vpn/vpn.key"
slots = ["0-2047", "4000"]

[clusters.west]
nodes = ["west-1.example.com"]
ca = "west-ca.pem"
certificate = "vpn.pem"
key = "/etc/vpn/vpn.key"
slots = ["2048-3999", "4001-4095"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "clusters.toml"
    path.write_text(text)
    return path


@given(st.text())
def test_client_and_nodes_fold_names_alike(name: str) -> None:
    """A name that they fold in two ways would be looked for in the wrong cluster."""
    assert canonical(name) == fold(name)
    assert 0 <= slot_of(name) < SLOTS
    assert slot_of(name) == slot_of(fold(name))


def test_slots_of_names_never_change() -> None:
    """The table of another release, and of other programs, has the same slots."""
    names = ["alice", "  ALICE ", "straße", "STRASSE", "\uff42\uff4f\uff42", ""]
    assert [slot_of(name) for name in names] == EXPECTED


EXPECTED = [701, 701, 365, 365, 2075, 3643]


def test_table_gives_each_name_its_cluster(tmp_path: Path) -> None:
    table = SlotTable.read(write(tmp_path, TABLE))

    assert table.version == 3
    assert len(table.owners) == SLOTS
    assert {table.owners[slot] for slot in (0, 2047, 4000)} == {"east"}
    assert {table.owners[slot] for slot in (2048, 3999, 4001, 4095)} == {"west"}
    alice = table.cluster_of("Alice")
    assert alice.name == "east"
    assert alice.nodes == ("east-1.example.com:7300", "east-2.example.com:7400")
    assert alice.ca == str(tmp_path / "east-ca.pem")
    assert alice.key == "/etc/vpn/vpn.key"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version = 3", "", "version must be a whole number"),
        ("version = 3", "version = true", "version must be a whole number"),
        ("version = 3", "version = 0", "version must be a whole number"),
        ("version = 3", "version = 3\nslot = 1", "unknown: slot"),
        ("4001-4095", "4001-4094", "1 slots have no cluster; the first is 4095"),
        ("4001-4095", "4000-4095", "slot 4000 is given to east and to west"),
        ("4001-4095", "4001-4096", "'4001-4096' is not a slot from 0 to 4095"),
        ("4001-4095", "4095-4001", "is not a slot"),
        ("4001-4095", "-1", "is not a slot"),
        ('["0-2047", "4000"]', '"0-2047"', "clusters.east.slots must be a list"),
        ("east-1.example.com", "east 1", "clusters.east.nodes: 'east 1' is not"),
        ('["west-1.example.com"]', "[]", "clusters.west.nodes: at least one node"),
        ('["west-1.example.com"]', "[7]", "clusters.west.nodes must be a list"),
        ('ca = "west-ca.pem"\n', "", "clusters.west needs exactly"),
        ('ca = "west-ca.pem"', "ca = 7", "clusters.west.ca must name a file"),
        ("[clusters.west]", "[other.west]", "unknown: other"),
        ("[clusters.east]", "[clusters.east", "clusters.toml"),
    ],
)
def test_wrong_table_names_what_is_wrong(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert before in TABLE
    with pytest.raises(SlotTableError) as caught:
        SlotTable.read(write(tmp_path, TABLE.replace(before, after, 1)))
    assert words in str(caught.value)
    assert "clusters.toml" in str(caught.value)


def test_table_without_clusters_is_refused() -> None:
    with pytest.raises(SlotTableError, match="at least one"):
        SlotTable.of({"version": 1})


def test_table_of_the_page_is_a_slot_table(tmp_path: Path) -> None:
    """Readers of docs/clusters.md copy it."""
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    [text] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert set(SlotTable.read(write(tmp_path, text)).clusters) == {"east", "west"}
