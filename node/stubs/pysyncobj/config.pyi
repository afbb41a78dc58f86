# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .journal import Entry, Journal
from .node import Node

# What a log compaction hands to the serializer: the entry applied last, the one
# before it, and the members.
SnapshotHead: TypeAlias = tuple[Entry, Entry, set[Node]]

class FAIL_REASON:
    SUCCESS: Final = 0
    QUEUE_FULL: Final = 1
    MISSING_LEADER: Final = 2
    DISCARDED: Final = 3
    NOT_LEADER: Final = 4
    LEADER_CHANGED: Final = 5
    REQUEST_DENIED: Final = 6
    UNKNOWN_OUTCOME: Final = 7

class SERIALIZER_STATE:
    NOT_SERIALIZING: Final = 0
    SERIALIZING: Final = 1
    SUCCESS: Final = 2
    FAILED: Final = 3

class SyncObjConf:
    password: str | None
    autoTick: bool
    autoTickPeriod: float
    commandsQueueSize: int
    raftMinTimeout: float
    raftMaxTimeout: float
    appendEntriesPeriod: float
    connectionTimeout: float
    connectionRetryTime: float
    leaderFallbackTimeout: float
    appendEntriesUseBatch: bool
    appendEntriesBatchSizeBytes: int
    bindAddress: str | None
    preferredAddrType: str | None
    sendBufferSize: int
    recvBufferSize: int
    dnsCacheTime: float
    dnsFailCacheTime: float
    logCompactionMinEntries: int
    logCompactionMinTime: float
    logCompactionSplit: bool
    logCompactionBatchSize: int
    commandsWaitLeader: bool
    fullDumpFile: str | None
    # The engine only hands it to `syncobj.createJournal`: a replacement of that
    # function may take a journal.
    journalFile: str | Journal | None
    bindRetryTime: float
    maxBindRetries: int
    onReady: Callable[[], object] | None
    onStateChanged: Callable[[int, int], object] | None
    dynamicMembershipChange: bool
    pollerType: str
    useFork: bool
    serializer: Callable[[str, SnapshotHead], object] | None
    serializeChecker: Callable[[], int] | None
    deserializer: Callable[[str], SnapshotHead] | None
    onCodeVersionChanged: Callable[[int, int], object] | None
    tcp_keepalive: tuple[int, int, int] | None

    # Named as the attributes; an unknown name is ignored without a word.
    def __init__(self, **kwargs: Any) -> None: ...
    def validate(self) -> None: ...
