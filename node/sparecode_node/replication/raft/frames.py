# SPDX-License-Identifier: Apache-2.0
"""
PySyncObj's messages to protobuf and back.

PySyncObj represents a message as a dictionary with a `type`. Only the types listed here
can be sent or received. Its other messages (snapshots, entries in chunks, forwarded
commands, transfer of leadership, administration) have no form on the wire.
"""

from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from sparecode.internal.v1 import peers_pb2

Message: TypeAlias = dict[str, Any]

REQUEST_VOTE = "request_vote"
RESPONSE_VOTE = "response_vote"
APPEND_ENTRIES = "append_entries"
NEXT_NODE_IDX = "next_node_idx"
PRE_VOTE = "pre_vote"
PRE_VOTE_ANSWER = "pre_vote_answer"
STALE_TERM = "stale_term"
ASK_TO_CONFIRM = "ask_to_confirm"
CONFIRM = "confirm"
OFFER_SNAPSHOT = "offer_snapshot"
ASK_CLOCK = "ask_clock"
TELL_CLOCK = "tell_clock"
HAND_OVER = "hand_over"
KEEP_LOG = "keep_log"

# type -> field of LinkRequest, {key of the dictionary: field of the message}
_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    REQUEST_VOTE: (
        "request_vote",
        {
            "term": "term",
            "last_log_index": "last_log_index",
            "last_log_term": "last_log_term",
        },
    ),
    RESPONSE_VOTE: ("grant_vote", {"term": "term"}),
    APPEND_ENTRIES: (
        "append_entries",
        {
            "term": "term",
            "commit_index": "commit_index",
            "prevLogIdx": "previous_index",
            "prevLogTerm": "previous_term",
        },
    ),
    NEXT_NODE_IDX: (
        "acknowledge",
        {
            "term": "term",
            "next_node_idx": "next_index",
            "reset": "reset",
            "success": "success",
        },
    ),
    PRE_VOTE: (
        "request_pre_vote",
        {
            "term": "term",
            "last_log_index": "last_log_index",
            "last_log_term": "last_log_term",
        },
    ),
    PRE_VOTE_ANSWER: (
        "answer_pre_vote",
        {"term": "term", "granted": "granted", "current_term": "current_term"},
    ),
    STALE_TERM: ("report_stale_term", {"term": "term"}),
    ASK_TO_CONFIRM: ("ask_to_confirm_term", {"term": "term", "round": "round"}),
    CONFIRM: ("confirm_term", {"term": "term", "round": "round"}),
    OFFER_SNAPSHOT: ("offer_snapshot", {"term": "term", "index": "index"}),
    ASK_CLOCK: ("ask_clock", {"round": "round"}),
    TELL_CLOCK: (
        "tell_clock",
        {
            "round": "round",
            "at_ms": "at_ms",
            "term": "term",
            "entry_term": "entry_term",
            "entry_index": "entry_index",
        },
    ),
    HAND_OVER: (
        "hand_over",
        {
            "term": "term",
            "last_log_index": "last_log_index",
            "last_log_term": "last_log_term",
        },
    ),
    KEEP_LOG: ("keep_log", {"index": "index", "progress": "progress"}),
}
_TYPES = {field: kind for kind, (field, _) in _FORMS.items()}


class FrameError(Exception):
    """A message that must not be sent, or bytes that are not a message."""


def encode(message: Message) -> peers_pb2.LinkRequest:
    """Return the frame of a message. Raises `FrameError`."""
    keys = set(message) - {"type", "entries"}
    form = _FORMS.get(message["type"])
    if form is None or keys != set(form[1]):
        raise FrameError(f"there is no frame for {message['type']} with {sorted(keys)}")
    name, fields = form
    frame = peers_pb2.LinkRequest()
    body = getattr(frame, name)
    try:
        for key, field in fields.items():
            setattr(body, field, message[key])
        if name == "append_entries":
            for command, index, term in message["entries"]:
                body.entries.add(command=command, index=index, term=term)
    except (TypeError, ValueError) as error:
        raise FrameError(f"{message['type']}: {error}") from error
    return frame


def decode(frame: peers_pb2.LinkRequest) -> Message:
    """Return the message in a frame. Raises `FrameError`."""
    name = frame.WhichOneof("message")
    if name is None:
        raise FrameError("the frame has no message that this version knows")
    kind = _TYPES[name]
    body = getattr(frame, name)
    message: Message = {"type": kind}
    for key, field in _FORMS[kind][1].items():
        message[key] = getattr(body, field)
    if kind == APPEND_ENTRIES:
        # Tuples: PySyncObj compares entries, and a list is never equal to one.
        message["entries"] = [(e.command, e.index, e.term) for e in body.entries]
    return message


def parse(data: bytes) -> Message:
    """Return the message in the bytes of a frame. Raises `FrameError`."""
    frame = peers_pb2.LinkRequest()
    try:
        frame.ParseFromString(data)
    except DecodeError as error:
        raise FrameError("not a frame") from error
    return decode(frame)
