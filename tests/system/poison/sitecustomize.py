# SPDX-License-Identifier: Apache-2.0
"""
A bug that stops every node: adding the user `poison` raises an exception.

Python imports this first if its folder is on the path, so the product has no such bug.
"""

from sparecode_node.domain.outcomes import Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.handlers import users

_create_user = users.create_user


def _broken(applying: Applying, command: CreateUser) -> Rejected | None:
    if command.name_key == "poison":
        raise ZeroDivisionError
    return _create_user(applying, command)


users.create_user = _broken
