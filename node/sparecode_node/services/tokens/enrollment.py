# SPDX-License-Identifier: Apache-2.0
"""The command that adds a token: its fields are checked and its seed is sealed."""

from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.services import fields
from sparecode_node.services.files.token_files import FileToken
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.tokens import EnrollToken


def enrollment(token: FileToken, sealing: Sealing) -> EnrollToken:
    """Return the command that enrolls *token*. Raises `InvalidFieldError`."""
    serial = fields.serial(token.serial)
    fields.tokencode_form(
        token.algorithm,
        digits=token.digits,
        period_s=token.period_s,
        counter=token.counter,
    )
    if token.algorithm is Algorithm.SECURID:
        fields.securid(serial, token.seed)
    key_id = sealing.active_key
    return EnrollToken(
        serial=serial,
        algorithm=token.algorithm,
        hash_name=token.hash_name,
        digits=token.digits,
        period_s=token.period_s,
        counter=token.counter,
        sealed_seed=sealing.seal_seed(serial, fields.seed(token.seed), key_id),
        key_id=key_id,
        pin_rule=token.pin_rule,
        expires_at_ms=fields.time_ms("expire_time", token.expires_at_ms),
    )
