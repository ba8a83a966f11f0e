"""One test per check: what triggers it, its reason and severity, and that a person learns what to do about what."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conch.api import names
from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.gateway import GatewayMode
from conch.api.gateway_report import ObjectTraffic
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.api.status import GatewayStatus, ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.exposure import Exposure
from conch.core.finding import Finding, Severity
from conch.core.findings import first_finding
from conch.core.observed import Observed, ObservedGateway
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedChild, ObservedDeployment, ObservedSlice
from conch.core.observed_pod import ObservedContainer, ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.routing import Routing
from conch.core.situation import Situation
from conch.core.staffing import Staffing
from conch.core.succession import Succession

UID = "uid"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = ServedRevision(revision="r1", version=1, workload="w1")
SERVICE = ChildId(kind=ChildKind.SERVICE, name="sentiment")
DEPLOYMENT = ChildId(kind=ChildKind.DEPLOYMENT, name="sentiment-w1")
DIRECT = Routing(
    exposure=Exposure(mode=GatewayMode.DIRECT, selects_pods=True, port=None, listed=None),
    staffings={"w1": Staffing(replicas=1)},
    replicas={"w1": 1},
    rollout=None,
    traffic=(),
    gateway=None,
)
ROUTED = Routing(
    exposure=Exposure(mode=GatewayMode.GATEWAY, selects_pods=False, port=10_000, listed=("10.1.0.1",)),
    staffings={"w1": Staffing(replicas=1)},
    replicas={"w1": 1},
    rollout=None,
    traffic=(TrafficShare(revision="r1", workload="w1", weight=100),),
    gateway=GatewayStatus(port=10_000, generation="g2"),
)
NO_GOLDEN_SET = GoldenReport(outcome=GoldenOutcome.ABSENT)
SECRET_TEXT = "couldn't find key admin-key in Secret default/sentiment-admin-key"


def a_pod(name: str = "sentiment-w1-0", **fields: Any) -> ObservedPod:
    return ObservedPod(name=name, uid=name, workload="w1", **fields)


def a_gateway(name: str, *, heard: bool = True, rejected: bool = False, generation: str = "g1") -> ObservedGateway:
    """A gateway that does for the object what `generation` stands for."""
    traffic = ObjectTraffic(generation=generation, rejected=rejected, waits_for="cannot bind" if rejected else "")
    return ObservedGateway(name=name, address="10.1.0.1", ready=True, heard=heard, traffic=traffic)


def listing(*addresses: str) -> dict[ChildId, ObservedChild]:
    """The object's slice, with these gateways in it."""
    id_ = ChildId(kind=ChildKind.ENDPOINT_SLICE, name="sentiment-gateways")
    owner = Controller(kind=names.KIND, name="sentiment", uid=UID)
    common: dict[str, Any] = {"uid": "s", "resource_version": "1", "controller": owner, "owned_hash": ""}
    ready = frozenset(addresses)
    ours = ObservedSlice(id=id_, **common, service="sentiment", managed_by=names.SLICE_MANAGED_BY, ready=ready)
    return {id_: ours}


def waiting(reason: str, message: str = "", *, container: str = "triton") -> ObservedPod:
    return a_pod(containers=(ObservedContainer(name=container, waiting_reason=reason, waiting_message=message),))


def reporting(phase: AgentPhase, **fields: Any) -> ObservedPod:
    golden = NO_GOLDEN_SET if phase is AgentPhase.READY else None
    said = {"phase": phase, "revision": "r1", "replays_golden_set": True, "golden": golden}
    return a_pod(report=AgentReport(**{**said, **fields}))


def find(
    *pods: ObservedPod,
    spec: dict[str, Any] | None = None,
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - immutable
    replicas: int = 1,
    unwritten: frozenset[ChildId] = frozenset(),
    status: ModelDeploymentStatus = ModelDeploymentStatus(),  # noqa: B008 - immutable
    digest: str | None = None,
    routing: Routing = DIRECT,
    succession: Succession | None = None,
    **observed: Any,
) -> Finding | None:
    """What is found first; without another succession, of an object whose first revision is being brought up."""
    wire = {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}} if spec is None else spec
    read = parse_spec(wire)
    owner = ModelDeployment(
        namespace="default",
        name="sentiment",
        uid=UID,
        generation=1,
        resource_version="1",
        created="2026-01-01T00:00:00Z",
        deleting=False,
        spec=read,
        status=status,
    )
    return first_finding(
        Situation(
            owner=owner,
            spec=read,
            policy=InstallationPolicy(triton_image="t", agent_image="a", source_policy=policy),
            observed=Observed(pods=pods, **observed),
            revision="r1",
            succession=succession
            or Succession(stable=None, candidate=WANTED.model_copy(update={"digest": digest}), workloads_created=1),
            routing=routing,
            desired_replicas=replicas,
            now=NOW,
            needed=frozenset({SERVICE, DEPLOYMENT}),
            unwritten=unwritten | observed.get("strangers", {}).keys() | observed.get("refusals", {}).keys(),
        )
    )


def expect(finding: Finding | None, severity: Severity, reason: Reason, *words: str) -> None:
    assert finding is not None
    assert (finding.severity, finding.reason) == (severity, reason), finding.message
    assert [word for word in words if word not in finding.message] == [], finding.message


def _owned(id_: ChildId, controller: Controller | None) -> dict[ChildId, ObservedChild]:
    return {id_: ObservedChild(id=id_, uid="c", resource_version="1", controller=controller, owned_hash="")}


def refused_pods(error: str) -> dict[ChildId, ObservedChild]:
    deployment = ObservedDeployment(
        mounts_cache=False,
        replicas=1,
        id=DEPLOYMENT,
        uid="d",
        resource_version="1",
        controller=Controller(kind=names.KIND, name="sentiment", uid=UID),
        owned_hash="",
        workload="w1",
        creation_error=error,
    )
    return {DEPLOYMENT: deployment}


def test_pods_that_serve_leave_nothing_to_find() -> None:
    assert find(replace(reporting(AgentPhase.READY), ready=True)) is None


def test_an_unreadable_spec_names_its_field_and_says_that_nothing_is_touched() -> None:
    expect(find(spec={}), Severity.STALLED, Reason.INVALID_SPEC, "spec.model", "left as it is", "correct the spec")


def test_a_source_off_the_list_names_the_field_and_the_setting() -> None:
    finding = find(policy=SourcePolicy(allowed_hosts=()))
    words = ("model.source", "models.example", "policy.sources.allowedHosts")
    expect(finding, Severity.STALLED, Reason.SOURCE_NOT_ALLOWED, *words)


@pytest.mark.parametrize("how", ["children", "strangers"])
def test_a_strangers_object_in_the_way_is_named_with_what_to_do(how: str) -> None:
    helm = Controller(kind="HelmRelease", name="web", uid="other")
    found: Any = _owned(SERVICE, helm) if how == "children" else {SERVICE: helm}
    words = ("Service sentiment", "HelmRelease web", "does not touch it", "delete or rename")
    expect(find(**{how: found}), Severity.STALLED, Reason.NAME_CONFLICT, *words)


def test_a_strangers_object_without_a_controller_was_not_made_by_conch() -> None:
    expect(find(strangers={SERVICE: None}), Severity.STALLED, Reason.NAME_CONFLICT, "was not made by Conch")


@pytest.mark.parametrize("how", ["children", "strangers"])
def test_a_leftover_of_an_earlier_object_of_the_same_name_is_waited_for(how: str) -> None:
    earlier = Controller(kind=names.KIND, name="sentiment", uid="earlier")
    found: Any = _owned(SERVICE, earlier) if how == "children" else {SERVICE: earlier}
    words = ("Service sentiment", "earlier ModelDeployment sentiment")
    expect(find(**{how: found}), Severity.PROGRESSING, Reason.STARTING, *words)


def test_a_strangers_object_that_is_in_nobodys_way_is_no_conflict() -> None:
    elsewhere = ChildId(kind=ChildKind.SERVICE, name="other")
    finding = find(replace(reporting(AgentPhase.READY), ready=True), children=_owned(elsewhere, None))
    assert finding is None


@pytest.mark.parametrize("pod", [a_pod(key_refused=True), waiting("CreateContainerConfigError", SECRET_TEXT)])
def test_a_secret_that_is_not_ours_is_named(pod: ObservedPod) -> None:
    expect(
        find(pod),
        Severity.STALLED,
        Reason.NAME_CONFLICT,
        f"Secret {names.admin_key_secret('sentiment', UID)}",
        "delete or rename",
    )


def test_a_refused_child_is_named_with_the_api_servers_words() -> None:
    finding = find(refusals={DEPLOYMENT: "spec.template is invalid"})
    words = ("Deployment sentiment-w1", "spec.template is invalid")
    expect(finding, Severity.STALLED, Reason.INVALID_SPEC, *words)


def test_a_quota_blocks_and_says_what_to_raise_or_lower() -> None:
    finding = find(children=refused_pods("pods is forbidden: exceeded quota: team"))
    expect(finding, Severity.BLOCKED, Reason.QUOTA_BLOCKED, "exceeded quota: team", "Raise it", "lower replicas")


def test_pods_that_admission_refuses_stall_with_its_words() -> None:
    finding = find(children=refused_pods("violates PodSecurity"))
    expect(finding, Severity.STALLED, Reason.POD_REFUSED, "violates PodSecurity")


def test_a_creation_error_of_the_past_does_not_count_when_all_pods_are_there() -> None:
    pod = replace(reporting(AgentPhase.READY), ready=True)
    assert find(pod, children=refused_pods("exceeded quota")) is None


def test_a_failed_agent_gives_its_own_reason_and_how_many_pods_it_is() -> None:
    failed = reporting(AgentPhase.FAILED, reason=Reason.DIGEST_MISMATCH, message="the files are others")
    finding = find(failed, a_pod("other"), replicas=2)
    expect(finding, Severity.STALLED, Reason.DIGEST_MISMATCH, "the files are others", "1 of 2 pods", "back-off")


def test_a_failed_agent_without_a_reason_failed_to_load() -> None:
    finding = find(reporting(AgentPhase.FAILED, message="m"))
    expect(finding, Severity.STALLED, Reason.MODEL_LOAD_FAILED, "m")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_names_pod_and_container_and_what_to_check(reason: str) -> None:
    words = ("sentiment-w1-0", "container triton", "not found", "runtime.image", "imagePullSecrets")
    expect(find(waiting(reason, "not found")), Severity.STALLED, Reason.IMAGE_PULL_FAILED, *words)


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError"])
def test_a_container_that_cannot_be_configured_is_named(reason: str) -> None:
    words = ("sentiment-w1-0", "container agent", "no such thing")
    finding = find(waiting(reason, "no such thing", container="agent"))
    expect(finding, Severity.STALLED, Reason.CONTAINER_CONFIG_ERROR, *words)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (
            ObservedContainer(name="triton", restarts=1, waiting_reason="CrashLoopBackOff", last_exit="Error, exit 1"),
            ("triton", "sentiment-w1-0", "1 restarts", "Error, exit 1", "runtime.env"),
        ),
        (
            ObservedContainer(name="triton", restarts=2, last_exit="OOMKilled, exit code 137", last_exit_at=NOW),
            ("OOMKilled", "Raise runtime.resources.memory"),
        ),
        (
            ObservedContainer(name="agent", waiting_reason="RunContainerError", waiting_message="exec"),
            ("agent", "exec"),
        ),
    ],
    ids=["back-off", "out of memory between two back-offs", "cannot run"],
)
def test_a_crashing_container_says_how_it_ended(container: ObservedContainer, words: tuple[str, ...]) -> None:
    expect(find(a_pod(containers=(container,))), Severity.STALLED, Reason.CRASH_LOOPING, *words)


@pytest.mark.parametrize(
    "container",
    [
        ObservedContainer(name="triton", restarts=1, last_exit="Error, exit 1", last_exit_at=NOW),
        ObservedContainer(name="triton", restarts=9, last_exit="Error, exit 1", last_exit_at=NOW, ready=True),
        ObservedContainer(name="triton", restarts=9, last_exit="Error, exit 1", last_exit_at=NOW - timedelta(hours=1)),
    ],
    ids=["one restart", "recovered", "long ago"],
)
def test_a_container_that_recovered_is_not_crashing(container: ObservedContainer) -> None:
    expect(find(a_pod(containers=(container,))), Severity.PROGRESSING, Reason.STARTING)


def test_a_pod_that_serves_other_files_than_its_revision_is_named() -> None:
    other = replace(reporting(AgentPhase.READY, digest="sha256:" + "cd" * 32), ready=True)
    words = (other.name, "cd" * 32, "ab" * 32, "Delete the pod")
    expect(find(other, digest="sha256:" + "ab" * 32), Severity.STALLED, Reason.SOURCE_CHANGED, *words)


def test_an_eviction_of_long_ago_explains_nothing() -> None:
    ended = ObservedContainer(name="triton", last_exit_at=NOW - timedelta(days=1))
    evicted = a_pod("old", phase="Failed", failure="Evicted: the node was low on memory", containers=(ended,))
    expect(find(evicted, a_pod()), Severity.PROGRESSING, Reason.STARTING, "0 of 1")
