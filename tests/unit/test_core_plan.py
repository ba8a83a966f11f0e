"""What a plan does and does not touch: upgrades, policies, the order of a succession, things of other people."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conch.api import names
from conch.api.agent_report import AgentPhase
from conch.api.command import Command, Verb
from conch.api.model_deployment import ModelDeployment
from conch.api.reasons import Reason
from conch.api.rollout import RolloutPhase, RolloutStatus
from conch.api.source_policy import SourcePolicy
from conch.api.status import ConditionType, ModelDeploymentStatus
from conch.core.actions import (
    Action,
    Apply,
    Delete,
    DeleteEndpoints,
    EnsureAdminKey,
    MarkForRemoval,
    OpenWindow,
    ShowChange,
    TellPin,
    TellTurn,
)
from conch.core.observed import Observed
from conch.core.observed_child import (
    ChildId,
    ChildKind,
    Controller,
    ObservedChild,
    ObservedDeployment,
    ObservedRecord,
    WorkloadRecord,
)
from conch.core.observed_pod import ObservedContainer
from conch.core.plan import Plan, plan
from conch.core.policy import InstallationPolicy
from tests.sim.world import POLICY, World

MODEL: dict[str, Any] = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
NEWER = InstallationPolicy(
    triton_image="triton:2",
    agent_image="conch:2",
    image_pull_policy="Always",
    model_volume_limit="99Gi",
    model_volume_request="9Gi",
    network_access=POLICY.network_access,
    agent_cpu="2",
    agent_memory="9Gi",
    endpoint_propagation=timedelta(seconds=60),
    drain_timeout=timedelta(seconds=600),
)


def _serving(**spec: Any) -> World:
    world = World(spec={"model": MODEL, **spec})
    world.settle()
    world.serve()
    world.settle()
    return world


def _object_of(action: Action) -> object:
    match action:
        case Delete():
            return action.id
        case TellPin() | TellTurn() | ShowChange() | MarkForRemoval():
            return action.pod
        case DeleteEndpoints():
            return action.service
        case OpenWindow():
            return action.name
        case _:
            return action.desired.id


def _touched(planned: Plan) -> list[str]:
    return [f"{type(action).__name__} {_object_of(action)}" for action in planned.actions]


def _deployments(world: World) -> set[str]:
    return {child.workload for child in world.children.values() if isinstance(child, ObservedDeployment)}


def test_an_operator_with_other_images_and_limits_touches_nothing_that_runs() -> None:
    world = _serving(replicas=2)
    world.policy = NEWER
    assert world.plan().actions == ()
    assert world.plan().status == world.status


def test_an_operator_with_other_images_gives_them_to_the_next_revision() -> None:
    world = _serving()
    world.policy = NEWER
    world.edit(model={**MODEL, "version": 2})
    bodies = [json.dumps(action.desired.body) for action in world.plan().actions if isinstance(action, Apply)]
    assert any("conch:2" in body and "triton:2" in body for body in bodies)


def test_a_workload_whose_deployment_was_lost_comes_back_as_it_was_created() -> None:
    world = _serving()
    world.policy = NEWER
    (lost,) = (id_ for id_ in world.children if id_.kind is ChildKind.DEPLOYMENT)
    del world.children[lost]
    (action,) = world.plan().actions
    assert isinstance(action, Apply)
    assert "triton:1" in json.dumps(action.desired.body)


def test_a_source_policy_that_changes_touches_the_assignment_alone() -> None:
    world = _serving(replicas=2)
    world.policy = replace(POLICY, source_policy=SourcePolicy(http_hosts=("models.example",)))
    (action,) = world.plan().actions
    assert isinstance(action, Apply)
    assert action.desired.id.kind is ChildKind.CONFIG_MAP
    assert "models.example" in action.desired.body["data"]["assignment.json"]


def test_a_source_that_is_no_longer_allowed_leaves_what_serves_in_place() -> None:
    world = _serving()
    world.policy = replace(POLICY, source_policy=SourcePolicy(allowed_hosts=()))
    assert {id_.split()[1] for id_ in _touched(world.plan())} == {"ConfigMap"}


def test_a_source_that_is_not_allowed_never_gets_pods() -> None:
    world = World(
        spec={"model": MODEL}, policy=replace(POLICY, source_policy=SourcePolicy(allowed_hosts=("other.example",)))
    )
    world.settle()
    assert _deployments(world) == set()


def test_without_gateways_a_succession_moves_the_service_and_only_then_removes_the_old_workload() -> None:
    world = _serving(gateway={"mode": "Direct"})
    (old,) = _deployments(world)
    world.edit(model={**MODEL, "version": 2})
    world.settle()
    (new,) = _deployments(world) - {old}
    service = ChildId(kind=ChildKind.SERVICE, name="sentiment")
    old_object, new_object = (names.workload_object("sentiment", workload) for workload in (old, new))

    assert world.plan().actions == (), "before the new revision is proven"

    world.serve()
    moving = world.plan()
    moved = [f"Apply {service}", f"Apply PodDisruptionBudget {new_object}"]
    assert _touched(moving) == moved, "proven: the Service moves, nothing is removed"
    assert isinstance(moving.actions[0], Apply)
    assert moving.actions[0].desired.body["spec"]["selector"] == names.workload_selector("sentiment", new)

    before = world.children[service]
    for _ in range(4):
        world.step()
        after, world.children[service] = world.children[service], before
        removed = [each for each in _touched(world.plan()) if each.startswith("Delete")]
        assert not [each for each in removed if old_object in each], "written, but not yet seen"
    assert world.status.stable is not None
    assert world.status.stable.workload == new, "the rollout is over, and the old workload still there"

    world.children[service] = after
    removed = _touched(world.plan())
    assert sorted(removed) == sorted(f"Delete {kind} {old_object}" for kind in _WORKLOAD_KINDS)
    assert not [action for action in removed if new_object in action]


_WORKLOAD_KINDS = (ChildKind.CONFIG_MAP, ChildKind.DEPLOYMENT)
"""Its record is kept, to go back to."""


def test_a_workload_is_kept_while_the_service_is_missing() -> None:
    world = _serving(gateway={"mode": "Direct"})
    world.edit(model={**MODEL, "version": 2})
    world.settle()
    world.serve()
    service = ChildId(kind=ChildKind.SERVICE, name="sentiment")
    for _ in range(5):
        world.step()
        del world.children[service]
    assert world.status.rollout is not None
    assert world.status.rollout.phase is RolloutPhase.DONE
    assert _touched(world.plan()) == [f"Apply {service}"]


def test_the_record_of_what_served_is_kept_from_the_moment_another_takes_over() -> None:
    """In the very step in which it is over it is no longer the stable one; its record must outlive that too."""
    world = _serving(gateway={"mode": "Direct"})
    first = world.status.stable
    assert first is not None
    record = ChildId(kind=ChildKind.CONTROLLER_REVISION, name=names.workload_object("sentiment", first.workload))
    world.edit(model={**MODEL, "version": 2})
    for _ in range(12):
        world.serve()
        planned = world.step()
        assert f"Delete {record}" not in _touched(planned)
    assert world.status.stable is not None
    assert (world.status.stable.version, world.status.past) == (2, (first.revision,))
    assert record in world.children
    assert _deployments(world) == {world.status.stable.workload}, "only its record is left"


# A rollout and the gateways.


def _hear(world: World, *heard: str) -> None:
    """Only these gateways answer, and do what they are told; the others are ready, and say what they said last."""
    world.gateways = {name: replace(gateway, heard=name in heard) for name, gateway in world.gateways.items()}
    world.deaf = set(world.gateways) - set(heard)


def _shifting() -> World:
    """Version 2 has half of the traffic, as every gateway knows, until it is promoted."""
    world = _serving()
    steps = [{"weight": 50, "pause": "UntilPromoted"}]
    world.edit(model={**MODEL, "version": 2}, rollout={"keepWarmSeconds": 0, "steps": steps, "analysis": []})
    for _ in range(6):
        world.step()
        world.serve()
    assert world.status.rollout is not None
    assert (world.status.rollout.weight, world.status.rollout.observed_since is None) == (50, False)
    return world


def _steps(world: World, rounds: int = 8) -> RolloutStatus:
    for _ in range(rounds):
        world.step()
        world.serve()
    assert world.status.rollout is not None
    return world.status.rollout


def test_a_rollout_is_looked_at_every_second_only_while_it_is_judged() -> None:
    world = _serving()
    steps = [{"weight": 50, "pause": "UntilPromoted"}]
    world.edit(model={**MODEL, "version": 2}, rollout={"keepWarmSeconds": 0, "steps": steps, "analysis": []})
    world.step()
    starting = world.plan()
    assert starting.status.rollout is not None
    assert (starting.status.rollout.observed_since, starting.requeue_after) == (None, timedelta(seconds=5))
    for _ in range(6):
        world.step()
        world.serve()
    judged = world.plan()
    assert judged.status.rollout is not None
    assert (judged.status.rollout.observed_since is None, judged.requeue_after) == (False, timedelta(seconds=1))
    world.edit(suspend=True)
    for _ in range(4):
        world.step()
        world.run_pods()
    suspended = world.plan()
    assert suspended.status.rollout is not None
    assert (suspended.status.rollout.phase, suspended.status.rollout.observed_since) == (RolloutPhase.SHIFTING, None)
    assert suspended.requeue_after is None


def test_a_status_with_long_words_of_agents_is_one_that_can_be_read() -> None:
    """The API server refuses one that is too long, and nothing of the rollout would be written any more."""
    world = _shifting()
    assert world.status.candidate is not None
    long = "no such backend " * 128
    for name, pod in world.pods.items():
        if pod.workload == world.status.candidate.workload:
            assert pod.report
            failed = pod.report.model_copy(
                update={"phase": AgentPhase.FAILED, "message": long, "attempts": 4, "golden": None}
            )
            world.pods[name] = replace(pod, ready=False, report=failed, created="2025-12-31T00:00:00Z")
    for _ in range(4):
        world.step()
        assert ModelDeploymentStatus.model_validate(world.status.to_wire()) == world.status
    (rejected,) = world.status.rejected
    assert long[:1400] in rejected.message


def test_a_silent_gateway_holds_no_rollout_up() -> None:
    world = _shifting()
    _hear(world, "a")
    assert world.status.rollout is not None
    world.command = Command(command=Verb.PROMOTE, rollout=world.status.rollout.id, nonce="1")
    assert _steps(world).phase in (RolloutPhase.DRAINING, RolloutPhase.DONE)
    assert world.status.stable is not None
    assert world.status.stable.version == 2
    # But nothing ends for its word: what it may still send to finds the old pods for a while.
    assert len(_deployments(world)) == 2


def test_a_silent_gateway_holds_no_way_back_up() -> None:
    world = _shifting()
    _hear(world, "a")
    assert world.status.rollout is not None
    world.command = Command(command=Verb.ABORT, rollout=world.status.rollout.id, nonce="1")
    assert _steps(world, 4).phase is RolloutPhase.HALTED


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT])
def test_a_rollout_waits_while_no_gateway_answers(verb: Verb) -> None:
    world = _shifting()
    _hear(world)
    assert world.status.rollout is not None
    world.command = Command(command=verb, rollout=world.status.rollout.id, nonce="1")
    waiting = _steps(world, 30)
    phase, weight = (RolloutPhase.SHIFTING, 100) if verb is Verb.PROMOTE else (RolloutPhase.ROLLING_BACK, 0)
    assert (waiting.phase, waiting.weight, waiting.observed_since) == (phase, weight, None)
    _hear(world, "b")
    assert _steps(world).phase not in (RolloutPhase.SHIFTING, RolloutPhase.ROLLING_BACK)


def test_a_gateway_that_answers_and_does_something_else_holds_a_rollout_up() -> None:
    world = _shifting()
    world.deaf = {"b"}
    assert world.status.rollout is not None
    world.command = Command(command=Verb.PROMOTE, rollout=world.status.rollout.id, nonce="1")
    assert _steps(world, 30).phase is RolloutPhase.SHIFTING


@pytest.mark.parametrize(("mode", "windows"), [("Gateway", True), ("Direct", False)])
def test_a_candidate_is_watched_where_its_object_has_a_port_on_the_gateways(mode: str, windows: bool) -> None:
    world = _serving(gateway={"mode": mode})
    world.edit(model={**MODEL, "version": 2}, rollout={"keepWarmSeconds": 30})
    opened = []
    for _ in range(8):
        opened += [action.name for action in world.step().actions if isinstance(action, OpenWindow)]
        world.serve()
    assert world.status.rollout is not None
    assert world.status.rollout.phase is RolloutPhase.BAKING
    assert opened == ([f"{world.status.rollout.id}/Baking/0"] if windows else [])


def test_without_a_free_port_nobody_is_watched() -> None:
    world = _serving(gateway={"mode": "Direct"})
    world.edit(model={**MODEL, "version": 2}, rollout={"keepWarmSeconds": 30})
    _steps(world)
    # From now on through the gateways, of which none has a port left.
    world.port = None
    world.edit(gateway={"mode": "Gateway"})
    under_way = world.plan()
    assert under_way.status.rollout is not None
    assert under_way.status.rollout.observed_since is not None
    assert not [action for action in under_way.actions if isinstance(action, OpenWindow)]


def test_a_delete_names_exactly_what_was_seen() -> None:
    world = _serving(replicas=2)
    budget = world.children[ChildId(kind=ChildKind.POD_DISRUPTION_BUDGET, name="sentiment")]
    world.edit(replicas=0)
    (delete,) = (action for action in world.plan().actions if isinstance(action, Delete))
    assert delete == Delete(id=budget.id, uid=budget.uid, resource_version=budget.resource_version)


def test_a_leftover_of_an_earlier_object_of_the_same_name_is_neither_written_nor_removed() -> None:
    world = World(spec={"model": MODEL})
    service = ChildId(kind=ChildKind.SERVICE, name="sentiment")
    world.children[service] = ObservedChild(
        id=service,
        uid="old",
        resource_version="1",
        controller=Controller(kind=names.KIND, name="sentiment", uid="earlier"),
        owned_hash="",
    )
    world.settle()
    assert world.children[service].uid == "old"
    ready = world.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.STARTING
    del world.children[service]
    assert f"Apply {service}" in _touched(world.plan())


def test_a_child_that_is_being_deleted_is_not_written() -> None:
    world = _serving()
    service = ChildId(kind=ChildKind.SERVICE, name="sentiment")
    world.children[service] = replace(world.children[service], deleting=True, owned_hash="other")
    assert world.plan().actions == ()


def test_an_object_that_is_being_deleted_gets_nothing_done() -> None:
    world = World(spec={"model": MODEL})
    going = replace(world.owner, deleting=True)
    assert _plan_for(world, going).actions == ()
    assert _plan_for(world, world.owner).actions != ()


def _plan_for(world: World, owner: ModelDeployment) -> Plan:
    return plan(owner=owner, observed=Observed(), policy=world.policy, now=world.now)


def test_an_edited_child_is_written_with_the_uid_that_is_known() -> None:
    world = _serving()
    service = ChildId(kind=ChildKind.SERVICE, name="sentiment")
    world.children[service] = replace(world.children[service], owned_hash="edited")
    (action,) = world.plan().actions
    assert isinstance(action, Apply)
    assert action.uid == world.children[service].uid


def test_the_admin_key_comes_before_the_pods_that_need_it() -> None:
    kinds = [type(action) for action in World(spec={"model": MODEL}).plan().actions]
    assert kinds[0] is EnsureAdminKey


def test_a_pod_that_started_shows_that_the_admin_key_is_there() -> None:
    world = _serving()
    world.secret_known = False
    assert [type(action) for action in world.plan().actions] == [EnsureAdminKey]
    world.pods = {name: replace(pod, containers=(ObservedContainer(name="agent"),)) for name, pod in world.pods.items()}
    assert world.plan().actions == ()


def test_an_object_without_pods_needs_no_admin_key() -> None:
    kinds = [type(action) for action in World(spec={"model": MODEL, "suspend": True}).plan().actions]
    assert EnsureAdminKey not in kinds


def test_a_pod_that_misses_the_admin_key_brings_it_back() -> None:
    world = _serving()
    container = ObservedContainer(name="triton", waiting_reason="CreateContainerConfigError")
    world.pods = {name: replace(pod, containers=(container,)) for name, pod in world.pods.items()}
    assert [type(action) for action in world.plan().actions] == [EnsureAdminKey]


@pytest.mark.parametrize(("gpus", "devices"), [(0, ["void"]), (1, [])])
def test_a_pod_without_a_gpu_gets_none_of_the_nodes(gpus: int, devices: list[str]) -> None:
    """NVIDIA's images ask for all of them."""
    world = World(spec={"model": MODEL, "gpu": {"count": gpus}})
    applied = [action.desired for action in world.plan().actions if isinstance(action, Apply)]
    (deployment,) = [each for each in applied if each.id.kind is ChildKind.DEPLOYMENT]
    (container,) = deployment.body["spec"]["template"]["spec"]["containers"]
    assert [each["value"] for each in container["env"] if each["name"] == "NVIDIA_VISIBLE_DEVICES"] == devices


@pytest.mark.parametrize(
    ("gpu", "tolerated", "cpus"),
    [
        ({}, True, []),
        ({"claims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}, True, []),
        ({"count": 0, "claims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}, True, []),
        ({"count": 0}, False, ["2.5"]),
    ],
)
def test_where_there_is_a_gpu_its_taint_is_tolerated_and_elsewhere_the_agent_knows_the_cpus(
    gpu: dict[str, Any], tolerated: bool, cpus: list[str]
) -> None:
    world = World(spec={"model": MODEL, "gpu": gpu, "runtime": {"resources": {"cpu": "2500m"}}})
    applied = [action.desired for action in world.plan().actions if isinstance(action, Apply)]
    (deployment,) = [each for each in applied if each.id.kind is ChildKind.DEPLOYMENT]
    pod = deployment.body["spec"]["template"]["spec"]
    assert any(each["key"] == "nvidia.com/gpu" for each in pod["tolerations"]) is tolerated
    (agent,), (triton,) = pod["initContainers"], pod["containers"]
    assert [each["value"] for each in agent["env"] if each["name"] == "CONCH_TRITON_CPUS"] == cpus
    # What a claim gives comes by the driver: nothing uncounted beside it.
    assert any(each["name"] == "NVIDIA_VISIBLE_DEVICES" for each in triton["env"]) is (gpu != {})
    assert ("nvidia.com/gpu" in triton["resources"]["limits"]) is (gpu == {})


def test_a_scheduler_that_says_nothing_is_looked_at_again_when_it_has_taken_too_long() -> None:
    """No event would come: nobody writes a condition where there is nobody."""
    world = World(spec={"model": MODEL, "scheduling": {"schedulerName": "volcano"}})
    world.settle()
    world.run_pods()
    (name,) = world.pods
    silent = replace(world.pods[name], waits_for_scheduler="volcano", created=(world.now).isoformat())
    world.pods[name] = silent
    assert world.status.rollout is None or world.plan().requeue_after is not None
    world.now += timedelta(seconds=59)
    early = world.plan()
    assert early.requeue_after is not None
    assert early.requeue_after <= timedelta(seconds=2)
    world.now += early.requeue_after
    ready = world.plan().status.condition(ConditionType.READY)
    assert ready is not None
    assert (ready.reason, "volcano" in ready.message) == (Reason.UNSCHEDULABLE, True)


def test_what_cannot_be_watched_is_looked_at_again_as_long_as_it_is_in_the_way() -> None:
    world = World(spec={"model": MODEL})
    world.strangers[ChildId(kind=ChildKind.SERVICE, name="sentiment")] = None
    world.step()
    assert world.plan().requeue_after == POLICY.recheck_after
    world.strangers.clear()
    world.settle()
    assert world.plan().requeue_after is None


def test_a_stranger_in_the_place_of_a_child_that_is_no_longer_wanted_is_no_conflict() -> None:
    world = _serving()
    world.met_strangers[ChildId(kind=ChildKind.POD_DISRUPTION_BUDGET, name="sentiment")] = None
    assert world.plan().status == world.status


def test_a_strangers_record_never_becomes_pods() -> None:
    world = World(spec={"model": MODEL})
    candidate = world.plan().status.candidate
    assert candidate is not None
    id_ = ChildId(kind=ChildKind.CONTROLLER_REVISION, name=names.workload_object("sentiment", candidate.workload))
    record = WorkloadRecord(
        workload=candidate.workload,
        number=1,
        revision=candidate.revision,
        version=1,
        spec_json="{}",
        pod_template_json='{"spec": {"hostNetwork": true}}',
        assignment_json="{}",
    )
    world.children[id_] = ObservedRecord(
        id=id_, uid="s", resource_version="1", controller=None, owned_hash="", record=record
    )
    assert not any("hostNetwork" in str(action) for action in world.plan().actions)


def test_an_edit_that_was_acted_on_is_not_taken_back_when_the_next_cannot_be_read() -> None:
    """Its report may have come too late for the status: what runs is what is left as it is."""
    world = World(spec={"model": MODEL})
    world.settle()
    world.serve()
    world.settle()
    world.edit(replicas=3)
    acted = next(action for action in world.plan().actions if isinstance(action, Apply) and action.uid)
    assert acted.desired.id.kind is ChildKind.DEPLOYMENT
    world.carry_out(acted)
    assert world.status.desired_replicas == 1
    world.edit(model={"unknown": True})
    assert acted.desired.id not in [each.desired.id for each in world.plan().actions if isinstance(each, Apply)]
    assert world.plan().status.desired_replicas == 3


@pytest.mark.parametrize(
    ("uri", "account", "labelled"),
    [
        ("az://account/models/m", "reader", True),
        ("az://account/models/m", None, False),
        ("s3://models/m", "reader", False),
    ],
)
def test_azure_gives_an_identity_only_to_pods_that_ask(uri: str, account: str | None, labelled: bool) -> None:
    named = {"serviceAccountName": account} if account else {}
    world = World(spec={"model": {"version": 1, "source": {"uri": uri}}, **named})
    (deployment,) = (
        action.desired.body
        for action in world.plan().actions
        if isinstance(action, Apply) and action.desired.id.kind is ChildKind.DEPLOYMENT
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (labels.get("azure.workload.identity/use") == "true") is labelled
