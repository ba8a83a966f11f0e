"""From live objects to what the planner is told: each state that a kubelet reports, and what controllers say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from conch.api import names, pod
from conch.app.projections import controller_of, project_child, project_gateway_pod, project_node, project_pod
from conch.core.desired.service import direct_service
from conch.core.observed import ObservedGateway
from conch.core.observed_child import (
    ChildId,
    ChildKind,
    Controller,
    ObservedDeployment,
    ObservedRecord,
    ObservedService,
    ObservedSlice,
    WorkloadRecord,
)
from conch.core.observed_pod import ObservedContainer, ObservedPod
from tests.sim.world import World

WORLD = World(spec={"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}})


def _pod(status: dict[str, Any] | None = None, **metadata: Any) -> ObservedPod:
    labels = {names.LABEL_WORKLOAD: "w1"}
    live: dict[str, Any] = {"metadata": {"name": "p", "uid": "u", "labels": labels, **metadata}}
    return project_pod(live if status is None else {**live, "status": status})


def _container(**status: Any) -> ObservedContainer:
    (container,) = _pod({"containerStatuses": [{"name": "triton", **status}]}).containers
    return container


def _scheduled(status: str, reason: str = "") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": status, "reason": reason, "message": "0/3 nodes are available"}
    return {"conditions": [condition]}


def test_a_pod_that_nobody_has_looked_at_is_pending_and_nothing_else() -> None:
    assert _pod() == ObservedPod(name="p", uid="u", workload="w1", waits_for_scheduler="default-scheduler")


def test_a_pod_that_no_node_takes_tells_why() -> None:
    pod = _pod(_scheduled("False", "Unschedulable"))
    assert (pod.scheduled, pod.unschedulable_message) == (False, "0/3 nodes are available")


def test_a_pod_that_a_queue_holds_back_finds_no_node_either_and_tells_that_it_is_held() -> None:
    pod = _pod(_scheduled("False", "SchedulingGated"))
    assert (pod.gated, pod.unschedulable_message, pod.waits_for_scheduler) == (True, "0/3 nodes are available", "")
    assert not _pod(_scheduled("False", "Unschedulable")).gated


@pytest.mark.parametrize(
    ("spec", "status", "waits_for"),
    [
        ({"schedulerName": "volcano"}, {}, "volcano"),
        ({"schedulerName": "volcano"}, _scheduled("False", "Unschedulable"), ""),
        ({"schedulerName": "volcano"}, _scheduled("True"), ""),
        # Whoever has put it there has no need of a scheduler.
        ({"schedulerName": "volcano", "nodeName": "node-1"}, {}, ""),
    ],
)
def test_a_scheduler_that_has_said_nothing_is_waited_for(
    spec: dict[str, Any], status: dict[str, Any], waits_for: str
) -> None:
    live = {"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status}
    assert project_pod(live).waits_for_scheduler == waits_for


def test_claims_that_were_not_made_yet_are_told_by_their_templates() -> None:
    claims = [
        {"name": "gpu", "resourceClaimTemplateName": "two-h100"},
        {"name": "nic", "resourceClaimTemplateName": "one-nic"},
        {"name": "mine", "resourceClaimName": "by-hand"},
    ]
    live = {"metadata": {"name": "p", "uid": "u"}, "spec": {"resourceClaims": claims}}
    assert project_pod(live).missing_claims == ("two-h100", "one-nic")
    made = [{"name": "gpu", "resourceClaimName": "p-gpu-x7k2p"}]
    assert project_pod({**live, "status": {"resourceClaimStatuses": made}}).missing_claims == ("one-nic",)


def test_a_pod_that_has_a_node_is_scheduled() -> None:
    pod = _pod(_scheduled("True"))
    assert (pod.scheduled, pod.unschedulable_message) == (True, "")


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_only_a_true_condition_makes_a_pod_ready(status: str, ready: bool) -> None:
    assert _pod({"conditions": [{"type": "Ready", "status": status}]}).ready is ready


def test_a_pod_that_runs_has_its_address() -> None:
    pod = _pod({"phase": "Running", "podIP": "10.0.0.7"})
    assert (pod.phase, pod.ip) == ("Running", "10.0.0.7")


def test_a_pod_that_was_deleted_is_leaving() -> None:
    assert _pod(deletionTimestamp="2026-01-01T00:00:00Z").deleting


def test_a_pod_that_its_node_ended_tells_why() -> None:
    pod = _pod({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
    assert (pod.phase, pod.failure, pod.deleting) == ("Failed", "Evicted: low on memory", False)


@pytest.mark.parametrize(
    ("status", "failure"), [({"phase": "Failed"}, "it failed"), ({"phase": "Running", "reason": "x"}, "")]
)
def test_only_a_pod_that_failed_has_a_failure(status: dict[str, Any], failure: str) -> None:
    assert _pod(status).failure == failure


def test_a_container_that_ended_tells_when() -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}}
    assert _container(lastState=ended).last_exit_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_sidecar_and_triton_are_both_seen() -> None:
    status = {"initContainerStatuses": [{"name": "agent"}], "containerStatuses": [{"name": "triton"}]}
    assert [container.name for container in _pod(status).containers] == ["agent", "triton"]


def test_a_waiting_container_tells_why() -> None:
    container = _container(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})
    assert (container.waiting_reason, container.waiting_message) == ("ImagePullBackOff", "not found")


def test_a_running_container_that_restarted_tells_how_often_and_how_it_ended() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    assert _container(ready=True, restartCount=2, state={"running": {}}, lastState=ended) == ObservedContainer(
        name="triton", ready=True, restarts=2, last_exit="OOMKilled, exit code 137"
    )


def test_a_container_that_has_ended_for_the_first_time_tells_how() -> None:
    assert _container(state={"terminated": {"reason": "Error", "exitCode": 1}}).last_exit == "Error, exit code 1"


def test_the_end_of_what_a_container_said_is_kept_in_one_line() -> None:
    ended = {"reason": "Error", "exitCode": 1, "message": "x" * 400 + "\n  the\tcause\n"}
    said = _container(state={"terminated": ended}).last_exit
    assert said.startswith("Error, exit code 1: x")
    assert said.endswith("x the cause")
    assert len(said) == len("Error, exit code 1: ") + 300


def _child(kind: ChildKind, *, metadata: dict[str, Any] | None = None, **fields: Any) -> Any:
    common = {"name": "a", "uid": "u", "resourceVersion": "7"}
    return project_child(kind, {"metadata": {**common, **(metadata or {})}, **fields})


def test_a_child_has_what_names_it_and_nobody_who_controls_it() -> None:
    child = _child(ChildKind.SERVICE)
    assert (child.id, child.uid, child.resource_version) == (ChildId(kind=ChildKind.SERVICE, name="a"), "u", "7")
    assert (child.controller, child.deleting, child.belongs_to("owner")) == (None, False, False)


def test_a_child_that_is_going_says_so() -> None:
    assert _child(ChildKind.SERVICE, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}).deleting


@pytest.mark.parametrize(
    ("data", "instances"),
    [
        ({pod.ASSIGNMENT_FILE: '{"revision": "r", "instances": 3}'}, 3),
        ({pod.ASSIGNMENT_FILE: '{"revision": "r"}'}, None),
        ({pod.ASSIGNMENT_FILE: '{"instances": 65}'}, None),
        ({pod.ASSIGNMENT_FILE: '{"instances": true}'}, None),
        ({pod.ASSIGNMENT_FILE: '{"instances": "3"}'}, None),
        ({pod.ASSIGNMENT_FILE: "[1]"}, None),
        ({pod.ASSIGNMENT_FILE: "{"}, None),
        ({}, None),
    ],
)
def test_an_assignment_tells_how_many_instances_it_asks_for(data: dict[str, str], instances: int | None) -> None:
    assert _child(ChildKind.CONFIG_MAP, data=data).instances == instances
    assert _child(ChildKind.CONFIG_MAP).instances is None


def test_an_owner_that_is_not_the_controller_controls_nothing() -> None:
    owner = {"kind": "ModelDeployment", "name": "m", "uid": "o"}
    assert controller_of({"ownerReferences": [owner, {**owner, "controller": False}]}) is None


def test_the_controller_is_found_among_the_owners() -> None:
    owner = {"kind": "Other", "name": "x", "uid": "x"}
    controller = {"kind": "ModelDeployment", "name": "m", "uid": "o", "controller": True}
    found = controller_of({"ownerReferences": [owner, controller]})
    assert found == Controller(kind="ModelDeployment", name="m", uid="o")


def _applied_service(**changes: Any) -> dict[str, Any]:
    """A Service as the API server keeps it after our apply, with fields of its own."""
    desired = direct_service(WORLD.owner, "w1").body
    owned: dict[str, Any] = {
        "f:metadata": {"f:labels": {}, "f:ownerReferences": {}},
        "f:spec": {"f:type": {}, "f:selector": {}, "f:ports": {}},
    }
    entry = {"manager": names.FIELD_MANAGER, "operation": "Apply", "fieldsV1": owned}
    metadata = {**desired["metadata"], "uid": "u", "resourceVersion": "7", "managedFields": [entry]}
    return {**desired, "metadata": metadata, "spec": {**desired["spec"], "clusterIP": "10.0.0.1", **changes}}


def test_a_child_that_nobody_touched_hashes_like_what_is_wanted() -> None:
    live = _applied_service()
    assert project_child(ChildKind.SERVICE, live).owned_hash == direct_service(WORLD.owner, "w1").hash


def test_a_child_that_somebody_changed_hashes_differently() -> None:
    live = _applied_service(type="NodePort")
    assert project_child(ChildKind.SERVICE, live).owned_hash != direct_service(WORLD.owner, "w1").hash


def test_a_deployment_tells_its_workload_and_why_its_pods_are_refused() -> None:
    conditions = [
        {"type": "Available", "status": "True", "message": "fine"},
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"},
    ]
    child = _child(
        ChildKind.DEPLOYMENT, metadata={"labels": {names.LABEL_WORKLOAD: "w1"}}, status={"conditions": conditions}
    )
    assert isinstance(child, ObservedDeployment)
    assert (child.workload, child.creation_error) == ("w1", "exceeded quota")


@pytest.mark.parametrize("conditions", [[], [{"type": "ReplicaFailure", "status": "False", "message": "long ago"}]])
def test_a_deployment_whose_pods_are_taken_has_no_error(conditions: list[dict[str, str]]) -> None:
    assert _child(ChildKind.DEPLOYMENT, status={"conditions": conditions}).creation_error == ""


def test_a_controller_revision_holds_its_record() -> None:
    data = {**RECORD, "assignment": '{"uri":"u"}'}
    child = _child(ChildKind.CONTROLLER_REVISION, data=data)
    assert isinstance(child, ObservedRecord)
    assert child.record == WorkloadRecord(
        workload="w1",
        number=2,
        revision="r",
        version=3,
        spec_json='{"gpu":{}}',
        pod_template_json="{}",
        assignment_json='{"uri":"u"}',
    )


UNREADABLE: tuple[object, ...] = ("{", "[]", {"spec": {}}, None)
RECORD = {
    "workload": "w1",
    "number": 2,
    "revision": "r",
    "version": 3,
    "spec": '{"gpu":{}}',
    "podTemplate": "{}",
    "assignment": "{}",
}


@pytest.mark.parametrize(
    "fields",
    [
        *({}, {"data": None}, {"data": {}}, {"data": [1]}, {"data": "text"}),
        *({"data": {**RECORD, part: text}} for text in UNREADABLE for part in ("spec", "podTemplate", "assignment")),
        *({"data": {key: value for key, value in RECORD.items() if key != missing}} for missing in RECORD),
    ],
)
def test_a_controller_revision_of_somebody_elses_is_no_record(fields: dict[str, Any]) -> None:
    assert not isinstance(_child(ChildKind.CONTROLLER_REVISION, **fields), ObservedRecord)


@pytest.mark.parametrize("selector", [None, {}, {"app": "x"}])
def test_a_service_tells_whether_it_selects_pods(selector: dict[str, str] | None) -> None:
    spec = {} if selector is None else {"selector": selector}
    child = _child(ChildKind.SERVICE, spec=spec)
    assert isinstance(child, ObservedService)
    assert child.selects is bool(selector)


def test_a_slice_tells_its_service_its_keeper_and_who_gets_connections() -> None:
    labels = {names.LABEL_SERVICE: "sentiment", names.LABEL_SLICE_MANAGED_BY: "endpointslice-controller.k8s.io"}
    endpoints = [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["10.0.0.3"]},
    ]
    child = _child(ChildKind.ENDPOINT_SLICE, metadata={"labels": labels}, endpoints=endpoints)
    assert isinstance(child, ObservedSlice)
    assert (child.service, child.managed_by) == ("sentiment", "endpointslice-controller.k8s.io")
    assert child.ready == {"10.0.0.1", "10.0.0.3"}


def test_a_slice_without_endpoints_sends_nobody_anywhere() -> None:
    child = _child(ChildKind.ENDPOINT_SLICE, endpoints=None)
    assert isinstance(child, ObservedSlice)
    assert child.ready == frozenset()


def test_a_gateway_pod_tells_its_address_and_whether_it_may_get_clients() -> None:
    ready = {"podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    live = {"metadata": {"name": "g"}, "status": ready}
    assert project_gateway_pod(live) == ObservedGateway(name="g", address="10.1.0.1", ready=True)
    leaving = project_gateway_pod({**live, "metadata": {"name": "g", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert leaving.leaving
    assert not project_gateway_pod({"metadata": {"name": "g"}}).ready


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_gateway_pod_that_has_ended_has_no_address(phase: str) -> None:
    """Another pod may have it by now, and must not be shown the gateways' token."""
    assert (
        project_gateway_pod({"metadata": {"name": "g"}, "status": {"podIP": "10.1.0.1", "phase": phase}}).address == ""
    )


def test_a_node_is_cordoned_or_not() -> None:
    assert project_node({"metadata": {"name": "n"}, "spec": {"unschedulable": True}})
    assert not project_node({"metadata": {"name": "n"}, "spec": {}})
    assert not project_node({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "nvidia.com/gpu"}]}})
    for autoscaler in ("ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"):
        assert project_node({"metadata": {"name": "n"}, "spec": {"taints": [{"key": autoscaler}]}})


def test_a_pod_tells_when_it_was_made_and_whether_it_is_marked() -> None:
    pod = _pod(creationTimestamp="2026-01-01T00:00:00Z")
    assert (pod.created, pod.marked_for_removal) == ("2026-01-01T00:00:00Z", False)
    assert _pod(annotations={"controller.kubernetes.io/pod-deletion-cost": "-1000"}).marked_for_removal
    assert not _pod(annotations={"controller.kubernetes.io/pod-deletion-cost": "5"}).marked_for_removal


@pytest.mark.parametrize("mounts", [True, False])
def test_a_deployment_tells_whether_its_pods_mount_the_model_cache(mounts: bool) -> None:
    source = {"name": "source", "persistentVolumeClaim": {"claimName": "model-cache"}}
    cache = {"name": "model-cache", "persistentVolumeClaim": {"claimName": "any"}}
    template = {"spec": {"volumes": [source, *([cache] if mounts else [])]}}
    metadata = {"name": "d", "uid": "u", "resourceVersion": "1"}
    child = project_child(ChildKind.DEPLOYMENT, {"metadata": metadata, "spec": {"template": template}})
    assert isinstance(child, ObservedDeployment)
    assert child.mounts_cache is mounts
