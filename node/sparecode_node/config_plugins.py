# SPDX-License-Identifier: Apache-2.0
"""The tables `[[http.plugins]]` of `node.toml`: what privacyIDEA's plug-ins may do."""

from dataclasses import dataclass

from sparecode_node.config_section import Section, quoted
from sparecode_node.domain.networks import Network

_PREFIX = "sparecode://agent/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """What the plug-in of one agent may do at `/validate/check`."""

    agent: str
    """The identity of a registered agent."""
    networks: tuple[Network, ...] = ()
    """
    Calls from here are the agent's without a certificate and without a key.

    Empty: it must show one. No two agents have the same network.
    """
    repeats: bool = False
    """Within 30 s, the same passcode of the same user is the same request."""


def read_plugins(http: Section) -> tuple[PluginConfig, ...]:
    """Return the plug-ins of the section `[http]`. Raises `ConfigError`."""
    plugins: list[PluginConfig] = []
    taken: dict[Network, str] = {}
    for section in http.tables("plugins"):
        plugin = PluginConfig(
            agent=section.text("agent"),
            networks=section.networks("networks"),
            repeats=section.flag("repeats", default=False),
        )
        section.done()
        if not plugin.agent.startswith(_PREFIX):
            raise section.error(
                "agent",
                f"{quoted(plugin.agent)} is not the identity of an agent: expected "
                f"{_PREFIX}NAME, as `sparecode agents show` prints it",
            )
        if plugin.agent in {each.agent for each in plugins}:
            raise section.error("agent", f"{plugin.agent} has another table")
        for network in plugin.networks:
            if network in taken:
                raise section.error(
                    "networks", f"{network} is also that of {taken[network]}"
                )
            taken[network] = plugin.agent
        plugins.append(plugin)
    return tuple(plugins)
