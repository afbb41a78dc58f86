# SPDX-License-Identifier: Apache-2.0
"""Slow hashing: bounded, counted, separated by purpose and lane (T3, I12)."""

import asyncio
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from sparecode_node.services.errors import HashingOverloadedError
from sparecode_node.services.load.fair_queue import (
    Group,
    Share,
    administrators_share,
)
from sparecode_node.services.secrets import kdf as kdf_module
from sparecode_node.services.secrets.kdf import (
    PRODUCTION,
    TESTING,
    Kdf,
    KdfInput,
    Lane,
    Secret,
)

SALT = bytes(16)
SHARE = Share(group=Group.AGENTS, caller="vpn")
OTHER = Share(group=Group.AGENTS, caller="mail")
PIN = KdfInput(secret=Secret.PIN, salt=SALT, text="1234")


@pytest.fixture
def kdf() -> Iterator[Kdf]:
    kdf = Kdf(TESTING, workers=2, waiting_max=2, issuing_max=2)
    yield kdf
    kdf.close()


async def derive(
    kdf: Kdf, *inputs: KdfInput, share: Share = SHARE
) -> tuple[bytes, ...]:
    return await kdf.derive(inputs, lane=Lane.AUTHENTICATING, share=share, timeout_s=60)


async def until(count: Callable[[], int], expected: int) -> None:
    """Return when a number that grows is as expected; it must not become more."""
    async with asyncio.timeout(10):
        while (seen := count()) < expected:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert seen == expected


@pytest.mark.asyncio
async def test_hash_depends_on_secret_salt_and_text(kdf: Kdf) -> None:
    hashes = [
        *await derive(kdf, PIN, KdfInput(secret=Secret.CODE, salt=SALT, text="1234")),
        *await derive(
            kdf,
            KdfInput(secret=Secret.PIN, salt=b"1" * 16, text="1234"),
            KdfInput(secret=Secret.PIN, salt=SALT, text=""),
        ),
    ]
    assert len(set(hashes)) == 4
    assert await derive(kdf, PIN) == (hashes[0],)
    assert kdf.evaluations() == 5
    assert kdf.evaluations(Lane.ISSUING) == 0


@pytest.mark.asyncio
async def test_excess_work_is_shed_before_it_is_computed(kdf: Kdf) -> None:
    with pytest.raises(HashingOverloadedError) as raised:
        await derive(kdf, PIN, PIN, PIN, PIN, PIN)
    assert 0.5 <= raised.value.retry_after_s < 1.5
    assert kdf.evaluations() == 0
    assert len(await derive(kdf, PIN, PIN, PIN, PIN)) == 4


@pytest.mark.asyncio
async def test_full_lane_for_issuing_leaves_authentication_alone(
    kdf: Kdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) With the issuing lane full and shedding, PINs are still hashed."""
    release = threading.Event()
    hashed = kdf_module.hashed

    def blocking(profile: kdf_module.Argon2Parameters, each: KdfInput) -> bytes:
        if each.secret is Secret.CODE:
            assert release.wait(10)
        return hashed(profile, each)

    monkeypatch.setattr(kdf_module, "hashed", blocking)
    code = KdfInput(secret=Secret.CODE, salt=SALT, text="K7PM4XQ2")
    issuing = asyncio.ensure_future(
        kdf.derive([code, code], lane=Lane.ISSUING, share=SHARE, timeout_s=60)
    )
    await asyncio.sleep(0)
    with pytest.raises(HashingOverloadedError):
        await kdf.derive([code], lane=Lane.ISSUING, share=SHARE, timeout_s=60)
    assert len(await derive(kdf, PIN, PIN)) == 2
    release.set()
    assert len(await issuing) == 2
    assert kdf.evaluations(Lane.ISSUING) == 2
    assert (
        len(await kdf.derive([code], lane=Lane.ISSUING, share=SHARE, timeout_s=60)) == 1
    )


@pytest.mark.asyncio
async def test_deadline_during_hashing_is_an_error(
    kdf: Kdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was proposed yet: the caller may try again."""
    release = threading.Event()
    monkeypatch.setattr(kdf_module, "hashed", lambda *_: b"" * release.wait(10))
    with pytest.raises(HashingOverloadedError):
        await kdf.derive(
            [PIN] * 3, lane=Lane.AUTHENTICATING, share=SHARE, timeout_s=0.01
        )
    release.set()


@pytest.mark.asyncio
async def test_hashes_without_memory_are_shed_and_warned_of_once(
    kdf: Kdf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was proposed yet, and memory returns as other hashes end."""

    def failing(*_: object) -> bytes:
        raise MemoryError("no 19456 KiB for a hash")

    with monkeypatch.context() as without_memory:
        without_memory.setattr(kdf_module, "hashed", failing)
        for _ in range(2):
            with pytest.raises(HashingOverloadedError) as raised:
                await derive(kdf, PIN, PIN)
            assert 0.5 <= raised.value.retry_after_s < 1.5
    assert kdf.load(Lane.AUTHENTICATING).shed == 4
    (text,) = [each for each in caplog.records if each.name == kdf_module.__name__]
    assert (text.levelname, text.getMessage()) == ("WARNING", "hash_without_memory")
    assert vars(text)["cause"] == "no 19456 KiB for a hash"
    assert len(await derive(kdf, PIN, PIN, PIN, PIN)) == 4


def test_production_costs_what_the_rule_says() -> None:
    """(T3)."""
    assert (PRODUCTION.memory_kib, PRODUCTION.passes) == (19456, 2)


def test_input_does_not_show_its_text() -> None:
    assert "1234" not in repr(PIN)


@pytest.mark.asyncio
async def test_hashes_yield_to_the_rest_and_issuing_to_passcodes(
    kdf: Kdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) A busy pool must not take a core from heartbeats and answers."""
    priorities: dict[Secret, int] = {}

    def noting(_: kdf_module.Argon2Parameters, each: KdfInput) -> bytes:
        thread = threading.get_native_id()
        priorities[each.secret] = os.getpriority(os.PRIO_PROCESS, thread)
        return b""

    monkeypatch.setattr(kdf_module, "hashed", noting)
    await derive(kdf, PIN)
    code = KdfInput(secret=Secret.CODE, salt=SALT, text="K7PM4XQ2")
    await kdf.derive([code], lane=Lane.ISSUING, share=SHARE, timeout_s=60)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities[Secret.PIN] == min(mine + kdf_module.NICE, kdf_module.NICE_MAX)
    assert priorities[Secret.CODE] == min(
        mine + kdf_module.NICE_ISSUING, kdf_module.NICE_MAX
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOSYS])
async def test_hashes_are_computed_where_priorities_cannot_be_lowered(
    kdf: Kdf,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: int,
) -> None:
    """A sandbox may refuse the call in two ways. One warning, not one per thread."""
    both = threading.Barrier(2)

    def refusing(*_: int) -> None:
        if "issuing" not in threading.current_thread().name:  # It has only one worker.
            both.wait(10)
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "setpriority", refusing)
    assert len(await derive(kdf, PIN, PIN)) == 2
    code = KdfInput(secret=Secret.CODE, salt=SALT, text="K7PM4XQ2")
    assert (
        len(await kdf.derive([code], lane=Lane.ISSUING, share=SHARE, timeout_s=60)) == 1
    )
    kdf.close()  # One worker may have computed both, while the other was to warn.
    (text,) = [each for each in caplog.records if each.name == kdf_module.__name__]
    assert (text.levelname, text.getMessage()) == ("WARNING", "priority_not_lowered")
    assert vars(text)["cause"] == str(OSError(refusal, os.strerror(refusal)))


@pytest.mark.asyncio
async def test_excess_attempts_are_shed_before_anything_is_read(
    kdf: Kdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shedding is cheap: an attempt asks for room first."""
    release = threading.Event()
    monkeypatch.setattr(kdf_module, "hashed", lambda *_: b"" * release.wait(10))
    kdf.check_room(Lane.AUTHENTICATING)
    full = asyncio.ensure_future(derive(kdf, PIN, PIN, PIN, PIN))
    await asyncio.sleep(0)
    with pytest.raises(HashingOverloadedError) as raised:
        kdf.check_room(Lane.AUTHENTICATING)
    assert raised.value.retry_after_s >= 0.5
    kdf.check_room(Lane.ISSUING)
    release.set()
    await full
    kdf.check_room(Lane.AUTHENTICATING)


@pytest.mark.asyncio
async def test_hashes_are_the_same_alone_and_in_a_batch() -> None:
    """While all workers are busy, waiting inputs go to one worker as one job."""
    kdf = Kdf(TESTING, workers=1)
    inputs = [KdfInput(secret=Secret.PIN, salt=SALT, text=f"{i}") for i in range(8)]
    alone = [(await derive(kdf, each))[0] for each in inputs]
    result = await asyncio.gather(*(derive(kdf, a, b) for a, b in pairwise(inputs)))
    assert result == list(pairwise(alone))
    assert kdf.evaluations() == 8 + 14
    assert kdf.load(Lane.AUTHENTICATING).taken == 0
    kdf.close()


@pytest.mark.asyncio
async def test_callers_shed_together_get_different_retry_hints() -> None:
    kdf = Kdf(TESTING, workers=1, waiting_max=0)
    reports = []
    for _ in range(50):
        with pytest.raises(HashingOverloadedError) as raised:
            await derive(kdf, PIN, PIN)
        reports.append(raised.value.retry_after_s)
    kdf.close()
    tenths = Counter(int(10 * each) for each in reports)
    assert set(tenths) == set(range(5, 15))
    assert max(tenths.values()) <= 6


@pytest.mark.asyncio
async def test_finished_hashes_wait_for_others_while_many_are_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They share entries of the log then. The last ones wait for no others."""
    may_compute = _gated(monkeypatch)
    kdf = Kdf(TESTING, workers=1)
    handed_over = [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 11, 11, 11, 14, 14, 16, 16]
    handed_over += range(18, 26)
    requests = [asyncio.ensure_future(derive(kdf, PIN)) for _ in handed_over]
    await asyncio.sleep(0)
    for computed, answered in enumerate(handed_over, 1):
        may_compute.release()
        await until(kdf.evaluations, computed)
        await until(lambda: sum(each.done() for each in requests), answered)
    kdf.close()


@pytest.mark.asyncio
async def test_a_caller_with_few_requests_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(L8) The queue of another one is full, and its finished hashes wait."""
    may_compute = _gated(monkeypatch)
    kdf = Kdf(TESTING, workers=1)
    busy = [asyncio.ensure_future(derive(kdf, PIN)) for _ in range(25)]
    await asyncio.sleep(0)
    other = asyncio.ensure_future(derive(kdf, PIN, share=OTHER))
    await asyncio.sleep(0)
    for computed in (1, 2):
        may_compute.release()
        await until(kdf.evaluations, computed)
    assert not any(each.done() for each in busy)
    may_compute.release()
    assert len(await other) == 1
    assert kdf.evaluations() == 3
    may_compute.release(23)
    await asyncio.gather(*busy)
    kdf.close()


@pytest.mark.asyncio
async def test_hashes_for_issuing_wait_for_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_compute = _gated(monkeypatch)
    kdf = Kdf(TESTING, workers=1)
    sets = [
        asyncio.ensure_future(
            kdf.derive([PIN], lane=Lane.ISSUING, share=SHARE, timeout_s=60)
        )
        for _ in range(25)
    ]
    await asyncio.sleep(0)
    for computed in range(1, 26):
        may_compute.release()
        await until(lambda: sum(each.done() for each in sets), computed)
    kdf.close()


@pytest.mark.asyncio
async def test_a_pool_that_closes_keeps_no_finished_hashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_compute = _gated(monkeypatch)
    kdf = Kdf(TESTING, workers=1)
    requests = [asyncio.ensure_future(derive(kdf, PIN)) for _ in range(20)]
    await asyncio.sleep(0)
    may_compute.release()
    await until(kdf.evaluations, 1)
    closing = asyncio.ensure_future(asyncio.to_thread(kdf.close))
    await until(lambda: sum(each.done() for each in requests), 18)
    may_compute.release()
    await closing
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert sum(isinstance(each, tuple) for each in results) == kdf.evaluations() == 2


def _gated(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Let a hash be computed for each release of the semaphore only."""
    may_compute = threading.Semaphore(0)
    hashed = kdf_module.hashed

    def blocking(profile: kdf_module.Argon2Parameters, each: KdfInput) -> bytes:
        assert may_compute.acquire(timeout=10)
        return hashed(profile, each)

    monkeypatch.setattr(kdf_module, "hashed", blocking)
    return may_compute


@pytest.mark.asyncio
async def test_a_busy_caller_gives_way_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(L8) The newest request of the one with the most waits in vain, and is told so."""
    may_compute = _gated(monkeypatch)
    kdf = Kdf(TESTING, workers=2, waiting_max=4)
    busy = [asyncio.ensure_future(derive(kdf, PIN, PIN)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(HashingOverloadedError):
        kdf.check_room(Lane.AUTHENTICATING, SHARE)
    kdf.check_room(Lane.AUTHENTICATING)
    other = asyncio.ensure_future(derive(kdf, PIN, PIN, share=OTHER))
    with pytest.raises(HashingOverloadedError):
        await busy[2]
    may_compute.release(6)
    assert len(await other) == len(await busy[0]) == len(await busy[1]) == 2
    load = kdf.load(Lane.AUTHENTICATING)
    kdf.close()
    assert (load.taken, load.computed, load.shed) == (0, 6, 3)


@pytest.mark.asyncio
async def test_a_request_that_gives_way_in_part_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(L8) Its first hash is being computed, its last one gives way: it waits for none."""
    began, release = threading.Event(), threading.Event()

    def blocking(*_: object) -> bytes:
        began.set()
        assert release.wait(10)
        return b""

    monkeypatch.setattr(kdf_module, "hashed", blocking)
    kdf = Kdf(TESTING, workers=1, issuing_max=3)
    code = KdfInput(secret=Secret.CODE, salt=SALT, text="K7PM4XQ2")

    def issuing(caller: str, count: int) -> asyncio.Future[tuple[bytes, ...]]:
        share = administrators_share(caller)
        return asyncio.ensure_future(
            kdf.derive([code] * count, lane=Lane.ISSUING, share=share, timeout_s=60)
        )

    busy = issuing("desk", 3)
    assert await asyncio.to_thread(began.wait, 10)
    other = issuing("root", 1)
    with pytest.raises(HashingOverloadedError):
        await busy
    assert kdf.load(Lane.ISSUING).computed == 0
    release.set()
    assert len(await other) == 1
    kdf.close()
    assert kdf.load(Lane.ISSUING).taken == 0
