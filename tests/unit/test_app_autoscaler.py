"""When each object is looked at, what is remembered of it, and that no object disturbs another."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from conch.api.autoscaling import ScalingReason
from conch.api.gateway_report import ObjectTraffic, WorkloadTraffic
from conch.api.model_deployment import ModelDeployment, parse
from conch.app import autoscaler as module
from conch.app import metrics
from conch.app.agent_reports import AgentReports, Answer
from conch.app.autoscaler import LOOK_SECONDS, Autoscaler
from conch.app.cluster_view import ClusterView
from conch.app.gateway_reports import GatewayReports
from conch.core.observed import ObservedGateway
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.settings import ScalingSettings
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuned import Tuning
from conch.core.scaling.tuning import tune as real_tune
from conch.core.scaling.tuning import wants_tuning as real_wants_tuning
from conch.kube.reflector import ObjectKey
from tests.support.async_waiting import until
from tests.support.virtual_time import run_virtually, virtual_now

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ("team", "sentiment")
TEN_EACH = {"maxReplicas": 9, "target": {"metric": "RequestsPerSecond", "value": 10}}


class Scene:
    """What the operator knows of objects, their pods and the gateways; time is the test's."""

    def __init__(self, *keys: ObjectKey, **autoscaling: Any) -> None:
        self.objects: dict[ObjectKey, ModelDeployment] = {}
        self.pods_of: dict[ObjectKey, list[ObservedPod]] = {}
        self.traffic: dict[ObjectKey, ObjectTraffic] = {}
        self.now = 0.0
        self.broken: set[ObjectKey] = set()
        self.looks: list[tuple[float, ObjectKey]] = []
        self.changed: list[ObjectKey] = []
        for key in keys or (KEY,):
            self.put(key, {**TEN_EACH, **autoscaling})
        self.autoscaler = Autoscaler(
            cast(ClusterView, self),
            cast(AgentReports, self),
            cast(GatewayReports, self),
            on_change=self.changed.append,
            clock=self.clock,
            now=lambda: START + timedelta(seconds=self.clock()),
            cold_start_prior_seconds=60,
        )

    def put(
        self,
        key: ObjectKey,
        autoscaling: dict[str, Any] | None,
        *,
        uid: str = "u1",
        replicas: int = 1,
        serves: bool = True,
        **spec: Any,
    ) -> None:
        """An object whose first version serves, with as many pods as its status asks for."""
        stable = {"revision": "r1", "version": 1, "workload": "w1"}
        asked = {"autoscaling": autoscaling} if autoscaling else {}
        self.objects[key] = parse(
            {
                "metadata": {"namespace": key[0], "name": key[1], "uid": uid, "resourceVersion": "1"},
                "spec": {"model": {"version": 1, "source": {"uri": "https://m/m.onnx"}}, **asked, **spec},
                "status": {"desiredReplicas": replicas, **({"stable": stable} if serves else {})},
            }
        )
        self.pods_of[key] = [
            ObservedPod(name=f"p{number}", uid=f"{key}-{number}", workload="w1", phase="Running", ready=True)
            for number in range(replicas)
        ]

    def clock(self) -> float:
        return self.now

    def known(self) -> tuple[ObjectKey, ...]:
        return tuple(self.objects)

    def model_deployment(self, key: ObjectKey) -> ModelDeployment | None:
        self.looks.append((self.clock(), key))
        return self.objects.get(key)

    def pods(self, key: ObjectKey) -> tuple[ObservedPod, ...]:
        if key in self.broken:
            raise RuntimeError("something nobody thought of")
        return tuple(self.pods_of[key])

    def answer(self, _uid: str) -> Answer:
        return Answer()

    def seen(self, key: ObjectKey) -> tuple[ObservedGateway, ...]:
        traffic = self.traffic.get(key)
        return (
            ObservedGateway(
                name="g1", address="10.1.0.1", ready=True, heard=traffic is not None, epoch="1", traffic=traffic
            ),
        )

    def counted_at(self, _gateway: str) -> float:
        return self.clock()

    def say(self, key: ObjectKey = KEY, **traffic: Any) -> None:
        self.traffic[key] = ObjectTraffic(**traffic)

    def look(self, key: ObjectKey = KEY, *, after: float = 2.0) -> None:
        self.now += after
        self.autoscaler.look(key)

    def load(self, per_second: float, seconds: float, key: ObjectKey = KEY) -> None:
        """A steady load, looked at every two seconds."""
        before = self.traffic[key].arrivals if key in self.traffic else 0
        for look in range(1, round(seconds / LOOK_SECONDS) + 1):
            self.say(key, arrivals=before + round(per_second * LOOK_SECONDS * look))
            self.look(key)

    def desired(self, key: ObjectKey = KEY) -> int:
        view = self.autoscaler.scaling(self.objects[key])
        assert view is not None
        return view.desired

    def reason(self, key: ObjectKey = KEY) -> ScalingReason:
        view = self.autoscaler.scaling(self.objects[key])
        assert view is not None
        return view.reason


class Virtual(Scene):
    """With the event loop's own time, for what runs by itself."""

    def clock(self) -> float:
        return virtual_now()


@asynccontextmanager
async def _leading(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.autoscaler.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_every_object_is_looked_at_every_two_seconds_and_not_all_at_the_same_moment() -> None:
    async def main() -> None:
        keys = [("team", f"m{number}") for number in range(200)]
        scene = Virtual(*keys)
        async with _leading(scene):
            await asyncio.sleep(20.05)
        looks = Counter(key for _, key in scene.looks)
        assert set(looks) == set(keys)
        assert set(looks.values()) <= {10, 11}
        by_moment = Counter(round(at, 2) for at, _ in scene.looks)
        assert max(by_moment.values()) < 50, "twenty parts of ten or so each"
        moments = sorted(at for at, key in scene.looks if key == keys[0])
        assert all(1.9 < after - before < 2.1 for before, after in pairwise(moments))

    run_virtually(main)


def test_objects_with_a_fixed_count_or_suspended_are_left_alone() -> None:
    scene = Scene()
    scene.put(KEY, None, replicas=3)
    scene.look()
    assert scene.autoscaler.scaling(scene.objects[KEY]) is None
    scene.put(KEY, TEN_EACH)
    scene.look()
    assert scene.desired() == 1
    scene.put(KEY, TEN_EACH, suspend=True)
    scene.look()
    assert scene.autoscaler.scaling(scene.objects[KEY]) is None


def test_the_count_goes_on_from_the_one_there_is_and_missing_data_takes_nothing_away() -> None:
    scene = Scene(minReplicas=1)
    scene.put(KEY, TEN_EACH, replicas=6)
    for _ in range(200):
        scene.look()
    assert (scene.desired(), scene.reason()) == (6, ScalingReason.NO_DATA)


def test_a_load_changes_the_count_and_each_change_is_told_and_counted() -> None:
    scene = Scene()
    scene.load(5, 90)
    assert (scene.desired(), scene.reason()) == (1, ScalingReason.LOAD)
    scene.changed.clear()
    ups = metrics.SCALINGS.labels("up")._value.get()
    scene.load(5, 60)
    assert scene.changed == [], "nothing is another than before"
    scene.load(50, 8)
    assert scene.desired() >= 5
    assert set(scene.changed) == {KEY}
    assert metrics.SCALINGS.labels("up")._value.get() > ups


def test_more_than_is_carried_is_looked_at_at_once_and_less_is_not() -> None:
    scene = Scene()
    scene.load(5, 90)
    looks = len(scene.looks)
    scene.autoscaler.came(KEY, 9.0)
    assert len(scene.looks) == looks, "one server carries ten per second"
    scene.autoscaler.came(KEY, 11.0)
    assert len(scene.looks) == looks + 1
    scene.autoscaler.came(("team", "other"), 1e6)
    assert len(scene.looks) == looks + 1, "nobody knows it"


def test_where_requests_at_the_same_time_are_counted_arrivals_make_no_look() -> None:
    scene = Scene(target={"metric": "Concurrency", "value": 4})
    scene.load(5, 10)
    looks = len(scene.looks)
    scene.autoscaler.came(KEY, 1e6)
    assert len(scene.looks) == looks


def test_an_overload_asks_for_servers_with_the_report_that_proves_it() -> None:
    scene = Scene()
    scene.load(5, 120)
    arrivals = scene.traffic[KEY].arrivals
    asked_after = None
    for second in range(1, 8):
        arrivals += 60
        scene.now += 1
        scene.say(arrivals=arrivals)
        scene.autoscaler.came(KEY, 60.0)
        if scene.desired() > 1:
            asked_after = second
            break
    assert asked_after is not None
    assert asked_after <= 3


def _at_zero(scene: Scene) -> None:
    scene.put(KEY, {**TEN_EACH, "minReplicas": 0}, replicas=0)
    scene.say()
    for _ in range(10):
        scene.look()
    assert scene.desired() == 0


def test_a_held_request_wakes_at_the_look_that_it_causes() -> None:
    scene = Scene()
    _at_zero(scene)
    scene.changed.clear()
    scene.say(held=1)
    scene.look(after=0.001)
    assert (scene.desired(), scene.reason()) == (1, ScalingReason.HELD)
    assert scene.changed == [KEY]


def test_more_is_woken_when_more_is_held_than_one_server_can_work_off() -> None:
    scene = Scene()
    _at_zero(scene)
    # A request is held for 60 s: within these, one server at ten per second can do 600.
    scene.say(held=1500)
    scene.look(after=0.001)
    assert scene.desired() == 3


def test_a_held_request_wakes_also_when_the_operator_has_just_started() -> None:
    scene = Scene()
    scene.put(KEY, {**TEN_EACH, "minReplicas": 0}, replicas=0)
    scene.say(held=1)
    scene.look(after=0.0)
    assert (scene.desired(), scene.reason()) == (1, ScalingReason.HELD)


def test_what_was_woken_before_the_rounds_began_stays_woken() -> None:
    async def main() -> None:
        scene = Virtual()
        scene.put(KEY, {**TEN_EACH, "minReplicas": 0}, replicas=0)
        scene.say(held=1)
        scene.autoscaler.look(KEY)
        async with _leading(scene):
            await asyncio.sleep(0.01)
            assert scene.desired() == 1

    run_virtually(main)


def test_one_that_is_idle_goes_to_zero_and_one_with_a_request_in_flight_does_not() -> None:
    scene = Scene(minReplicas=0, scaleToZero={"idleSeconds": 60})
    scene.load(5, 90)
    # One request that takes as long as it likes.
    busy = {"w1": WorkloadTraffic(in_flight=1)}
    arrivals = scene.traffic[KEY].arrivals
    for _ in range(100):
        scene.say(arrivals=arrivals, workloads=busy)
        scene.look()
    assert scene.desired() == 1
    for _ in range(29):
        scene.say(arrivals=arrivals)
        scene.look()
    assert scene.desired() == 1
    for _ in range(2):
        scene.look()
    assert (scene.desired(), scene.reason()) == (0, ScalingReason.IDLE)


def test_a_revision_that_has_yet_to_prove_itself_keeps_a_server_whatever_the_load() -> None:
    scene = Scene()
    scene.put(KEY, {**TEN_EACH, "minReplicas": 0, "scaleToZero": {"idleSeconds": 10}}, replicas=1, serves=False)
    scene.load(0, 120)
    assert scene.desired() == 1


def test_a_fault_of_one_object_stops_no_other() -> None:
    async def main() -> None:
        scene = Virtual(("team", "a"), ("team", "b"), ("team", "c"))
        scene.broken.add(("team", "b"))
        faults = metrics.SCALING_FAULTS._value.get()
        with capture_logs() as logs:
            async with _leading(scene):
                await asyncio.sleep(10)
                assert scene.desired(("team", "a")) == scene.desired(("team", "c")) == 1
                assert scene.autoscaler.scaling(scene.objects[("team", "b")]) is None
        assert metrics.SCALING_FAULTS._value.get() >= faults + 4
        assert {(log["event"], log["name"]) for log in logs} == {("not scaled", "b")}

    run_virtually(main)


def test_after_a_fault_has_passed_it_is_looked_at_as_before() -> None:
    scene = Scene()
    scene.load(5, 90)
    scene.broken.add(KEY)
    with capture_logs():
        scene.look()
    assert scene.desired() == 1
    scene.broken.clear()
    scene.load(50, 8)
    assert scene.desired() >= 5


def test_another_object_of_the_same_name_begins_with_nothing() -> None:
    scene = Scene()
    scene.load(5, 90)
    scene.load(60, 10)
    assert scene.desired() >= 6
    scene.put(KEY, TEN_EACH, uid="u2")
    assert scene.autoscaler.scaling(scene.objects[KEY]) is None
    scene.look()
    assert scene.desired() == 1


def test_what_is_gone_is_forgotten() -> None:
    async def main() -> None:
        scene = Virtual(("team", "a"), ("team", "b"))
        gone = scene.objects[("team", "a")]
        async with _leading(scene):
            await asyncio.sleep(5)
            assert scene.autoscaler.scaling(gone) is not None
            del scene.objects[("team", "a")]
            await asyncio.sleep(5)
            assert scene.autoscaler.scaling(gone) is None

    run_virtually(main)


def test_who_does_not_lead_looks_at_nothing_and_remembers_nothing() -> None:
    async def main() -> None:
        scene = Virtual()
        scene.autoscaler.came(KEY, 1e6)
        assert scene.looks == []
        async with _leading(scene):
            await asyncio.sleep(5)
        assert scene.looks
        scene.looks.clear()
        # Its leadership is over; by the next one, what it knew is old.
        await asyncio.sleep(60)
        scene.autoscaler.came(KEY, 1e6)
        assert scene.looks == []
        assert scene.autoscaler.scaling(scene.objects[KEY]) is None

    run_virtually(main)


def _tuned_within(monkeypatch: pytest.MonkeyPatch, *, takes_seconds: float) -> list[float]:
    """Have each tuning take so long, in virtual time; gives when each began."""
    began: list[float] = []

    async def slowly(function: Any, *arguments: Any) -> Any:
        began.append(virtual_now())
        await asyncio.sleep(takes_seconds)
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    monkeypatch.setattr(module, "perf_counter", virtual_now)
    return began


def test_tuning_takes_no_more_than_its_share_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        scene = Virtual(*(("team", f"m{number}") for number in range(100)))
        began = _tuned_within(monkeypatch, takes_seconds=0.5)
        async with _leading(scene):
            await asyncio.sleep(100)
        assert 35 <= len(began) <= 41, "a fifth of 100 s is 40 times half a second"

    run_virtually(main)


def test_one_that_cannot_be_tuned_is_not_tried_for_ever_in_the_place_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        keys = [("team", f"m{number}") for number in range(5)]
        scene = Virtual(*keys)
        scene.put(keys[0], {**TEN_EACH, "maxReplicas": 4})
        _tuned_within(monkeypatch, takes_seconds=0.1)
        tuned: list[int] = []

        def tune(now: float, settings: ScalingSettings, state: ScalingState) -> Tuning:
            tuned.append(settings.maximum)
            if settings.maximum == 4:
                raise RuntimeError("something nobody thought of")
            return real_tune(now, settings, state)

        monkeypatch.setattr(module, "tune", tune)
        with capture_logs() as logs:
            async with _leading(scene):
                await asyncio.sleep(30)
        assert Counter(tuned) == {4: 1, 9: 4}
        assert [(log["event"], log["name"]) for log in logs] == [("not tuned", "m0")]

    run_virtually(main)


def answering(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """In the form in which it can be waited for."""

    async def ask() -> bool:
        return holds()

    return ask


async def test_tuning_is_done_in_a_thread_of_its_own_while_objects_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    threads: list[int] = []
    began, go_on = threading.Event(), threading.Event()

    def tune(now: float, settings: ScalingSettings, state: ScalingState) -> Tuning:
        threads.append(threading.get_ident())
        began.set()
        assert go_on.wait(20)
        return real_tune(now, settings, state)

    monkeypatch.setattr(module, "tune", tune)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    try:
        async with _leading(scene):
            await until("the tuning", answering(began.is_set))
            # What is decided meanwhile is not lost when the tuning is done.
            scene.say(held=1)
            scene.pods_of[KEY].clear()
            await until("a decision meanwhile", answering(lambda: scene.reason() is ScalingReason.HELD))
            go_on.set()
            await until("what was tuned", answering(lambda: scene.autoscaler._known[KEY].state.tuning is not None))
            assert scene.reason() is ScalingReason.HELD
    finally:
        go_on.set()
    assert threads
    assert threading.get_ident() not in threads


def test_one_whose_tuning_cannot_even_be_asked_for_does_not_end_the_leadership(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        keys = [("team", "bad"), ("team", "good")]
        scene = Virtual(*keys)
        scene.put(keys[0], {**TEN_EACH, "maxReplicas": 4})
        began = _tuned_within(monkeypatch, takes_seconds=0.1)

        def wants(now: float, settings: ScalingSettings, state: ScalingState) -> bool:
            if settings.maximum == 4:
                raise ZeroDivisionError
            return real_wants_tuning(now, settings, state)

        monkeypatch.setattr(module, "wants_tuning", wants)
        async with _leading(scene):
            await asyncio.sleep(100)
        assert began, "the other one is tuned"
        assert scene.looks[-1][0] > 97

    run_virtually(main)
