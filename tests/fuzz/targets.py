# SPDX-License-Identifier: Apache-2.0
"""
Every parser of what a stranger, a member or a file gives, as a target of the fuzzer.

A target takes bytes. It may raise the errors that its parser documents; any other
exception is a bug. Some targets also check what the parser returns.
"""

import base64
import contextlib
import dataclasses
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.types import Message
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from sparecode.internal.v1 import peers_pb2
from sparecode_client.audit.checkpoints import (
    AuditFileError,
    read_checkpoint,
    read_public_keys,
)
from sparecode_client.audit.verification import verify
from sparecode_node.console.kit.forms import Form
from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    NodeId,
    SessionId,
    TokenSerial,
)
from sparecode_node.domain.passcodes import evaluations, normalized, splits
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.domain.users import USERNAME_LENGTH_MAX, fold
from sparecode_node.http import privacyidea
from sparecode_node.http.bodies import JSON, PARTS, Fields
from sparecode_node.http.problems import RequestError
from sparecode_node.http.v1 import FIRST_FIELDS, NEXT_FIELDS
from sparecode_node.queries.passkeys import PasskeyView
from sparecode_node.radius import packets
from sparecode_node.radius.dialog import calling_station, nas
from sparecode_node.radius.packets import DroppedError, PasswordFormError
from sparecode_node.replication.calls.peer_messages import outcome_of, proposal_of
from sparecode_node.replication.codec import (
    CodecError,
    decode_entry,
    encode_entry,
)
from sparecode_node.replication.errors import MalformedCallError
from sparecode_node.replication.links.hello import HELLO, hello_in
from sparecode_node.replication.log import format as journal
from sparecode_node.replication.raft import frames
from sparecode_node.rpc.tickets import PREFIX, NotATicketError, from_text
from sparecode_node.services import fields
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster import bundles
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import backup_files, row_messages
from sparecode_node.services.files.backup_files import BackupFileError
from sparecode_node.services.files.pskc_files import read_pskc
from sparecode_node.services.files.row_messages import AnswerError
from sparecode_node.services.files.sdtid_files import read_sdtid
from sparecode_node.services.files.token_csv import read_token_csv
from sparecode_node.services.files.token_files import (
    FileRow,
    TokenFile,
    TokenFileFormat,
)
from sparecode_node.services.files.user_csv import read_user_csv
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.passkey_checks import (
    Asking,
    PasskeyChecks,
    Purpose,
    RefusedAnswerError,
)
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.services.secrets.wrap_command import WrapCommand
from tests.memory import folder_in_memory
from tests.radius.door import request as radius_request
from tests.services.authenticator import Authenticator

SIGNING = RadiusSettings(networks=())
NOT_SIGNING = RadiusSettings(
    networks=(), allow_unsigned=True, allow_unsigned_proxied=True
)

DATA = Path(__file__).parents[1] / "data"
PASSWORD = "for demonstration only"
KEY = bytes(range(16))
NOW_MS = 1_700_000_000_000
RING = KeyRing(cluster_id="c-1", active=KeyId(1), keys={KeyId(1): b"k" * 64})
DEEP = b"[" * 100_000
"""JSON that nests too deep for any parser."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A parser, the errors that it may raise, and inputs to begin with."""

    name: str
    run: Callable[[bytes], object]
    may_raise: tuple[type[Exception], ...] = ()
    examples: tuple[bytes, ...] = ()

    def refuses(self, data: bytes) -> bool:
        """Return whether the parser refuses *data*. Any bug raises."""
        try:
            self.run(data)
        except self.may_raise:
            return True
        return False


def read_tokens(form: TokenFileFormat) -> Callable[[bytes], None]:
    """Return a target for a format: its rows must survive the way to the node."""

    def run(content: bytes) -> None:
        reader: Any = {
            TokenFileFormat.PSKC: read_pskc,
            TokenFileFormat.SDTID: read_sdtid,
            TokenFileFormat.CSV: read_token_csv,
        }[form]
        file = TokenFile(
            format=form,
            content=content,
            password=PASSWORD,
            key=KEY,
            default_pin_rule=PinRule.NONE,
        )
        request = row_messages.token_request(file, NOW_MS)
        parsed = row_messages.parse_request(request.data)
        assert parsed == (content, (file, NOW_MS))
        rows: list[FileRow] = reader(file, now_ms=NOW_MS)
        answer = b"".join(row_messages.answer_of(rows))
        for sent, received in zip(
            rows, row_messages.rows_in(answer, request.parse_row), strict=True
        ):
            assert (sent.serial, sent.problem) == (received.serial, received.problem)
            assert (sent.token is None) == (received.token is None)

    return run


def read_users(content: bytes) -> None:
    """Read a file of users; its rows must survive the way to the node."""
    rows = read_user_csv(content)
    answer = b"".join(row_messages.answer_of(rows))
    received = row_messages.rows_in(answer, row_messages.user_request(b"").parse_row)
    assert received == rows


def read_answer(data: bytes) -> None:
    """Read what the process of a file could answer."""
    for request in (
        row_messages.user_request(b""),
        row_messages.token_request(
            TokenFile(format=TokenFileFormat.CSV, content=b""), NOW_MS
        ),
    ):
        with contextlib.suppress(AnswerError, InvalidFieldError):
            row_messages.rows_in(data, request.parse_row)


def read_frame(data: bytes) -> None:
    """Read a message of the engine, and write it again."""
    message = frames.parse(data)
    assert frames.decode(frames.encode(message)) == message


def read_call(data: bytes) -> None:
    """Read a call that another member forwards."""
    proposal_of(NodeId("n1"), peers_pb2.ForwardRequest(call=data))


def read_entry(data: bytes) -> None:
    """Read an entry of the log, and write it again."""
    calls = decode_entry(data)
    assert decode_entry(encode_entry(calls)) == calls


def read_peer_answer(data: bytes) -> None:
    """Read the answer to a forwarded call."""
    text = data.decode(errors="replace")
    outcome_of(peers_pb2.ForwardResponse(result_json=text))


def read_hello(data: bytes) -> None:
    """Read what a node shows when a link begins."""
    hello_in([(HELLO, data)])


def read_journal(data: bytes) -> None:
    """Read a journal, and its records behind a right checksum."""
    for batch in (
        *journal.read_batches(data, bytes(journal.SALT_BYTES)),
        journal.Batch(1, data, 0, len(data)),
    ):
        for _ in journal.read_records(batch):
            pass


def in_file(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Return a target for a parser that reads a path."""

    def run(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=folder_in_memory()) as file:
            file.write(data)
            file.flush()
            read(Path(file.name))

    return run


class FixedKey(WrapCommand):
    """A wrap command that runs no program."""

    def unwrap(self, wrapped: bytes) -> bytes:
        return wrapped[:0] + KEY * 2


def read_ring(path: Path) -> None:
    """Read a key ring in clear, or one that a program wrapped."""
    RingFile(path=path, command=FixedKey(argv=("/none",))).load()


def read_backup(path: Path) -> None:
    """Read a backup's manifest, and check it as a restore does."""
    with backup_files.open_state(path) as (signed, state):
        signed.manifest.signed_bytes()
        assert not backup_files.is_signed_by_ring(Sealing(RING), signed)
        signed.signed_by(signed.public_key)
        state.read(1024)


def backup_with(manifest: bytes) -> bytes:
    """Return a backup with this manifest."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in ((backup_files.MANIFEST, manifest), ("state.age", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


MANIFEST = json.dumps(
    {
        "manifest": {
            field.name: {"int": 1, "str": "x"}.get(
                getattr(field.type, "__name__", ""), ["x"]
            )
            for field in dataclasses.fields(backup_files.BackupManifest)
        },
        "public_key": base64.b64encode(bytes(32)).decode(),
        "signature": base64.b64encode(bytes(64)).decode(),
    }
).encode()

POLICIES = (
    Policy(),
    Policy(pin_letters=True),
    Policy(code_alphabet="0123456789", further_code_lengths="9 11"),
)


def read_passcode(data: bytes) -> None:
    """Split what a user types, under several policies (A1, T4)."""
    typed = data.decode(errors="replace")
    fold(typed[:USERNAME_LENGTH_MAX])
    passcode = normalized(typed[: fields.PASSCODE_MAX])
    for policy in POLICIES:
        readings = splits(passcode, policy)
        assert all(each.pin + each.code == passcode for each in readings)
        pins = {each.pin for each in readings}
        codes = {each.code for each in readings if each.emergency}
        assert len(pins) + len(codes) <= evaluations(policy)


FIELD_READERS: tuple[Callable[[Form, str], object], ...] = (
    Form.secret,
    Form.flag,
    Form.all,
    lambda form, name: form.whole(name, "it"),
    lambda form, name: form.moment_ms(name.removesuffix("_date")),
    lambda form, name: fields.address(name, form.text(name)),
    lambda form, name: fields.serial(form.text(name)),
    lambda form, name: fields.serial_number(form.text(name)),
    lambda form, name: fields.request_id(form.text(name)),
    lambda form, name: fields.email(form.text(name)),
)


def read_form(data: bytes) -> None:
    """Read a form of the console, and each field in every way."""
    form = Form.parse(data)
    assert Form.parse(urlencode(form.pairs).encode()).pairs == form.pairs
    for name in form.values:
        for read in FIELD_READERS:
            with contextlib.suppress(InvalidFieldError):
                read(form, name)


def read_http_fields(data: bytes) -> None:
    """Read the body of a call by HTTP, with and without the fields that are known."""
    for known in (FIRST_FIELDS, NEXT_FIELDS):
        with contextlib.suppress(RequestError):
            Fields.parse(data, known)
    read = Fields.any(data)
    for name in (*read.names, "absent"):
        for reader in (read.text, read.octets):
            with contextlib.suppress(InvalidFieldError):
                reader(name)


def read_privacyidea(data: bytes) -> None:
    """Read what a plug-in for privacyIDEA sends, in each form and encoding."""
    for kind in (JSON, privacyidea.FORM, f"{PARTS}; boundary=x"):
        for agent in ("curl", *privacyidea.DECODED_ONCE):
            with contextlib.suppress(RequestError, InvalidFieldError):
                check = _finished(privacyidea.read(_request(data, kind, agent)))
                assert check.username.encode().decode() == check.username
                assert check.passcode.encode().decode() == check.passcode


def _request(body: bytes, kind: str, agent: str) -> Request:
    """Return a request that has arrived as a whole."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode()), (b"user-agent", agent.encode())]
    return Request({"type": "http", "headers": headers}, receive)


def _finished(
    coroutine: Coroutine[Any, Any, privacyidea.Check],
) -> privacyidea.Check:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("privacyidea.Check", done.value)
    finally:
        coroutine.close()
    raise AssertionError("it waits")


def open_seal(data: bytes) -> None:
    """Open what an agent or an administrator sends back, sealed or not."""
    sealing = Sealing(RING)
    for opener in (
        sealing.unseal_challenge,
        sealing.unseal_draft,
        sealing.unseal_second_factor_draft,
        sealing.unseal_device_cookie,
        sealing.unseal_passkey_challenge,
        lambda sealed: sealing.unseal_seed(TokenSerial("1"), sealed, KeyId(1)),
    ):
        with contextlib.suppress(BrokenSealError):
            opener(data)


CONSOLE = "https://n1.sparecode.test:7302"
DOMAIN = "sparecode.test"
CHECKS = PasskeyChecks(
    sealing=Sealing(RING),
    clock=SystemClock(),
    entropy=SystemEntropy(),
    consoles=(CONSOLE,),
)
SIGN_IN = Asking(Purpose.SIGN_IN, SessionId("visit"))
REGISTER = Asking(Purpose.REGISTER, SessionId("session"))
DEVICE = Authenticator(CONSOLE)
MADE: dict[str, Any] = json.loads(
    DEVICE.made(CHECKS.registration(REGISTER, AdministratorName("root"), DOMAIN, ()))
)
PASSKEY = PasskeyView(
    credential_id=DEVICE.credential_id,
    label="",
    public_key=CHECKS.check_registration(json.dumps(MADE), REGISTER, DOMAIN).public_key,
    added_at_ms=0,
    used_at_ms=None,
)


def read_passkey_answer(data: bytes) -> None:
    """Read what a browser answers, at sign-in without a session."""
    answer = data.decode(errors="replace")
    CHECKS.check(answer, SIGN_IN, (PASSKEY,), DOMAIN)
    CHECKS.check_registration(answer, REGISTER, DOMAIN)


def read_attestation(data: bytes) -> None:
    """Read the CBOR of a new passkey, in an answer whose challenge is right."""
    response = {**MADE["response"], "attestationObject": bytes_to_base64url(data)}
    answer = json.dumps({**MADE, "response": response})
    CHECKS.check_registration(answer, REGISTER, DOMAIN)


def read_radius(data: bytes) -> None:
    """Read a packet as each kind of client may send it, and build an answer to it."""
    for settings in (SIGNING, NOT_SIGNING):
        for is_protected in (False, True):
            with contextlib.suppress(DroppedError):
                request = packets.read(
                    data, settings, (b"radsec", b"other"), is_protected=is_protected
                )
                with contextlib.suppress(PasswordFormError):
                    request.password()
                calling_station(request)
                nas(request)
                request.identifying()
                packets.reply(request, 3, ((packets.REPLY_MESSAGE, b"no"),))


def read_ticket(data: bytes) -> None:
    """Read a join ticket, with and without its prefix."""
    text = data.decode(errors="replace")
    for each in (text, PREFIX + text):
        with contextlib.suppress(NotATicketError):
            from_text(each)


def files(*names: str) -> tuple[bytes, ...]:
    """Return files of the tests."""
    return tuple((DATA / name).read_bytes() for name in names)


def frame_examples() -> Iterable[bytes]:
    """Return a frame of each kind."""
    for field in peers_pb2.LinkRequest.DESCRIPTOR.fields:
        frame = peers_pb2.LinkRequest()
        getattr(frame, field.name).SetInParent()
        yield frame.SerializeToString()


def entry_examples() -> tuple[bytes, ...]:
    """Return the entries that the tests of the codec keep."""
    golden = DATA.parent / "replication" / "testdata" / "log_entries.txt"
    found = []
    for word in golden.read_text().split():
        try:
            found.append(bytes.fromhex(word))
        except ValueError:
            continue
    return tuple(found)


def journal_example() -> bytes:
    """Return a journal with a record."""
    salt = bytes(journal.SALT_BYTES)
    return journal.file_header(salt) + journal.batch(
        salt, 1, journal.add_record((b"x", 1, 1)) + journal.term_record(1, "n1")
    )


PSKC_NAMES = [f"rfc6030/figure-{number}.pskcxml" for number in (3, 6, 7, 8)]
CSV_TOKENS = (
    b"serial,seed,seed_format,algorithm,hash,digits,period,counter,pin_rule,expires\n"
    b"1,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,base32,totp,sha1,6,30,0,none,2031-12-31\n"
    b'2,"0102 03","hex",hotp,sha256,8,,5,,2031-12-31T12:00:00Z\n'
)
FORM = (
    b"a=1&b=%C3%A9+x&when_date=2026-12-31&when_time=17%3A00&when_zone=Europe%2FBerlin"
)
RESULT = b'{"type":"Authenticated","decision":"accepted","reason":""}'

TARGETS = (
    Target(
        name="pskc",
        run=read_tokens(TokenFileFormat.PSKC),
        may_raise=(InvalidFieldError,),
        examples=(*files(*PSKC_NAMES, "tokens.pskcxml"), b"<unbound:a/>"),
    ),
    Target(
        name="sdtid",
        run=read_tokens(TokenFileFormat.SDTID),
        may_raise=(InvalidFieldError,),
        examples=files("hardware.sdtid", "software.sdtid"),
    ),
    Target(
        name="token_csv",
        run=read_tokens(TokenFileFormat.CSV),
        may_raise=(InvalidFieldError,),
        examples=(CSV_TOKENS,),
    ),
    Target(
        name="user_csv",
        run=read_users,
        may_raise=(InvalidFieldError,),
        examples=(b"username,display_name,email,groups\nal,Al,a@b,x;y\nAL,,,\n",),
    ),
    Target(
        name="file_answer",
        run=read_answer,
        examples=(
            b'{"rows":1}\n[1,"1","a problem"]\n',
            b'{"rows":1}\n[1,"",1,"al","Al","a@b","x"]\n',
            b'{"field":"content","message":"x"}\n',
            DEEP,
        ),
    ),
    Target(
        name="frames",
        run=read_frame,
        may_raise=(frames.FrameError,),
        examples=tuple(frame_examples()),
    ),
    Target(
        name="forwarded_calls",
        run=read_call,
        may_raise=(MalformedCallError,),
        examples=entry_examples(),
    ),
    Target(
        name="log_entries",
        run=read_entry,
        may_raise=(CodecError,),
        examples=entry_examples(),
    ),
    Target(name="peer_answers", run=read_peer_answer, examples=(RESULT, DEEP)),
    Target(name="hello", run=read_hello),
    Target(
        name="journal",
        run=read_journal,
        may_raise=(journal.FormatError,),
        examples=(journal_example(), b"\x01" + len(DEEP).to_bytes(4, "little") + DEEP),
    ),
    Target(
        name="backup",
        run=in_file(read_backup),
        may_raise=(BackupFileError,),
        examples=(backup_with(MANIFEST),),
    ),
    Target(
        name="backup_manifest",
        run=lambda data: in_file(read_backup)(backup_with(data)),
        may_raise=(BackupFileError,),
        examples=(MANIFEST, DEEP[:60_000], b'{"manifest":[]}'),
    ),
    Target(
        name="key_ring",
        run=in_file(read_ring),
        may_raise=(KeyRingError,),
        examples=(
            RING.to_bytes(),
            DEEP,
            b'{"wrapped": "AES-SIV", "ring": "AAAA"}',
            b'{"wrapped": "AES-SIV", "ring": "AAAA", "key": "AAAA"}',
        ),
    ),
    Target(
        name="recovery_bundle",
        run=bundles.from_bytes,
        may_raise=(bundles.BundleError,),
        examples=(bundles.to_bytes(bundles.Bundle(ring=RING)), DEEP),
    ),
    Target(
        name="passcodes",
        run=read_passcode,
        examples=(b"4711 ABCD-EFGH", "\ufb03\u00ad12345678".encode(), b"123456"),
    ),
    Target(
        name="forms",
        run=read_form,
        may_raise=(InvalidFieldError,),
        examples=(FORM, b"email=a%40example.com", b"email=%2B%C3%BC%40%5B%40a"),
    ),
    Target(
        name="http_fields",
        run=read_http_fields,
        may_raise=(RequestError,),
        examples=(
            b'{"username":"al","passcode":"4711123456","request_id":"1"}',
            b'{"challenge":"AAECAw","tokencode":"123456","new_pin":"\\ud800"}',
            b'{"username":' + b"9" * 5_000 + b"}",
            DEEP,
        ),
    ),
    Target(
        name="privacyidea",
        run=read_privacyidea,
        examples=(
            b"user=al&pass=4711%2525123456&transaction_id=AAECAw&realm=r&client=::1",
            b"user=al&pass=%25ff%ff&state=!",
            b'{"user":"al","pass":"%C3%A9%ff","state":"AAECAw"}',
            b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\nal\r\n--x--\r\n',
            b"--x\r\nContent-Disposition: form-data; name*\r\n\r\nal\r\n--x--\r\n",
            DEEP,
        ),
    ),
    Target(name="seals", run=open_seal),
    Target(
        name="passkey_answers",
        run=read_passkey_answer,
        may_raise=(RefusedAnswerError,),
        examples=(
            DEVICE.used(CHECKS.request(SIGN_IN, DOMAIN)).encode(),
            json.dumps(MADE).encode(),
            DEEP,
        ),
    ),
    Target(
        name="attestations",
        run=read_attestation,
        may_raise=(RefusedAnswerError,),
        examples=(base64url_to_bytes(MADE["response"]["attestationObject"]),),
    ),
    Target(
        name="radius_packets",
        run=read_radius,
        examples=(
            radius_request("radsec"),
            radius_request("radsec", signed=False, attributes=((32, b"nas"),)),
            radius_request("other", attributes=((24, b"state"), (33, b"proxy"))),
        ),
    ),
    Target(name="join_tickets", run=read_ticket, examples=(PREFIX.encode(),)),
    Target(
        name="audit_export",
        run=in_file(lambda path: verify(path, ())),
        may_raise=(AuditFileError,),
        examples=(b'{"sequence":1}\n', DEEP),
    ),
    Target(
        name="audit_checkpoint",
        run=in_file(read_checkpoint),
        may_raise=(AuditFileError,),
        examples=(b'{"cluster_id":"c"}', DEEP),
    ),
    Target(
        name="audit_keys",
        run=in_file(read_public_keys),
        may_raise=(AuditFileError,),
        examples=(b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",),
    ),
)
