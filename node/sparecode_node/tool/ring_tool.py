# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node rewrap-ring`: encrypt a stopped node's key ring in another way."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.membership.preparation import (
    JOURNAL,
    StartError,
    refuse_interrupted,
    ring_file,
)
from sparecode_node.replication.offline.inspection import is_in_use
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRingError
from sparecode_node.tool.terminal import EXIT_USAGE, fail, loaded


def rewrap_ring(
    context: typer.Context,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="The node.toml that opens the ring now. Default: the same.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """
    Encrypt a stopped node's key ring as `[keys]` says.

    Use it to move between a key ring in clear, a wrapping key and a wrap command, or
    after the program of the wrap command got another key. The keys in the ring stay the
    same. If the present `[keys]` cannot open the ring, name the earlier configuration
    with --from.

    A running node does the same when it is reloaded (SIGHUP).
    """
    config = loaded(context)
    try:
        before = config if earlier is None else load_config(earlier)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)
    try:
        refuse_interrupted(config)
        _refuse_running(config)
        file = ring_file(config)
        source = ring_file(before)
        ring = source.load()
        file.prepare(SystemEntropy())
        file.save(ring)
        _keep_owner(config, file.path)
        file.load()
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except (KeyRingError, StartError) as error:
        fail(str(error))
    typer.echo(f"{file.path} is {file.protection()} now.")


def _refuse_running(config: Config) -> None:
    """Raise `StartError` if the node runs: it would write its own copy of the ring."""
    try:
        running = is_in_use(config.node.data_dir / JOURNAL)
    except FileNotFoundError:
        return
    if running:
        raise StartError(
            f"node {config.node.id} is running and writes its key ring itself: reload it "
            "instead, with systemctl reload sparecode-node"
        )


def _keep_owner(config: Config, path: Path) -> None:
    """Give the file that root wrote to the owner of the data folder."""
    if os.geteuid() == 0 and config.node.data_dir.exists():
        owner = config.node.data_dir.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
