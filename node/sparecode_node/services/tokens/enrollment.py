# SPDX-License-Identifier: Apache-2.0
"""The command that adds a token: its fields are checked and its seed is sealed."""

from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.queries import cluster
from sparecode_node.queries.state import LocalState
from sparecode_node.services import fields
from sparecode_node.services.files.token_files import FileToken
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.tokens import EnrollToken, SeedFingerprint
from sparecode_node.statemachine.feature_level import UNIQUE_SEEDS


class Enrollment:
    """Builds the commands that add tokens."""

    def __init__(self, *, state: LocalState, sealing: Sealing) -> None:
        self._state = state
        self._sealing = sealing
        self._unique_seeds = False

    async def begin(self) -> None:
        """Read the feature level, which never goes back: until it suffices."""
        if not self._unique_seeds:
            async with self._state.transaction() as transaction:
                level = await cluster.feature_level(transaction)
            self._unique_seeds = level >= UNIQUE_SEEDS

    async def command(self, token: FileToken) -> EnrollToken:
        """
        Return the command that enrolls *token*. Raises `InvalidFieldError`.

        It has a fingerprint of the seed once all members know such commands (K5). After
        `begin` it waits for nothing then, so that the rows of a file stay in order.
        """
        await self.begin()
        serial = fields.serial(token.serial)
        fields.tokencode_form(
            token.algorithm,
            digits=token.digits,
            period_s=token.period_s,
            counter=token.counter,
        )
        if token.algorithm is Algorithm.SECURID:
            fields.securid(serial, token.seed)
        seed = fields.seed(token.seed)
        fingerprints = self._sealing.seed_fingerprints(seed)
        key_id = fingerprints[0][0]
        return EnrollToken(
            serial=serial,
            algorithm=token.algorithm,
            hash_name=token.hash_name,
            digits=token.digits,
            period_s=token.period_s,
            counter=token.counter,
            sealed_seed=self._sealing.seal_seed(serial, seed, key_id),
            key_id=key_id,
            pin_rule=token.pin_rule,
            expires_at_ms=fields.time_ms("expire_time", token.expires_at_ms),
            fingerprints=tuple(
                SeedFingerprint(key_id=each, value=value)
                for each, value in fingerprints
                if self._unique_seeds
            ),
        )
