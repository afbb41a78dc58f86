# SPDX-License-Identifier: Apache-2.0
"""Why a passcode was refused, and what to do next, in words for help desks (A6)."""

from dataclasses import dataclass

from sparecode_node.domain.outcomes import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A refusal in words."""

    words: str
    advice: str = ""
    """What the user can do."""
    step: str = ""
    """What an administrator can do: an imperative without its capital and full stop."""
    method: str = ""
    """The method of that step: the role may need to ask another administrator."""


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.WRONG_PASSCODE: Explanation(
        words="The passcode matched no token and no emergency code of this user.",
        advice="Ask the user to type the PIN, then the code that the token or the sheet "
        "shows now.",
    ),
    Reason.WRONG_PIN: Explanation(
        words="The code was right, but the PIN was wrong or missing.",
        advice="Ask the user to type the PIN before the code.",
        step="clear the PIN if it is forgotten",
        method="TokenService/ClearPin",
    ),
    Reason.PIN_NOT_SET: Explanation(
        words="The token needs a PIN and has none.",
        step="set a PIN",
        method="TokenService/SetPin",
    ),
    Reason.TOKENCODE_SPENT: Explanation(
        words="This tokencode was already used.",
        advice="Ask the user to wait for the next tokencode.",
    ),
    Reason.TOKENCODE_MAYBE_SPENT: Explanation(
        words="This tokencode may have been used before the cluster was restored, or "
        "took the user back.",
        advice="Ask the user to type the PIN and a tokencode, and then the next "
        "tokencode.",
        step="issue emergency codes if that is refused",
        method="EmergencyAccessService/SaveEmergencyAccess",
    ),
    Reason.CODE_NOT_LIVE: Explanation(
        words="This emergency code was already used, or is void.",
        advice="Ask the user to take another code of the newest sheet.",
        step="issue new codes if none is left",
        method="EmergencyAccessService/SaveEmergencyAccess",
    ),
    Reason.SET_EXPIRED: Explanation(
        words="This emergency code had expired.",
        step="issue new codes",
        method="EmergencyAccessService/SaveEmergencyAccess",
    ),
    Reason.RESOURCE_NOT_COVERED: Explanation(
        words="Emergency codes do not work at this agent, because it protects a cloud "
        "service.",
        advice="The user needs a token there.",
    ),
    Reason.LOCKED: Explanation(
        words="The user was locked, or had to wait, after wrong passcodes. This one was "
        "not looked at.",
        step="unlock the user",
        method="UserService/UnlockUser",
    ),
    Reason.USER_DISABLED: Explanation(
        words="The user is disabled.",
        step="enable the user",
        method="UserService/UpdateUser",
    ),
    Reason.USER_NOT_ALLOWED: Explanation(
        words="The agent's allow list excludes the user.",
        step="add the user, or one of their groups, to the agent's allow list",
        method="AgentService/UpdateAgent",
    ),
    Reason.TOKEN_DISABLED: Explanation(
        words="The token is disabled.",
        step="enable the token",
        method="TokenService/EnableToken",
    ),
    Reason.TOKEN_EXPIRED: Explanation(
        words="The token has expired.",
        step="replace the token",
        method="TokenService/ReplaceToken",
    ),
    Reason.TOKEN_NOT_ASSIGNED: Explanation(
        words="The token is no longer assigned to the user.",
        step="assign a token to the user",
        method="TokenService/AssignToken",
    ),
    Reason.TOKEN_OUT_OF_STEP: Explanation(
        words="The token needs to be resynchronized.",
        step="resynchronize the token",
        method="TokenService/ResynchronizeToken",
    ),
    Reason.RECOVERED_TOKEN_REFUSED: Explanation(
        words="The passcode was right, but the token counts as lost.",
        step="reinstate the token if its user has it",
        # It reinstates a token too, and more roles may call it than `ReinstateToken`.
        method="EmergencyAccessService/DisableEmergencyAccess",
    ),
    Reason.CHALLENGE_NOT_VALID: Explanation(
        words="The second step came too late, or was already answered.",
        advice="Ask the user to sign in again.",
    ),
    Reason.AGENT_UNKNOWN: Explanation(
        words="The agent is not registered, so it refuses everyone.",
        step="register the agent",
        method="AgentService/RegisterAgent",
    ),
    Reason.AGENT_DISABLED: Explanation(
        words="The agent is disabled, so it refuses everyone.",
        step="enable the agent",
        method="AgentService/UpdateAgent",
    ),
    Reason.CERTIFICATE_DENIED: Explanation(
        words="The agent's certificate is denied, so it refuses everyone.",
        step="give the agent a new certificate",
        method="AgentService/AllowCertificate",
    ),
}
"""The reasons for which a passcode of a known user can be refused."""

BLOCKING = frozenset(
    {
        Reason.LOCKED,
        Reason.PIN_NOT_SET,
        Reason.RECOVERED_TOKEN_REFUSED,
        Reason.TOKENCODE_MAYBE_SPENT,
        Reason.TOKEN_DISABLED,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_OUT_OF_STEP,
        Reason.USER_DISABLED,
        Reason.USER_NOT_ALLOWED,
    }
)
"""The reasons that can be over by now: while one stands, there is a blocker."""

OVER = "This is over: ask the user to sign in again."
