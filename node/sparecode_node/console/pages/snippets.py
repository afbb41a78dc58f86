# SPDX-License-Identifier: Apache-2.0
"""
Configurations of agents, to copy.

`docs/radius.md` and `docs/http.md` have the same texts. 10.1.0.1 and 10.1.0.2 stand for two nodes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A text to copy into a file."""

    key: str
    """Names its element on the page."""
    title: str
    text: str


PAM_RADIUS = Snippet(
    key="pam-radius",
    title="pam_radius",
    text="""\
# /etc/sparecode-pam.conf, mode 0600
10.1.0.1:1812 SECRET 3
10.1.0.2:1812 SECRET 3

# In /etc/pam.d/SERVICE
auth required pam_radius_auth.so conf=/etc/sparecode-pam.conf prompt=Passcode \
force_prompt prompt_attribute require_message_authenticator retry=1
""",
)
FREERADIUS = Snippet(
    key="freeradius",
    title="FreeRADIUS as a proxy",
    text="""\
# /etc/freeradius/3.0/proxy.conf
home_server sparecode-1 {
    type = auth
    ipaddr = 10.1.0.1
    port = 1812
    secret = SECRET
    require_message_authenticator = yes
    response_window = 10
    status_check = status-server
}
home_server sparecode-2 {
    type = auth
    ipaddr = 10.1.0.2
    port = 1812
    secret = SECRET
    require_message_authenticator = yes
    response_window = 10
    status_check = status-server
}
home_server_pool sparecode {
    type = fail-over
    home_server = sparecode-1
    home_server = sparecode-2
}
realm sparecode {
    auth_pool = sparecode
    nostrip
}

# In the section `authorize` of sites-enabled/inner-tunnel for EAP-TTLS, or else of
# sites-enabled/default, before the modules that need a password in clear
update control {
    &Proxy-To-Realm := "sparecode"
}
""",
)
OPENVPN = Snippet(
    key="openvpn",
    title="OpenVPN, by pam_radius",
    text="""\
# /etc/sparecode-pam.conf, mode 0600
10.1.0.1:1812 SECRET 3
10.1.0.2:1812 SECRET 3

# /etc/pam.d/sparecode-openvpn
auth required pam_radius_auth.so conf=/etc/sparecode-pam.conf prompt=Passcode \
force_prompt require_message_authenticator retry=1
account required pam_permit.so

# In the server's configuration
plugin /usr/lib/openvpn/openvpn-plugin-auth-pam.so "sparecode-openvpn login USERNAME Passcode PASSWORD"
setenv deferred_auth_pam 1
auth-gen-token
""",
)
CURL = Snippet(
    key="curl",
    title="curl",
    text="""\
printf 'header = "Authorization: Bearer %s"\\n' "$(cat KEYFILE)" |
curl --config - --cacert members-ca.pem \\
    --json '{"username": "alice", "passcode": "4711123456"}' \\
    https://10.1.0.1:7305/v1/authenticate
""",
)
"""The key is in no argument: other users of the machine see those."""
SNIPPETS = (PAM_RADIUS, FREERADIUS, OPENVPN)
