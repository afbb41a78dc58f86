# SPDX-License-Identifier: Apache-2.0
"""
The text of a checkpoint file, which two distributions write (U2).

Nodes write it into archives, and `sparecode audit checkpoint` writes it for people. The
client shares no code with the nodes, so that it checks them independently. A verifier
reads files of both, and of all releases: this text stays as it is.
"""

from pathlib import Path

from sparecode_client.audit.checkpoints import checkpoint_text, read_checkpoint
from sparecode_client.values.audit import Checkpoint as ClientCheckpoint
from sparecode_node.services.cluster import archive_files
from sparecode_node.services.cluster.checkpoints import Checkpoint

FIELDS = {
    "cluster_id": "c-Zo\u00eb",
    "sequence": 10_000,
    "head": bytes(range(32)),
    "at_ms": 1_700_000_100_000,
    "key_id": 3,
    "public_key": bytes(range(32, 64)),
    "signature": bytes(range(64, 128)),
}
TEXT = r"""{
  "cluster_id": "c-Zo\u00eb",
  "sequence": 10000,
  "head": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
  "at_ms": 1700000100000,
  "key_id": 3,
  "public_key": "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
  "signature": "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl9gYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+fw=="
}
"""


def test_both_distributions_write_one_text(tmp_path: Path) -> None:
    """(U2) And the client reads back what both wrote."""
    assert archive_files._text(Checkpoint(**FIELDS)).decode() == TEXT
    assert checkpoint_text(ClientCheckpoint(**FIELDS)) == TEXT
    file = tmp_path / "checkpoint.json"
    file.write_text(TEXT)
    assert read_checkpoint(file) == ClientCheckpoint(**FIELDS)
