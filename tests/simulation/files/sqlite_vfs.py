# SPDX-License-Identifier: Apache-2.0
"""
A VFS for SQLite that lets the simulation see and fail each call on a state's files.

It is registered by `ctypes` in the library that Python's own `sqlite3` uses, so the code
under test is the product's, unchanged. (`apsw` brings a library of its own: a VFS in it
is not seen by `sqlite3`.) Locks, shared memory and paths are those of SQLite's VFS for
Unix, on real files; reads, writes, syncs, truncations and deletions pass by a `Watcher`.
"""

import _sqlite3
import contextlib
import ctypes
from collections.abc import Callable, Iterator
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_int64,
    c_void_p,
)
from pathlib import Path
from typing import Any, Protocol

OK = 0
FULL = 13
IOERR = 10
IOERR_READ = IOERR | 1 << 8
IOERR_WRITE = IOERR | 3 << 8
IOERR_FSYNC = IOERR | 4 << 8
IOERR_TRUNCATE = IOERR | 6 << 8
IOERR_DELETE = IOERR | 10 << 8
CANTOPEN = 14

NAME = b"simulated"

_JOURNALS = 0x800 | 0x4000 | 0x80000
"""Flags of `xOpen`: a journal, a super-journal, a write-ahead log."""


class Watcher(Protocol):
    """The files of one process. A method returns `OK`, or the error of SQLite's call."""

    def opens(self, name: str) -> int: ...
    def created(self, name: str) -> None: ...
    def names_synced(self) -> None: ...
    def reads(self, name: str) -> int: ...
    def writes(self, name: str, at: int, data: bytes) -> tuple[int, int]:
        """Return the error, and how many bytes of the data reach the file all the same."""

    def wrote(self, name: str, at: int, data: bytes) -> None: ...
    def truncates(self, name: str, size: int) -> int: ...
    def truncated(self, name: str, size: int) -> None: ...
    def syncs(self, name: str) -> int: ...
    def deletes(self, name: str) -> int: ...
    def deleted(self, name: str) -> None: ...


Find = Callable[[str], "tuple[Watcher, str] | None"]
"""Returns who watches a path, and the name of the file there; None: nobody does."""


class _File(Structure):
    """SQLite's `sqlite3_file`: what follows belongs to the VFS for Unix."""


class _Methods(Structure):
    """SQLite's `sqlite3_io_methods`."""


class _Vfs(Structure):
    """SQLite's `sqlite3_vfs`."""


_CLOSE = CFUNCTYPE(c_int, POINTER(_File))
_READ = CFUNCTYPE(c_int, POINTER(_File), c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, POINTER(_File), c_int64)
_SYNC = CFUNCTYPE(c_int, POINTER(_File), c_int)
_OPEN = CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, POINTER(_File), c_int, POINTER(c_int))
_DELETE = CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, c_int)
_RANDOMNESS = CFUNCTYPE(c_int, POINTER(_Vfs), c_int, c_void_p)

_File._fields_ = [("methods", POINTER(_Methods))]
_Methods._fields_ = [
    ("version", c_int),
    ("close", _CLOSE),
    ("read", _READ),
    ("write", _READ),
    ("truncate", _TRUNCATE),
    ("sync", _SYNC),
    *((f"other{k}", c_void_p) for k in range(13)),
]
_Vfs._fields_ = [
    ("version", c_int),
    ("file_bytes", c_int),
    ("path_max", c_int),
    ("next", c_void_p),
    ("name", c_char_p),
    ("data", c_void_p),
    ("open", _OPEN),
    ("delete", _DELETE),
    *((f"other{k}", c_void_p) for k in range(6)),
    ("randomness", _RANDOMNESS),
    *((f"more{k}", c_void_p) for k in range(7)),
]


def library() -> Any:
    """
    Return the SQLite that Python's `sqlite3` uses.

    Raises `RuntimeError` if it has been linked into Python so that nobody else sees it.
    """
    found = ctypes.CDLL(_sqlite3.__file__) if hasattr(_sqlite3, "__file__") else None
    if not hasattr(found, "sqlite3_vfs_register"):
        raise RuntimeError(
            "this Python hides its SQLite; no VFS can be registered in it"
        )
    found.sqlite3_vfs_find.restype = POINTER(_Vfs)
    found.sqlite3_vfs_find.argtypes = [c_char_p]
    found.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
    found.sqlite3_vfs_unregister.argtypes = [POINTER(_Vfs)]
    found.sqlite3_randomness.argtypes = [c_int, c_void_p]
    return found


class SimulatedVfs:
    """The VFS; while `registered`, `sqlite3.connect` uses it."""

    def __init__(self, find: Find, random_bytes: Callable[[int], bytes]) -> None:
        """*find* names who watches; *random_bytes* are SQLite's, such as its salts."""
        self._find = find
        self._random_bytes = random_bytes
        self._library = library()
        self._base = self._library.sqlite3_vfs_find(b"unix")
        self._vfs = _Vfs.from_buffer_copy(self._base.contents)
        self._vfs.name = NAME
        self._callbacks = (
            _OPEN(self._open),
            _DELETE(self._delete),
            _RANDOMNESS(self._randomness),
        )
        self._vfs.open, self._vfs.delete, self._vfs.randomness = self._callbacks
        self._open_files: dict[int, tuple[Watcher, str, Any]] = {}
        """Watcher, name, and the methods of the VFS for Unix, by address."""
        self._new_journals: set[int] = set()
        """Files whose first sync syncs their directory, too."""
        self._methods: dict[int, Any] = {}
        """Ours, by the address of theirs."""
        self._kept: list[object] = []
        """Callbacks, for as long as SQLite may call them."""

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Be the VFS of all databases that are opened meanwhile."""
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        self._library.sqlite3_randomness(0, None)  # Seeded again, by this VFS.
        try:
            yield
        finally:
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            self._library.sqlite3_vfs_register(self._base, 1)
            self._library.sqlite3_randomness(0, None)

    # --- Of the VFS

    def _randomness(self, _vfs: object, count: int, target: int) -> int:
        ctypes.memmove(target, self._random_bytes(count), count)
        return count

    def _open(
        self, _vfs: object, path: int | None, file: Any, flags: int, out: Any
    ) -> int:
        # The address is handed on: the VFS for Unix reads what stands after the name.
        watched = self._find(_text(path)) if path else None
        is_new = watched is not None and not Path(_text(path or 0)).exists()
        if watched is not None:
            error = watched[0].opens(watched[1])
            if error:
                file.contents.methods = None
                return error
        done: int = self._base.contents.open(self._base, path, file, flags, out)
        if done == OK and watched is not None and file.contents.methods:
            address = ctypes.addressof(file.contents)
            theirs = file.contents.methods
            self._open_files[address] = (*watched, theirs.contents)
            file.contents.methods = ctypes.pointer(self._ours(theirs))
            if is_new:
                watched[0].created(watched[1])
                if flags & _JOURNALS:
                    self._new_journals.add(address)
        return done

    def _delete(self, _vfs: object, path: int, sync: int) -> int:
        watched = self._find(_text(path))
        if watched is None:
            return int(self._base.contents.delete(self._base, path, sync))
        watcher, name = watched
        if error := watcher.deletes(name):
            return error
        done: int = self._base.contents.delete(self._base, path, sync)
        if done == OK:
            watcher.deleted(name)
        return done

    # --- Of a file

    def _ours(self, theirs: Any) -> _Methods:
        address = ctypes.addressof(theirs.contents)
        if address not in self._methods:
            ours = _Methods.from_buffer_copy(theirs.contents)
            callbacks = (
                _CLOSE(self._close),
                _READ(self._read),
                _READ(self._write),
                _TRUNCATE(self._truncate),
                _SYNC(self._sync),
            )
            ours.close, ours.read, ours.write, ours.truncate, ours.sync = callbacks
            self._kept.append((callbacks, ours))
            self._methods[address] = ours
        methods: _Methods = self._methods[address]
        return methods

    def _close(self, file: Any) -> int:
        address = ctypes.addressof(file.contents)
        self._new_journals.discard(address)
        _, _, theirs = self._open_files.pop(address)
        return int(theirs.close(file))

    def _read(self, file: Any, target: int, count: int, at: int) -> int:
        watcher, name, theirs = self._open_files[ctypes.addressof(file.contents)]
        return watcher.reads(name) or int(theirs.read(file, target, count, at))

    def _write(self, file: Any, source: int, count: int, at: int) -> int:
        watcher, name, theirs = self._open_files[ctypes.addressof(file.contents)]
        data = ctypes.string_at(source, count)
        error, size = watcher.writes(name, at, data)
        if size:
            done = int(theirs.write(file, source, size, at))
            if done != OK:
                return done
            watcher.wrote(name, at, data[:size])
        return error

    def _truncate(self, file: Any, size: int) -> int:
        watcher, name, theirs = self._open_files[ctypes.addressof(file.contents)]
        if error := watcher.truncates(name, size):
            return error
        done = int(theirs.truncate(file, size))
        if done == OK:
            watcher.truncated(name, size)
        return done

    def _sync(self, file: Any, _flags: int) -> int:
        address = ctypes.addressof(file.contents)
        watcher, name, _ = self._open_files[address]
        error = watcher.syncs(name)
        if not error and address in self._new_journals:
            self._new_journals.remove(address)
            watcher.names_synced()  # As `unixSync` does (UNIXFILE_DIRSYNC).
        return error


def _text(address: int) -> str:
    return ctypes.string_at(address).decode()
