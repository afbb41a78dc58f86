# SPDX-License-Identifier: Apache-2.0
"""
The command `sparecode-pkcs11-wrap`: a wrap command with its key in an HSM.

It encrypts with AES-GCM under an AES key that never leaves the HSM (PKCS#11).
docs/key-wrapping.md tells how to set it up, and what a program of another kind has to
do. Its output names the key, so a ring that an earlier key wrapped still opens.

Exit codes: 0 done, 65 the key does not open the value, 1 anything else.
"""

import argparse
import base64
import json
import os
import resource
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from sparecode_node.config_section import ConfigError, Section
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRingError, read_private
from sparecode_node.services.secrets.wrap_command import (
    EXIT_REFUSED,
    OUTPUT_BYTES_MAX,
)

if TYPE_CHECKING:
    import pkcs11

NONCE_BYTES = 12
KEY_BITS = 256
_PURPOSE = b"sparecode/v1/pkcs11-wrap\0"
_EXTRA: Final = "python-pkcs11 is missing: pip install 'sparecode[node,pkcs11]'"


class WrapError(Exception):
    """The HSM did not do what it was asked for. The message is one line."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Hsm:
    """Where the key is, and how to get at it: the section `[pkcs11]` of a file."""

    module: Path
    token: str
    key: str
    pin_file: Path
    environment: Mapping[str, str]


def read_settings(path: Path) -> Hsm:
    """Read the settings. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    section = Section(path, "pkcs11", tables.get("pkcs11", {}))
    variables = section.table_or_none("environment") or {}
    names = Section(path, "pkcs11.environment", variables)
    hsm = Hsm(
        module=section.file("module"),
        token=section.text("token"),
        key=section.text("key"),
        pin_file=section.credential("pin_file", os.environ),
        environment={name: names.text(name) for name in variables},
    )
    section.done()
    return hsm


@contextmanager
def opened(hsm: Hsm, *, write: bool = False) -> "Iterator[pkcs11.Session]":
    """Log in to the HSM. Raises `WrapError`; every error of the HSM becomes one."""
    try:
        import pkcs11  # noqa: PLC0415 - an optional extra.
        from pkcs11 import TokenFlag  # noqa: PLC0415
        from pkcs11.exceptions import (  # noqa: PLC0415
            NoSuchKey,
            NoSuchToken,
            PinIncorrect,
            PKCS11Error,
        )
    except ImportError:
        raise WrapError(_EXTRA) from None
    try:
        pin = read_private(hsm.pin_file).decode().partition("\n")[0].rstrip("\r")
        os.environ.update(hsm.environment)
        token = pkcs11.lib(str(hsm.module)).get_token(token_label=hsm.token)
        if token.flags & (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED):
            raise WrapError(
                f"token {hsm.token}: the PIN was wrong too often, and the next mistake "
                "would lock it: correct pin_file, and log in once by hand"
            )
        with token.open(rw=write, user_pin=pin) as session:
            yield session
    except (KeyRingError, UnicodeDecodeError) as error:
        raise WrapError(str(error)) from None
    except PinIncorrect:
        raise WrapError(
            f"token {hsm.token}: the PIN in {hsm.pin_file} is wrong"
        ) from None
    except NoSuchToken:
        raise WrapError(f"{hsm.module}: there is no token {hsm.token}") from None
    except NoSuchKey:
        raise WrapError(
            f"token {hsm.token}: there is no AES key {hsm.key}; create it with create-key"
        ) from None
    except PKCS11Error as error:
        name = type(error).__name__
        raise WrapError(f"token {hsm.token}: {name} {error}".rstrip()) from None
    except RuntimeError as error:  # The module cannot be loaded.
        raise WrapError(f"{hsm.module}: {error}") from None


def wrap(hsm: Hsm, content: bytes) -> bytes:
    """Encrypt with the HSM's key. Raises `WrapError`."""
    nonce = SystemEntropy().token_bytes(NONCE_BYTES)
    with opened(hsm) as session:
        from pkcs11 import GCMParams, Mechanism  # noqa: PLC0415

        sealed = _key(session, hsm.key).encrypt(
            content,
            mechanism=Mechanism.AES_GCM,
            mechanism_param=GCMParams(nonce, _bound_to(hsm.key)),
        )
    form = {
        "key": hsm.key,
        "nonce": base64.b64encode(nonce).decode(),
        "sealed": base64.b64encode(bytes(sealed)).decode(),
    }
    return json.dumps(form).encode() + b"\n"


def unwrap(hsm: Hsm, content: bytes) -> bytes:
    """Decrypt with the key that the content names. Raises `WrapError`."""
    try:
        form = json.loads(content)
        label = form["key"]
        nonce, sealed = (
            base64.b64decode(form[name], validate=True) for name in ("nonce", "sealed")
        )
        bound_to = _bound_to(label)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise WrapError("this is not an output of this program", EXIT_REFUSED) from None
    with opened(hsm) as session:
        from pkcs11 import GCMParams, Mechanism  # noqa: PLC0415
        from pkcs11.exceptions import NoSuchKey, PKCS11Error  # noqa: PLC0415

        try:
            key = _key(session, label)
        except NoSuchKey:
            raise WrapError(
                f"token {hsm.token}: there is no AES key {label}", EXIT_REFUSED
            ) from None
        try:
            return bytes(
                key.decrypt(
                    sealed,
                    mechanism=Mechanism.AES_GCM,
                    mechanism_param=GCMParams(nonce, bound_to),
                )
            )
        except PKCS11Error as error:
            raise WrapError(
                f"token {hsm.token}: AES key {label} does not open this "
                f"({type(error).__name__})",
                EXIT_REFUSED,
            ) from None


def create_key(hsm: Hsm) -> None:
    """Create the AES key, which cannot be read out of the HSM. Raises `WrapError`."""
    with opened(hsm, write=True) as session:
        from pkcs11 import Attribute, KeyType, MechanismFlag  # noqa: PLC0415
        from pkcs11.exceptions import NoSuchKey  # noqa: PLC0415

        try:
            _key(session, hsm.key)
        except NoSuchKey:
            session.generate_key(
                KeyType.AES,
                KEY_BITS,
                label=hsm.key,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
        else:
            raise WrapError(
                f"token {hsm.token}: AES key {hsm.key} exists; keys are never replaced: "
                "choose another name"
            )


class _AesKey(Protocol):
    """A key of python-pkcs11, which gives it these methods at run time."""

    def encrypt(self, data: bytes, **options: object) -> bytes: ...

    def decrypt(self, data: bytes, **options: object) -> bytes: ...


def _key(session: "pkcs11.Session", label: str) -> _AesKey:
    from pkcs11 import KeyType, ObjectClass  # noqa: PLC0415

    key = session.get_key(
        object_class=ObjectClass.SECRET_KEY, key_type=KeyType.AES, label=label
    )
    return cast("_AesKey", key)


def _bound_to(label: str) -> bytes:
    return _PURPOSE + label.encode()


VERBS: Mapping[str, Callable[[Hsm, bytes], bytes]] = {"wrap": wrap, "unwrap": unwrap}


def main(arguments: list[str] | None = None) -> int:
    """Run `sparecode-pkcs11-wrap`."""
    parser = argparse.ArgumentParser(
        prog="sparecode-pkcs11-wrap",
        description="Wrap the key of a node's key ring with a key in an HSM. The node "
        "runs it, with wrap or unwrap: docs/key-wrapping.md.",
    )
    parser.add_argument(
        "settings",
        metavar="FILE",
        type=Path,
        help="settings, with the section [pkcs11]",
    )
    parser.add_argument(
        "verb",
        choices=(*VERBS, "create-key"),
        help="what to do with stdin; or create the key in the HSM, once",
    )
    options = parser.parse_args(arguments)
    # A core dump would contain the PIN.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        hsm = read_settings(options.settings)
        if options.verb == "create-key":
            create_key(hsm)
            sys.stdout.write(f"Created AES key {hsm.key} on token {hsm.token}.\n")
            return 0
        content = sys.stdin.buffer.read(OUTPUT_BYTES_MAX + 1)
        sys.stdout.buffer.write(VERBS[options.verb](hsm, content))
    except (ConfigError, WrapError) as error:
        sys.stderr.write(f"{error}\n")
        return getattr(error, "code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
