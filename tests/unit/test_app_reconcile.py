"""The one exit: what is written first, what is told last, and what nothing is done without."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from conch.api.autoscaling import ScalingReason
from conch.api.gateway_report import WorkloadTraffic
from conch.api.reasons import Reason
from conch.app.agent_reports import AgentReports, Answer
from conch.app.applier import Applier
from conch.app.autoscaler import Autoscaler
from conch.app.cluster_view import ClusterView
from conch.app.facts import Facts
from conch.app.gateway_reports import GatewayReports
from conch.app.reconcile import Reconciler
from conch.app.sample_book import SampleBook
from conch.core.actions import Delete
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedChild
from conch.core.observed_pod import ObservedContainer
from conch.core.scaling.view import ScalingView
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.reflector import ObjectKey
from conch.kube.resources import Resource
from conch.runtime.leadership import NotLeadingError
from conch.runtime.work_queue import WorkQueue
from tests.sim.world import START, UID, World

KEY = ("default", "sentiment")
SPEC = {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}}
LEFT_OVER = ChildId(kind=ChildKind.ENDPOINT_SLICE, name="sentiment-earlier")


class Scene:
    """One object as the operator knows it, and everything that a reconcile does, in its order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.did: list[str] = []
        self.event_names: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.fence: Callable[[], float] = lambda: 9.5
        self.queue: WorkQueue[ObjectKey] = WorkQueue()
        self.samples = SampleBook()
        self.gone = False
        self.scaled: ScalingView | None = None
        """What the autoscaler decided."""
        self.reconciler = Reconciler(
            client=cast(KubeClient, self),
            view=cast(ClusterView, self),
            reports=cast(AgentReports, self),
            gateways=cast(GatewayReports, self),
            autoscaler=cast(Autoscaler, self),
            samples=self.samples,
            applier=cast(Applier, self),
            policy=world.policy,
            queue=self.queue,
            fence=lambda: self.fence(),
            now=lambda: START + timedelta(seconds=1),
            instance="test",
        )

    async def reconcile(self) -> None:
        await self.reconciler._reconcile(KEY)

    def _do(self, what: str) -> None:
        self.did.append(what)
        if error := self.fail.pop(what, None):
            raise error

    def model_deployment(self, _key: object) -> object:
        return None if self.gone else self.world.owner

    def put_model_deployment(self, _live: object) -> None:
        """The world's own status stays: one reconcile is looked at."""

    def drop_model_deployment(self, _key: object, _uid: str) -> None:
        self.did.append("forgotten")

    def children(self, _key: object) -> object:
        return dict(self.world.children)

    def scaling(self, _owner: object) -> ScalingView | None:
        return self.scaled

    def seen(self, _key: object) -> object:
        return tuple(self.world.gateways.values())

    @property
    def ports(self) -> object:
        return self

    @property
    def gateway_api(self) -> object:
        return self

    @property
    def absent_kinds(self) -> frozenset[ChildKind] | None:
        return self.world.absent_kinds

    def port_of(self, _owner: object) -> int | None:
        return self.world.port

    def pods(self, _key: object) -> object:
        return tuple(self.world.pods.values())

    def answer(self, uid: str) -> Answer:
        pod = next(pod for pod in self.world.pods.values() if pod.uid == uid)
        return Answer(report=pod.report)

    async def apply(self, _resource: Resource, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        assert body["metadata"]["resourceVersion"] == "1", "the precondition"
        self._do("status")
        return body

    async def get(self, _resource: Resource, _namespace: str, _name: str) -> dict[str, Any]:
        self._do("read again")
        return {}

    async def create(self, _resource: Resource, body: dict[str, Any], *, within_seconds: float, **_: Any) -> None:
        assert within_seconds <= 2
        self.event_names.append(body["metadata"]["name"])
        self._do(f"event {body['reason']}")

    async def tell_agents(self, _orders: object, _owner: object) -> None:
        pass

    async def carry_out(self, action: object, _owner: object, _facts: object) -> None:
        self._do(type(action).__name__)


def _at_rest_with_a_child_too_many() -> World:
    world = World(spec=SPEC)
    world.settle()
    world.serve()
    world.settle()
    controller = Controller(kind="ModelDeployment", name="sentiment", uid=UID)
    world.children[LEFT_OVER] = ObservedChild(
        id=LEFT_OVER, uid="p", resource_version="1", controller=controller, owned_hash="h"
    )
    planned = world.plan()
    assert planned.status == world.status
    assert [type(action) for action in planned.actions] == [Delete]
    return world


async def test_the_status_is_written_before_the_actions_and_the_event_after() -> None:
    scene = Scene(World(spec=SPEC))
    await scene.reconcile()
    assert scene.did[0] == "status"
    assert scene.did[-1] == f"event {Reason.STARTING}"
    assert len(scene.did) > 3


def _edited(**spec: Any) -> World:
    world = World(spec=SPEC)
    world.settle()
    world.serve()
    world.settle()
    for name, pod in world.pods.items():
        world.pods[name] = replace(pod, containers=(ObservedContainer(name="triton", ready=True),))
    world.edit(**spec)
    return world


async def test_an_edit_is_acted_on_before_it_is_reported() -> None:
    scene = Scene(_edited(replicas=2))
    await scene.reconcile()
    assert scene.did == ["Apply", "Apply", "status", f"event {Reason.SCALING}"]


async def test_an_edit_that_needs_a_new_workload_is_in_the_status_first() -> None:
    scene = Scene(_edited(model={**SPEC["model"], "version": 2}))
    await scene.reconcile()
    assert scene.did[0] == "status"
    assert "Apply" in scene.did


async def test_what_the_autoscaler_decides_is_done_like_an_edit() -> None:
    world = _edited(autoscaling={"maxReplicas": 5, "objective": {"latencyMs": 200}})
    world.settle()
    scene = Scene(world)
    await scene.reconcile()
    scene.did.clear()
    scene.scaled = ScalingView(desired=3, reason=ScalingReason.SURGE, message="more comes than one server carries")
    await scene.reconcile()
    assert scene.did == ["Apply", "Apply", "status", f"event {Reason.SCALING}"]


async def test_an_edit_that_fails_is_reported_all_the_same() -> None:
    scene = Scene(_edited(replicas=2))
    scene.fail["Apply"] = ApiError(500, "", "no", what="apply")
    with pytest.raises(ApiError):
        await scene.reconcile()
    assert scene.did == ["Apply", "status", f"event {Reason.SCALING}"]


async def test_what_would_move_traffic_or_make_pods_waits_for_the_proof_that_the_object_is_still_the_same() -> None:
    for kind in (ChildKind.SERVICE, ChildKind.DEPLOYMENT, ChildKind.CONFIG_MAP):
        world = _edited(replicas=2)
        gone = next(id_ for id_ in world.children if id_.kind is kind)
        del world.children[gone]
        scene = Scene(world)
        scene.fail["status"] = ApiError(409, "Conflict", "it has changed", what="status")
        await scene.reconcile()
        assert scene.did == ["status", "read again"]
        assert await scene.queue.take() == KEY


async def test_an_edit_whose_report_comes_too_late_is_looked_at_again_at_once() -> None:
    scene = Scene(_edited(replicas=2))
    scene.fail["status"] = ApiError(409, "Conflict", "it has changed", what="status")
    scene.queue.add(("default", "other"))
    await scene.reconcile()
    assert scene.did[-2:] == ["status", "read again"]
    assert await scene.queue.take() == KEY


async def test_an_edit_of_an_object_that_is_gone_ends_there() -> None:
    scene = Scene(_edited(replicas=2))
    scene.fail["status"] = ApiError(404, "NotFound", "gone", what="status")
    await scene.reconcile()
    assert scene.did[-2:] == ["status", "forgotten"]


async def test_nothing_is_deleted_for_an_object_that_may_have_changed() -> None:
    scene = Scene(_at_rest_with_a_child_too_many())
    await scene.reconcile()
    # The operator has just started: it has yet to learn that the admin key is there.
    assert scene.did == ["status", "EnsureAdminKey", "Delete"]
    stale = Scene(_at_rest_with_a_child_too_many())
    stale.fail["status"] = ApiError(409, "Conflict", "it has changed", what="status")
    await stale.reconcile()
    assert stale.did == ["status", "read again"]


async def test_an_action_that_fails_is_told_and_raised() -> None:
    scene = Scene(World(spec=SPEC))
    scene.fail["Apply"] = ApiError(500, "", "no", what="apply")
    with pytest.raises(ApiError):
        await scene.reconcile()
    assert scene.did[-2:] == ["Apply", f"event {Reason.STARTING}"]


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (ApiUnavailableError("no answer within 2 s"), 2),
        (ApiError(409, "AlreadyExists", "it was written", what="event"), 1),
        (ApiError(403, "Forbidden", "the namespace is going", what="event"), 1),
    ],
    ids=["no answer", "there already", "refused"],
)
async def test_an_event_that_nobody_answered_is_told_again(error: Exception, times: int) -> None:
    scene = Scene(World(spec=SPEC))
    event = f"event {Reason.STARTING}"
    scene.fail[event] = error
    await scene.reconcile()
    assert [each for each in scene.did if each == event] == [event] * times
    assert len(set(scene.event_names)) == 1, "what was written after all is not written twice"


@pytest.mark.parametrize("error", [NotLeadingError("lost"), asyncio.CancelledError()], ids=["lease lost", "stopped"])
async def test_who_leads_no_longer_tells_nothing(error: Any) -> None:
    scene = Scene(World(spec=SPEC))
    scene.fail["Apply"] = error
    with pytest.raises(type(error)):
        await scene.reconcile()
    assert scene.did[-1] == "Apply"


def _rolling_out() -> World:
    """A rollout whose share is observed, so that its window is to be opened."""
    world = _edited(
        model={**SPEC["model"], "version": 2}, rollout={"steps": [{"weight": 50, "pause": "UntilPromoted"}]}
    )
    for _ in range(12):
        world.serve()
        world.step()
    assert world.status.rollout is not None
    assert world.status.rollout.observed_since is not None
    return world


def _sent(world: World, requests: int) -> None:
    """Let a gateway have sent so many requests to the candidate."""
    assert world.status.candidate is not None
    world.follow()
    gateway = world.gateways["a"]
    assert gateway.traffic is not None
    counted = {world.status.candidate.workload: WorkloadTraffic(arrivals=requests)}
    world.gateways["a"] = replace(gateway, traffic=gateway.traffic.model_copy(update={"workloads": counted}))


async def test_a_candidate_is_judged_by_what_was_counted_since_its_window_was_opened() -> None:
    world = _rolling_out()
    scene = Scene(world)
    await scene.reconcile()
    assert "OpenWindow" in scene.did
    assert world.status.rollout is not None
    assert world.status.candidate is not None
    scene.samples.open(UID, f"{world.status.rollout.id}/Shifting/0")
    for requests in (500, 512):
        _sent(world, requests)
        await scene.reconcile()
    observed = scene.reconciler._observe(KEY, world.owner, Facts(uid=UID))
    assert observed.window is not None
    assert observed.window.samples[world.status.candidate.workload].requests == 12


async def test_what_was_counted_is_forgotten_when_no_rollout_is_under_way_or_the_object_is_gone() -> None:
    scene = Scene(_edited())
    scene.samples.open(UID, "w2/Shifting/0")
    await scene.reconcile()
    assert scene.samples.read(UID, (), ()) is None

    rolling = Scene(_rolling_out())
    rolling.samples.open(UID, "w2/Shifting/0")
    await rolling.reconcile()
    assert rolling.samples.read(UID, (), ()) is not None
    rolling.gone = True
    await rolling.reconcile()
    assert rolling.samples.read(UID, (), ()) is None
