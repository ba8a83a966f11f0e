"""What the autoscaler is told: differences of counters that grow, whatever begins anew, falls silent or comes late."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, ObjectTraffic, WorkloadTraffic
from conch.api.inference_counts import BatchCounts, InferenceCounts, ModelCounts
from conch.app.scaling_signals import SignalReader
from conch.core.observed import ObservedGateway
from conch.core.observed_pod import ObservedPod
from conch.core.scaling.service_curve import SeenBatches
from conch.core.scaling.signals import BatchTimes, Signals

START = datetime(2026, 1, 1, tzinfo=UTC)


class Scene:
    """A reader whose looks and reports come when the test says."""

    def __init__(self, *, through_gateways: bool = True, limit_milliseconds: float | None = 200) -> None:
        self.reader = SignalReader()
        self.at = 100.0
        self.gateways: dict[str, ObservedGateway] = {}
        self.told_at: dict[str, float] = {}
        self.pods: list[ObservedPod] = []
        self.through_gateways = through_gateways
        self.limit_milliseconds = limit_milliseconds
        self.workload = "w1"

    def say(self, name: str, arrivals: int | None, epoch: str = "1", **traffic: Any) -> None:
        """A gateway reports now; without a number it does not know the object."""
        told = None if arrivals is None else ObjectTraffic(arrivals=arrivals, **traffic)
        self.gateways[name] = ObservedGateway(
            name=name, address="10.1.0.1", ready=True, heard=True, epoch=epoch, traffic=told
        )
        self.told_at[name] = self.at

    def silence(self, name: str, *, ready: bool = True) -> None:
        self.gateways[name] = replace(self.gateways[name], heard=False, ready=ready)

    def look(self, *, after: float = 2.0) -> Signals:
        """A look so long after the one before, at what was said until then."""
        self.at += after
        return self.read()

    def read(self) -> Signals:
        return self.reader.read(
            self.gateways.values(),
            self.pods,
            told_at=self.told_at,
            through_gateways=self.through_gateways,
            limit_milliseconds=self.limit_milliseconds,
            hold_seconds=60,
            floor=0,
            workload=self.workload,
            at=self.at,
            now=START + timedelta(seconds=self.at),
        )

    def looked(self, **said: int | None) -> Signals:
        """A look two seconds after the last one, at which every gateway reports."""
        self.at += 2
        for name, arrivals in said.items():
            self.say(name, arrivals)
        return self.read()


def _pod(name: str = "p1", *, created_after: float = 0.0, **fields: Any) -> ObservedPod:
    created = (START + timedelta(seconds=created_after)).isoformat()
    return ObservedPod(name=name, uid=f"uid-{name}", workload="w1", phase="Running", created=created, **fields)


def _told(
    *models: ModelCounts, epoch: str = "1", requests: int = 0, failures: int = 0, pending: int = 0
) -> AgentReport:
    inference = InferenceCounts(
        epoch=epoch,
        requests=requests,
        failures=failures,
        queue_seconds=0,
        pending=pending,
        models=models,
    )
    return AgentReport(phase=AgentPhase.READY, inference=inference)


def _model(name: str = "m", *, requests: int = 0, **batches: tuple[int, float]) -> ModelCounts:
    """Batches by their size: executions and seconds."""
    return ModelCounts(
        name=name,
        max_batch=8,
        instances=1,
        decoupled=False,
        requests=requests,
        queue_seconds=0,
        batches=tuple(
            BatchCounts(size=int(size[1:]), executions=executions, compute_seconds=seconds)
            for size, (executions, seconds) in batches.items()
        ),
    )


def _latency(**counts: int) -> tuple[int, ...]:
    """Counts by the upper bounds of their buckets in milliseconds."""
    bounds = [f"to_{bound}" for bound in LATENCY_BOUNDS_MILLISECONDS] + ["more"]
    assert set(counts) <= set(bounds)
    return tuple(counts.get(bound, 0) for bound in bounds)


def test_what_came_is_what_was_added_at_all_gateways_and_the_first_look_only_begins() -> None:
    scene = Scene()
    first = scene.looked(a=5000, b=70)
    assert (first.arrived, first.complete) == (0, False)
    second = scene.looked(a=5010, b=75)
    assert (second.arrived, second.complete) == (15, True)
    assert scene.looked(a=5010, b=75).arrived == 0


def test_a_gateway_that_restarts_begins_anew_and_the_look_is_not_complete() -> None:
    scene = Scene()
    scene.looked(a=5000, b=0)
    scene.looked(a=5010, b=10)
    scene.at += 2
    scene.say("a", 400, epoch="2")
    scene.say("b", 14)
    seen = scene.read()
    assert (seen.arrived, seen.complete) == (4, False)
    scene.at += 2
    scene.say("a", 406, epoch="2")
    scene.say("b", 14)
    seen = scene.read()
    assert (seen.arrived, seen.complete) == (6, True)


def test_a_counter_that_went_back_is_no_load() -> None:
    scene = Scene()
    scene.looked(a=100)
    assert scene.looked(a=90).arrived == 0
    assert scene.looked(a=104).arrived == 4


def test_a_gateway_that_does_not_know_the_object_yet_has_carried_nothing_for_it() -> None:
    scene = Scene()
    scene.looked(a=None)
    seen = scene.looked(a=None)
    assert (seen.arrived, seen.complete, seen.held) == (0, True, 0)
    assert scene.looked(a=3).arrived == 3


def test_a_gateway_that_is_gone_takes_its_counters_with_it() -> None:
    scene = Scene()
    scene.looked(a=100, b=100)
    scene.looked(a=110, b=110)
    del scene.gateways["b"]
    seen = scene.looked(a=120)
    assert (seen.arrived, seen.complete) == (10, True)
    # Another of the same name is another one, whatever its counter says.
    seen = scene.looked(a=130, b=900)
    assert (seen.arrived, seen.complete) == (10, False)


def test_of_a_silent_gateway_nobody_knows_what_it_carries() -> None:
    scene = Scene()
    scene.looked(a=100, b=100)
    scene.looked(a=110, b=110)
    scene.silence("b")
    seen = scene.looked(a=120)
    assert (seen.arrived, seen.complete) == (10, False)
    scene.silence("a")
    seen = scene.looked()
    assert (seen.arrived, seen.complete) == (None, False)


def test_one_that_is_neither_ready_nor_heard_carries_nothing() -> None:
    scene = Scene()
    scene.looked(a=100, b=100)
    scene.silence("b", ready=False)
    seen = scene.looked(a=110)
    assert (seen.arrived, seen.complete) == (10, True)


def test_what_came_during_a_silence_is_no_burst_at_its_end() -> None:
    scene = Scene()
    scene.looked(a=100)
    scene.looked(a=120)
    scene.silence("a")
    for _ in range(20):
        assert scene.look().arrived is None
    # 42 s at ten per second.
    seen = scene.looked(a=120 + 420)
    assert (seen.arrived, seen.complete) == (20, True)


def test_without_any_gateway_nobody_tells() -> None:
    seen = Scene().look()
    assert (seen.arrived, seen.complete) == (None, False)


@pytest.mark.parametrize("phase", [0.01, 0.5, 0.99])
def test_a_steady_load_is_steady_however_many_reports_come_between_two_looks(phase: float) -> None:
    """A gateway is asked every 1.03 s: between two looks there are one, two or three reports."""
    scene = Scene()
    reports = [100 + phase + 1.03 * number for number in range(200)]
    told = []
    for look in range(90):
        until = 102.0 + 2 * look
        for moment in [each for each in reports if until - 2 < each <= until]:
            scene.at = moment
            scene.say("a", round(50 * (moment - 100)))
        scene.at = until
        told.append(scene.read().arrived)
    assert all(arrived is not None and abs(arrived - 100) <= 2 for arrived in told[2:])
    assert sum(filter(None, told[2:])) == pytest.approx(100 * len(told[2:]), rel=0.01)


def test_between_two_reports_a_load_goes_on() -> None:
    scene = Scene()
    scene.looked(a=0)
    scene.looked(a=20)
    assert scene.look(after=0.5).arrived == 5
    assert scene.look(after=1.5).arrived == 15


@given(st.lists(st.tuples(st.floats(0.001, 3), st.integers(0, 50)), min_size=1, max_size=60))
def test_every_request_makes_its_look_one_with_requests(looks: list[tuple[float, int]]) -> None:
    """What tells that nobody asks must not miss anybody, however soon after another a look comes."""
    scene = Scene()
    total = 1000
    scene.looked(a=total)
    for seconds, came in looks:
        scene.at += seconds
        total += came
        scene.say("a", total)
        seen = scene.read()
        assert seen.arrived is not None
        assert not came or seen.arrived >= 1
        assert came or seen.arrived <= 1


def test_one_request_is_one_also_where_its_report_comes_right_after_a_look() -> None:
    scene = Scene()
    scene.looked(a=0)
    scene.looked(a=0)
    assert scene.look(after=0.99).arrived == 0
    scene.at += 0.02
    scene.say("a", 1)
    assert scene.read().arrived == 1
    assert sum(scene.looked(a=1).arrived or 0 for _ in range(5)) == 0


def test_what_is_held_and_in_flight_is_of_now_and_of_all() -> None:
    scene = Scene()
    workloads = {"w1": WorkloadTraffic(in_flight=3), "w2": WorkloadTraffic(in_flight=1)}
    scene.say("a", 0, held=2, in_flight=9, workloads=workloads)
    scene.say("b", 0, held=5, workloads={"w1": WorkloadTraffic(in_flight=4)})
    seen = scene.read()
    assert (seen.held, seen.in_flight) == (7, 8)


def _answer(scene: Scene, latency: Sequence[int], *, epoch: str = "1") -> Signals:
    scene.at += 2
    scene.say("a", 0, epoch=epoch, workloads={"w1": WorkloadTraffic(latency=tuple(latency))})
    return scene.read()


def test_late_are_those_of_the_buckets_above_the_objective() -> None:
    scene = Scene(limit_milliseconds=200)
    assert _answer(scene, _latency(to_100=5, to_320=1)).answered == 0, "they may be of long ago"
    seen = _answer(scene, _latency(to_100=95, to_200=4, to_250=1, to_320=3, more=2))
    assert (seen.answered, seen.late) == (99, 5)
    # (100 ms - 10 ms / 2 and its like) weighed by their counts.
    assert seen.mean_latency_seconds is not None
    assert 90 * 0.0895 / 99 < seen.mean_latency_seconds < 200


def test_of_the_bucket_that_the_objective_is_in_a_part_is_late() -> None:
    scene = Scene(limit_milliseconds=225)
    _answer(scene, ())
    # Between 200 and 250 ms: half of them.
    assert _answer(scene, _latency(to_250=40)).late == 20
    beyond = Scene(limit_milliseconds=5_000_000)
    _answer(beyond, ())
    assert _answer(beyond, _latency(more=7, to_3600000=3)).late == 7


def test_a_histogram_that_is_shorter_than_before_or_of_another_life_is_no_negative_count() -> None:
    scene = Scene()
    _answer(scene, _latency(to_100=10))
    assert _answer(scene, ()).answered == 0
    assert _answer(scene, _latency(to_100=500), epoch="2").answered == 0
    assert _answer(scene, _latency(to_100=501), epoch="2").answered == 1


def test_without_an_objective_nobody_is_late() -> None:
    scene = Scene(limit_milliseconds=None)
    _answer(scene, ())
    seen = _answer(scene, _latency(more=9))
    assert (seen.answered, seen.late) == (9, 0)


def test_without_gateways_the_servers_tell_what_they_have_answered_and_have_still_to_do() -> None:
    scene = Scene(through_gateways=False)
    scene.pods = [_pod("p1", ready=True, report=_told(requests=1000)), _pod("p2", ready=True, report=_told(requests=9))]
    scene.look()
    scene.pods = [
        _pod("p1", ready=True, report=_told(requests=1006, failures=2, pending=2)),
        _pod("p2", ready=True, report=_told(requests=19)),
    ]
    seen = scene.look()
    assert (seen.arrived, seen.complete, seen.in_flight) == (20, True, 2)


def test_without_gateways_an_agent_that_is_asked_more_rarely_makes_no_bursts() -> None:
    """Asked every ten seconds, at ten requests per second."""
    scene = Scene(through_gateways=False)
    told = []
    for look in range(50):
        if look % 5 == 0:
            scene.pods = [_pod(ready=True, report=_told(requests=20 * look))]
        told.append(scene.look().arrived)
    assert told[0] == 0
    assert told[1:5] == [None] * 4, "nothing is known from one report"
    assert told[5:] == [20] * 45


def test_without_gateways_a_server_that_does_not_tell_makes_the_look_incomplete() -> None:
    scene = Scene(through_gateways=False)
    scene.pods = [_pod("p1", ready=True), _pod("p2", ready=True, report=_told(requests=5))]
    scene.look()
    scene.pods = [_pod("p1", ready=True), _pod("p2", ready=True, report=_told(requests=9))]
    seen = scene.look()
    assert (seen.arrived, seen.complete) == (4, False)
    scene.pods = [_pod("p1", ready=True), _pod("p2", ready=True)]
    seen = scene.look()
    assert (seen.arrived, seen.complete) == (None, False)


def test_without_gateways_an_agent_that_falls_silent_is_missing_and_not_idle() -> None:
    scene = Scene(through_gateways=False)
    for requests in (0, 20, 40):
        scene.pods = [_pod("p1", ready=True, report=_told(requests=requests, pending=3))]
        scene.look()
    seen = [scene.look() for _ in range(7)]
    assert [each.arrived for each in seen] == [20] * 5 + [None] * 2
    assert [each.in_flight for each in seen] == [3] * 5 + [0] * 2
    # 16 s later it tells again, of a load that went on.
    scene.pods = [_pod("p1", ready=True, report=_told(requests=200, pending=3))]
    seen_again = scene.look()
    assert (seen_again.arrived, seen_again.complete) == (20, True)


def test_without_gateways_a_model_that_was_loaded_again_counts_anew() -> None:
    scene = Scene(through_gateways=False)
    scene.pods = [_pod(ready=True, report=_told(requests=1000))]
    scene.look()
    scene.pods = [_pod(ready=True, report=_told(requests=7, epoch="2"))]
    assert scene.look().arrived is None
    scene.pods = [_pod(ready=True, report=_told(requests=11, epoch="2"))]
    seen = scene.look()
    assert (seen.arrived, seen.complete) == (4, True)


def _batches(*seen: BatchTimes) -> dict[str, Any]:
    """By model: requests, and (size, executions, seconds) of its batches."""
    return {each.name: (each.requests, each.sizes) for each in seen}


def test_what_was_executed_is_summed_over_the_pods_and_counted_once() -> None:
    scene = Scene()
    before = [_told(_model(requests=4, b1=(4, 0.4))), _told(_model(requests=8, b1=(2, 0.2), b4=(1, 0.2)))]
    scene.pods = [_pod(f"p{number}", ready=True, report=report) for number, report in enumerate(before)]
    first = scene.look()
    # What an agent had counted before tells of the curve, and nothing of the load.
    assert _batches(*first.batches) == {"m": (0, ((1, 6, pytest.approx(0.6)), (4, 1, 0.2)))}
    assert scene.look().batches == (), "the same word once more"
    after = [_told(_model(requests=5, b1=(5, 0.5))), _told(_model(requests=16, b1=(2, 0.2), b4=(3, 0.6)))]
    scene.pods = [_pod(f"p{number}", ready=True, report=report) for number, report in enumerate(after)]
    seen = scene.look()
    assert _batches(*seen.batches) == {"m": (9, ((1, 1, pytest.approx(0.1)), (4, 2, pytest.approx(0.4))))}


def test_the_members_of_an_ensemble_are_told_apart() -> None:
    scene = Scene()
    scene.pods = [_pod(ready=True, report=_told(_model("tokenizer"), _model("encoder")))]
    scene.look()
    models = (_model("tokenizer", requests=6, b1=(6, 0.01)), _model("encoder", requests=6, b2=(3, 0.3)))
    scene.pods = [_pod(ready=True, report=_told(*models))]
    assert _batches(*scene.look().batches) == {"tokenizer": (6, ((1, 6, 0.01),)), "encoder": (6, ((2, 3, 0.3),))}


def test_executions_of_a_life_that_is_over_are_not_taken_from_those_of_the_next() -> None:
    scene = Scene()
    scene.pods = [_pod(ready=True, report=_told(_model(requests=900, b1=(900, 90.0))))]
    scene.look()
    scene.pods = [_pod(ready=True, report=_told(_model(requests=3, b1=(3, 0.3)), epoch="2"))]
    assert _batches(*scene.look().batches) == {"m": (0, ((1, 3, 0.3),))}
    scene.pods = [_pod(ready=True, report=_told(_model(requests=4, b1=(4, 0.4)), epoch="2"))]
    assert _batches(*scene.look().batches) == {"m": (1, ((1, 1, pytest.approx(0.1)),))}


def test_pods_are_counted_by_how_far_they_are() -> None:
    scene = Scene()
    scene.pods = [
        _pod("serves", ready=True, scheduled=True),
        _pod("starts", scheduled=True),
        _pod("waits"),
        _pod("blocked", unschedulable_message="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        _pod("placed", unschedulable_message="0/3 nodes are available", scheduled=True),
        _pod("goes", ready=True, deleting=True),
        replace(_pod("over"), phase="Failed"),
    ]
    seen = scene.read()
    assert (seen.ready, seen.starting, seen.blocked) == (1, 3, 1)


def test_a_start_is_measured_of_a_pod_that_was_seen_before_it_served() -> None:
    scene = Scene()
    scene.pods = [_pod("p1", created_after=99), _pod("old", created_after=0, ready=True)]
    assert scene.look().starts == ()
    assert scene.look(after=40).starts == ()
    scene.pods = [_pod("p1", created_after=99, ready=True), _pod("old", created_after=0, ready=True)]
    assert scene.look(after=3).starts == pytest.approx((46,))
    assert scene.look().starts == ()


def test_a_pod_that_serves_once_more_did_not_start() -> None:
    scene = Scene()
    scene.pods = [_pod(created_after=0, ready=True)]
    scene.look()
    scene.pods = [_pod(created_after=0)]
    scene.look()
    scene.pods = [_pod(created_after=0, ready=True)]
    assert scene.look().starts == ()


def test_a_pod_that_waited_for_hours_tells_nothing_of_the_next() -> None:
    scene = Scene()
    scene.pods = [_pod(created_after=100)]
    scene.look()
    scene.look(after=4000)
    scene.pods = [_pod(created_after=100, ready=True)]
    assert scene.look().starts == ()


def test_no_pod_is_counted_by_its_deletion() -> None:
    scene = Scene()
    scene.pods = [_pod(created_after=99)]
    scene.look()
    scene.pods = [_pod(created_after=99, ready=True, deleting=True)]
    assert scene.look().starts == ()


def test_what_is_remembered_does_not_grow_with_what_is_gone() -> None:
    scene = Scene()
    for number in range(50):
        scene.gateways.clear()
        scene.say(f"g{number}", 5, workloads={"w1": WorkloadTraffic(latency=(1,))})
        scene.pods = [_pod(f"p{number}", created_after=scene.at, report=_told(_model()))]
        scene.look()
    reader = scene.reader
    kept = (reader.arrivals.sources, reader.answers, reader.batches.told, reader.starts.waiting)
    assert [len(each) for each in kept] == [1, 1, 1, 1]


def test_how_many_items_a_request_brings_is_told_of_what_was_seen_to_grow_alone() -> None:
    """The whole life of a pod before it was first asked, against the requests of ten seconds, is no ratio."""
    scene = Scene()
    scene.pods = [_pod(ready=True, report=_told(_model(requests=900_000, b1=(900_000, 900.0))))]
    first = scene.look().batches[0]
    assert (first.item_requests, first.items) == (0, 0)
    scene.pods = [_pod(ready=True, report=_told(_model(requests=900_009, b1=(900_009, 900.009))))]
    second = scene.look().batches[0]
    assert (second.item_requests, second.items) == (9, 9)
    learnt = SeenBatches().with_([first]).with_([second]).curve()
    assert learnt is not None
    assert learnt.least_seconds == pytest.approx(0.001, rel=0.01)


def test_items_of_failed_executions_are_no_requests_items() -> None:
    scene = Scene()
    scene.pods = [_pod(ready=True, report=_told(_model(requests=100, b1=(100, 0.1))))]
    scene.look()
    scene.pods = [_pod(ready=True, report=_told(_model(requests=101, b1=(300, 0.3)), failures=199))]
    failing = scene.look().batches[0]
    assert (failing.requests, failing.item_requests, failing.items) == (1, 0, 0)


def test_the_curve_is_of_the_revision_that_most_requests_go_to_and_what_was_executed_of_all() -> None:
    scene = Scene()
    quick, slow = _model(requests=0), _model(requests=0)
    scene.pods = [
        _pod(ready=True, report=_told(quick)),
        replace(_pod("p2", ready=True, report=_told(slow)), workload="w2"),
    ]
    scene.look()
    quick, slow = _model(requests=6, b1=(6, 0.06)), _model(requests=4, b1=(4, 0.4))
    scene.pods = [
        _pod(ready=True, report=_told(quick)),
        replace(_pod("p2", ready=True, report=_told(slow)), workload="w2"),
    ]
    seen = scene.look()
    assert (seen.workload, seen.executed) == ("w1", 10)
    assert _batches(*seen.batches) == {"m": (6, ((1, 6, 0.06),))}
