# SPDX-License-Identifier: Apache-2.0
"""Files that root has written for a node become those of the node's user."""

import os
from collections.abc import Sequence

from sparecode_node.config import Config
from sparecode_node.membership.files import NewFile


def give_to_node(config: Config, files: Sequence[NewFile] = ()) -> None:
    """
    Give *files*, and everything in the data folder, to the owner of the data folder.

    What a link leads to stays its owner's. The node may lay links while this runs, so it
    goes by descriptors.
    """
    if os.geteuid() != 0:
        return
    data = config.node.data_dir
    owner = data.stat()
    for _, folders, names, folder in os.fwalk(data):
        for name in (*folders, *names):
            os.chown(
                name, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False
            )
    for each in files:
        os.chown(each.path, owner.st_uid, owner.st_gid)
