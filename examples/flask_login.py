# SPDX-License-Identifier: Apache-2.0
"""
A login in a Flask application.

    flask --app flask_login:from_environment run

Set SPARECODE_AGENT_NODES, SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE, SPARECODE_AGENT_KEY,
and SECRET_KEY, which signs Flask's cookies. A user who needs a next step is refused here;
`portal.py` shows it.
"""

import os

from flask import Flask, Response, redirect, request, session

from sparecode_client import Agent, SparecodeError

FORM = """<!doctype html><title>Sign in</title><p>{words}</p><form method="post">
<input name="username"> <input name="passcode" type="password"><button>Sign in</button>
</form>"""


def create_app(agent: Agent, secret_key: str) -> Flask:
    """Return the application. Its threads share the agent."""
    app = Flask(__name__)
    app.secret_key = secret_key
    app.config.update(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Strict")

    @app.get("/login")
    def form() -> str:
        return FORM.format(words="")

    @app.post("/login")
    def login() -> Response | tuple[str, int]:
        username = request.form.get("username", "")
        try:
            answer = agent.authenticate(
                username,
                request.form.get("passcode", ""),
                client_address=request.remote_addr or "",
                resource="flask",
            )
        except SparecodeError:  # Without a decision no one enters.
            return FORM.format(words="No decision. Try again."), 503
        if not answer.accepted:
            return FORM.format(words="Wrong user name or passcode."), 403
        session.clear()
        session["username"] = username
        return redirect("/", 303)

    @app.get("/")
    def home() -> Response | str:
        return "Welcome." if "username" in session else redirect("/login")

    return app


def from_environment() -> Flask:
    """Return the application for the cluster that the environment names."""
    environment = os.environ
    agent = Agent(
        environment["SPARECODE_AGENT_NODES"].split(","),
        ca=environment["SPARECODE_CA"],
        certificate=environment["SPARECODE_AGENT_CERTIFICATE"],
        key=environment["SPARECODE_AGENT_KEY"],
    )
    return create_app(agent, environment["SECRET_KEY"])
