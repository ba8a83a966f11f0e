"""The sidecar's part of copies: what it takes, how much of it at a time, and what it counts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from conch.api.gateway import Gateway
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, ShadowTraffic
from conch.api.shadow import Shadow as ShadowSpec
from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.envoy.naming import Protocol
from conch.gateway.routed import Endpoint, RoutedObject, RoutedShare, Snapshot
from conch.gateway.shadow import (
    ANSWER_SECONDS_MOST,
    BURST,
    PAIRS_MOST,
    PAIRS_MOST_OF_ONE,
    PAIRS_PER_SECOND,
    Shadow,
)
from conch.gateway.shadow_outcomes import Answered, Failed, Outcome, TooLarge
from conch.gateway.shadow_senders import Copy, Senders

KEY: Final = ("vision", "digits")
OTHER: Final = ("vision", "faces")
HTTP: Final = Copy(protocol=Protocol.HTTP, path="/v2/models/m/infer", headers={"Content-Type": "application/json"})
GRPC: Final = Copy(protocol=Protocol.GRPC, path="/x", headers={"Content-Type": "application/grpc"})
STABLE: Final = "10.0.0.1"
CANDIDATE: Final = "10.0.0.2"


def answered(values: list[float], milliseconds: float = 3.5) -> Answered:
    row = {"name": "y", "datatype": "FP32", "shape": [len(values)], "data": values}
    return Answered(body=json.dumps({"outputs": [row]}).encode(), headers={}, milliseconds=milliseconds)


def answered_grpc(values: list[float]) -> Answered:
    response = ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=[len(values)])
    response.raw_output_contents.append(np.array(values, dtype=np.float32).tobytes())
    return Answered(body=response.SerializeToString(), headers={}, milliseconds=1.0)


class Answers(Senders):
    """What servers answer, by address; they wait for the gate."""

    def __init__(self) -> None:
        super().__init__(ServerPorts())
        self.of: dict[str, Outcome] = {STABLE: answered([1.0]), CANDIDATE: answered([1.0])}
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[tuple[str, float]] = []

    async def ask(self, address: str, copy: Copy, body: bytes, *, seconds: float) -> Outcome:
        del copy, body
        self.asked.append((address, seconds))
        await self.gate.wait()
        return self.of[address]


def an_object(key: tuple[str, str], shadow: ShadowSpec | None = None, **fields: Any) -> RoutedObject:
    share = (shadow or ShadowSpec(percent=10)).share
    common: dict[str, Any] = {
        "namespace": key[0],
        "name": key[1],
        "uid": f"uid-{key[1]}",
        "created": "2026-01-01T00:00:00Z",
        "port": 10_000,
        "generation": "g",
        "gateway": Gateway(),
        "shares": (
            RoutedShare(workload=f"{key[1]}1", weight=100),
            RoutedShare(workload=f"{key[1]}2", weight=0, shadow=share),
        ),
        "desired_replicas": 1,
    }
    return RoutedObject(**{**common, **fields})


class Scene:
    """A sidecar's shadow with two objects, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers = Answers()
        self.objects = {key: an_object(key) for key in (KEY, OTHER)}
        self.shadow = Shadow(snapshot=self.snapshot, senders=self.answers, clock=lambda: self.now)

    def snapshot(self) -> Snapshot:
        endpoints = {
            (key[0], f"{key[1]}{number}"): frozenset({Endpoint(pod=f"{key[1]}-{number}", address=address)})
            for key in self.objects
            for number, address in ((1, STABLE), (2, CANDIDATE))
        }
        return Snapshot(objects=self.objects, endpoints=endpoints)

    async def take(self, copy: Copy = HTTP, body: bytes | None = b"{}", key: tuple[str, str] = KEY) -> bool:
        async def read() -> bytes | None:
            return body

        return await self.shadow.take(key, copy, read)

    async def told(self, key: tuple[str, str] = KEY) -> ShadowTraffic:
        """Once nothing is on its way any more."""
        if self.answers.gate.is_set():
            await asyncio.gather(*self.shadow._tasks)
        return self.shadow.told(self.objects[key])[f"{key[1]}2"]


@asynccontextmanager
async def a_scene() -> AsyncIterator[Scene]:
    scene = Scene()
    try:
        yield scene
    finally:
        await scene.shadow.close()


def counted(told: ShadowTraffic) -> tuple[int, int, int, int, int]:
    return told.compared, told.disagreed, told.failed, told.skipped, told.dropped


@pytest.mark.parametrize(
    ("stable", "candidate", "counts", "example"),
    [
        (answered([1.0]), answered([1.0]), (1, 0, 0, 0, 0), ""),
        (answered([1.0]), answered([2.0]), (1, 1, 0, 0, 0), "y: 1 of 1 values differ, by up to 1"),
        (answered([1.0]), Failed(words="HTTP 500"), (0, 0, 1, 0, 0), "HTTP 500"),
        (answered([1.0]), TooLarge(), (1, 1, 0, 0, 0), "too large"),
        (answered([1.0]), Answered(body=b"?", headers={}, milliseconds=1), (1, 1, 0, 0, 0), "cannot be read"),
        (Failed(words="HTTP 400"), Failed(words="HTTP 400"), (0, 0, 0, 1, 0), ""),
        (Failed(words="HTTP 503"), answered([1.0]), (0, 0, 0, 1, 0), ""),
        (TooLarge(), TooLarge(), (0, 0, 0, 1, 0), ""),
        (Answered(body=b"?", headers={}, milliseconds=1), answered([1.0]), (0, 0, 0, 1, 0), ""),
    ],
)
async def test_what_comes_of_a_pair(stable: Outcome, candidate: Outcome, counts: tuple[int, ...], example: str) -> None:
    async with a_scene() as scene:
        scene.answers.of = {STABLE: stable, CANDIDATE: candidate}
        assert await scene.take()
        told = await scene.told()
        assert counted(told) == counts
        assert example in told.example
        assert bool(told.example) == bool(example)


async def test_grpc_is_decoded_too() -> None:
    async with a_scene() as scene:
        scene.answers.of = {STABLE: answered_grpc([1.0]), CANDIDATE: answered_grpc([1.5])}
        await scene.take(GRPC, b"message")
        assert counted(await scene.told()) == (1, 1, 0, 0, 0)


async def test_latencies_are_counted_in_the_buckets_of_the_report() -> None:
    async with a_scene() as scene:
        scene.answers.of = {STABLE: answered([1.0], 3.5), CANDIDATE: answered([1.0], 4e6)}
        await scene.take()
        told = await scene.told()
        assert (sum(told.stable_latency), told.stable_latency[3]) == (1, 1)
        assert told.candidate_latency[-1] == 1
        assert len(told.candidate_latency) == len(LATENCY_BOUNDS_MILLISECONDS) + 1


@pytest.mark.parametrize(
    ("copy", "body"),
    [
        (HTTP, None),
        (HTTP, b'{"parameters": {"sequence_id": 7}, "inputs": []}'),
        (GRPC, b"\x12\x0bsequence_id\x12\x02"),
        (Copy(protocol=Protocol.HTTP, path="/", headers={"Content-Encoding": "gzip"}), b"{}"),
        (Copy(protocol=Protocol.GRPC, path="/", headers={"Grpc-Encoding": "gzip"}), b"{}"),
    ],
)
async def test_what_cannot_be_compared_is_sent_to_nobody(copy: Copy, body: bytes | None) -> None:
    async with a_scene() as scene:
        assert await scene.take(copy, body)
        assert counted(await scene.told()) == (0, 0, 0, 1, 0)
        assert scene.answers.asked == []
        # And has left its place.
        for _ in range(2 * PAIRS_MOST):
            scene.now += 1
            assert await scene.take()
            await scene.told()


async def test_the_bytes_of_tensors_are_not_taken_for_parameters() -> None:
    async with a_scene() as scene:
        head = b'{"inputs": []}'
        headers = {"Inference-Header-Content-Length": str(len(head))}
        copy = Copy(protocol=Protocol.HTTP, path="/", headers=headers)
        await scene.take(copy, head + b"sequence_id")
        assert counted(await scene.told()) == (1, 0, 0, 0, 0)


async def test_one_object_takes_half_of_the_room_at_most_and_all_together_no_more_than_there_is() -> None:
    async with a_scene() as scene:
        scene.answers.gate.clear()
        scene.objects[("vision", "third")] = an_object(("vision", "third"))
        taken = dict.fromkeys(scene.objects, 0)
        for key in scene.objects:
            for _ in range(PAIRS_MOST_OF_ONE + 3):
                scene.now += 1
                taken[key] += await scene.take(key=key)
        assert list(taken.values()) == [PAIRS_MOST_OF_ONE, PAIRS_MOST - PAIRS_MOST_OF_ONE, 0]
        assert (await scene.told()).dropped == 3
        scene.answers.gate.set()
        told = await scene.told()
        assert counted(told) == (PAIRS_MOST_OF_ONE, 0, 0, 0, 3)
        scene.now += 1
        assert await scene.take(key=("vision", "third"))


async def test_no_more_per_second_than_what_leaves_the_sidecar_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    async with a_scene() as scene:
        taken = 0
        for _ in range(1000):
            scene.now += 0.01
            taken += await scene.take()
            await scene.told()
        # Ten seconds.
        assert taken == pytest.approx(10 * PAIRS_PER_SECOND + BURST, abs=2)


async def test_what_takes_long_to_compare_counts_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", iter(0.051 * number for number in range(10_000)).__next__)
    async with a_scene() as scene:
        taken = 0
        for _ in range(1000):
            scene.now += 0.01
            taken += await scene.take()
            await scene.told()
        # Ten seconds, of which a tenth may be spent; and those before the first was found to take so long.
        assert taken == pytest.approx(10 * 0.1 / 0.051, abs=2)


async def test_a_body_that_never_comes_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conch.gateway.shadow.READ_SECONDS", 0.01)
    async with a_scene() as scene:

        async def never() -> bytes:
            await asyncio.Event().wait()
            return b""

        async def broken() -> bytes:
            raise ConnectionResetError

        for _ in range(PAIRS_MOST):
            scene.now += 1
            assert await scene.shadow.take(KEY, HTTP, never)
            with pytest.raises(ConnectionResetError):
                await scene.shadow.take(KEY, HTTP, broken)
        assert counted(await scene.told()) == (0, 0, 0, PAIRS_MOST, 0)
        assert scene.answers.asked == []


async def test_a_fault_of_our_own_speaks_against_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_scene() as scene:

        async def broken(*_: Any, **__: Any) -> Outcome:
            raise RuntimeError("ours")

        monkeypatch.setattr(scene.answers, "ask", broken)
        await scene.take()
        assert counted(await scene.told()) == (0, 0, 0, 1, 0)


async def test_an_answer_has_the_time_that_clients_have_up_to_a_bound() -> None:
    async with a_scene() as scene:
        await scene.take()
        scene.objects[KEY] = an_object(KEY, gateway=Gateway(timeout_seconds=3))
        scene.now += 1
        await scene.take()
        await scene.told()
        assert [seconds for _, seconds in scene.answers.asked] == [ANSWER_SECONDS_MOST] * 2 + [3] * 2
        assert {address for address, _ in scene.answers.asked} == {STABLE, CANDIDATE}


async def test_without_somebody_to_ask_nothing_is_asked() -> None:
    async with a_scene() as scene:
        assert await scene.take(key=("vision", "unknown"))
        for shares in (
            (RoutedShare(workload="digits1", weight=100),),
            (RoutedShare(workload="digits2", weight=0, shadow=ShadowSpec(percent=1).share),),
            (
                RoutedShare(workload="digits1", weight=100),
                RoutedShare(workload="gone", weight=0, shadow=ShadowSpec(percent=1).share),
            ),
        ):
            scene.objects[KEY] = an_object(KEY, shares=shares)
            assert await scene.take()
        assert scene.answers.asked == []


async def test_counters_go_with_their_workload_and_begin_anew_with_another_comparison() -> None:
    async with a_scene() as scene:
        await scene.take()
        before = await scene.told()
        assert before.compared == 1
        scene.objects[KEY] = an_object(KEY, ShadowSpec(percent=99))
        assert (await scene.told()).epoch == before.epoch
        scene.objects[KEY] = an_object(KEY, ShadowSpec.model_validate({"percent": 99, "tolerance": {"absolute": 1}}))
        other = await scene.told()
        assert (other.compared, other.comparison) == (0, scene.objects[KEY].shares[1].shadow.comparison)  # type: ignore[union-attr]  # it is there: the line fails otherwise
        assert other.epoch != before.epoch
        del scene.objects[KEY]
        scene.shadow.forget_gone()
        assert [key for key, _ in scene.shadow._counts] == []
