"""Waiting for a node, being on the way, and which of two findings is the one to show."""

from dataclasses import replace

import pytest

from conch.api.assignment import AgentPhase
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.api.status import Condition, ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core.finding import Severity
from conch.core.observed import ObservedContainer
from tests.unit.test_core_findings import (
    DEPLOYMENT,
    SECRET_TEXT,
    SERVICE,
    a_pod,
    expect,
    find,
    refused_pods,
    reporting,
    waiting,
)

CRASHING = ObservedContainer(name="triton", restarts=5, waiting_reason="CrashLoopBackOff", last_exit="Error")
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = a_pod(unschedulable_message=NO_GPU)


def test_a_missing_gpu_is_named_with_how_many_replicas_wait_and_what_to_do() -> None:
    words = ("1 of 2 replicas", "1 free nvidia.com/gpu", "0/3 nodes", "add a node", "gpu.count")
    expect(find(UNSCHEDULABLE, replicas=2), Severity.BLOCKED, Reason.WAITING_FOR_GPU, *words)


def test_a_missing_mig_slice_is_named_by_its_own_resource() -> None:
    spec = {
        "model": {"version": 1, "source": {"uri": "https://h/a"}},
        "gpu": {"resource": "nvidia.com/mig-1g.10gb", "count": 2},
    }
    pod = a_pod(unschedulable_message="Insufficient nvidia.com/mig-1g.10gb")
    expect(find(pod, spec=spec), Severity.BLOCKED, Reason.WAITING_FOR_GPU, "2 free nvidia.com/mig-1g.10gb")


def test_a_pod_that_fits_nowhere_for_another_cause_is_not_waiting_for_a_gpu() -> None:
    pod = a_pod(unschedulable_message="0/3 nodes are available: 3 Insufficient cpu.")
    words = ("3 Insufficient cpu", "runtime.resources", "scheduling")
    expect(find(pod), Severity.BLOCKED, Reason.UNSCHEDULABLE, *words)


def test_a_pod_that_found_its_node_waits_no_longer() -> None:
    expect(find(replace(UNSCHEDULABLE, scheduled=True)), Severity.PROGRESSING, Reason.STARTING)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (AgentPhase.STARTING, Reason.STARTING),
        (AgentPhase.FETCHING, Reason.FETCHING),
        (AgentPhase.LOADING, Reason.LOADING),
        (AgentPhase.READY, Reason.LOADING),
    ],
)
def test_a_pod_on_its_way_says_how_far_it_is(phase: AgentPhase, reason: Reason) -> None:
    expect(find(reporting(phase)), Severity.PROGRESSING, reason, "0 of 1 replicas serve")


def test_a_model_being_fetched_says_how_large_it_is() -> None:
    expect(find(reporting(AgentPhase.FETCHING, total_bytes=2_500_000)), Severity.PROGRESSING, Reason.FETCHING, "2.5 MB")


def test_more_replicas_beside_one_that_serves_is_scaling() -> None:
    serving = replace(reporting(AgentPhase.READY), ready=True)
    finding = find(serving, a_pod("other"), replicas=2)
    expect(finding, Severity.PROGRESSING, Reason.SCALING, "1 of 2 replicas serve")


def test_a_candidates_pod_counts_only_by_its_agents_word() -> None:
    expect(find(a_pod(ready=True)), Severity.PROGRESSING, Reason.STARTING, "0 of 1")


def test_a_pod_that_is_being_deleted_explains_nothing() -> None:
    going = a_pod(deleting=True, containers=(CRASHING,))
    expect(find(going), Severity.PROGRESSING, Reason.STARTING)


def test_a_pod_of_another_workload_explains_nothing() -> None:
    old = replace(a_pod(containers=(CRASHING,)), workload="w0")
    expect(find(old), Severity.PROGRESSING, Reason.STARTING)


def test_an_unreadable_spec_comes_before_everything_it_could_have_caused() -> None:
    expect(find(a_pod(key_refused=True), spec={}, strangers={SERVICE: None}), Severity.STALLED, Reason.INVALID_SPEC)


def test_a_source_that_is_not_allowed_comes_before_a_name_conflict() -> None:
    finding = find(strangers={SERVICE: None}, policy=SourcePolicy(allowed_hosts=()))
    expect(finding, Severity.STALLED, Reason.SOURCE_NOT_ALLOWED)


def test_a_name_conflict_comes_before_a_refused_child() -> None:
    finding = find(strangers={SERVICE: None}, refusals={DEPLOYMENT: "no"})
    expect(finding, Severity.STALLED, Reason.NAME_CONFLICT)


def test_a_strangers_secret_comes_before_the_container_that_cannot_start_for_it() -> None:
    finding = find(waiting("CreateContainerConfigError", SECRET_TEXT))
    expect(finding, Severity.STALLED, Reason.NAME_CONFLICT)


def test_a_refused_deployment_comes_before_a_quota() -> None:
    finding = find(refusals={DEPLOYMENT: "no"}, children=refused_pods("exceeded quota"))
    expect(finding, Severity.STALLED, Reason.INVALID_SPEC)


def test_a_quota_comes_before_what_the_pods_within_it_report() -> None:
    failed = reporting(AgentPhase.FAILED, reason=Reason.INVALID_MODEL, message="m")
    finding = find(failed, children=refused_pods("exceeded quota"), replicas=2)
    expect(finding, Severity.BLOCKED, Reason.QUOTA_BLOCKED)


def test_a_failed_model_comes_before_a_pod_without_a_node() -> None:
    failed = reporting(AgentPhase.FAILED, reason=Reason.INVALID_MODEL, message="m")
    expect(find(UNSCHEDULABLE, failed, replicas=2), Severity.STALLED, Reason.INVALID_MODEL)


def test_a_crash_comes_before_a_pod_without_a_node() -> None:
    finding = find(UNSCHEDULABLE, a_pod("other", containers=(CRASHING,)), replicas=2)
    expect(finding, Severity.STALLED, Reason.CRASH_LOOPING)


def test_a_missing_image_comes_before_a_crash() -> None:
    finding = find(a_pod("other", containers=(CRASHING,)), waiting("ImagePullBackOff"), replicas=2)
    expect(finding, Severity.STALLED, Reason.IMAGE_PULL_FAILED)


def test_a_pod_without_a_node_comes_before_one_that_is_starting() -> None:
    finding = find(reporting(AgentPhase.FETCHING), UNSCHEDULABLE, replicas=2)
    expect(finding, Severity.BLOCKED, Reason.WAITING_FOR_GPU)


def test_a_pod_that_its_node_ended_is_named_with_why() -> None:
    evicted = a_pod(phase="Failed", failure="Evicted: the node was low on ephemeral-storage")
    words = ("sentiment-w1-0", "low on ephemeral-storage")
    expect(find(evicted, a_pod("next")), Severity.STALLED, Reason.POD_FAILED, *words)


def test_a_pod_that_its_node_ended_is_no_news_once_others_serve() -> None:
    evicted = a_pod(phase="Failed", failure="Evicted")
    assert find(evicted, replace(reporting(AgentPhase.READY), ready=True)) is None


def test_pods_that_nobody_is_sent_to_do_not_serve_yet() -> None:
    finding = find(replace(reporting(AgentPhase.READY), ready=True), unwritten=frozenset({SERVICE}))
    expect(finding, Severity.PROGRESSING, Reason.PROGRESSING, "Service sentiment")


def test_a_child_that_a_quota_refuses_waits_for_room() -> None:
    finding = find(refusals={DEPLOYMENT: "forbidden: exceeded quota: team"})
    expect(finding, Severity.BLOCKED, Reason.QUOTA_BLOCKED, "Deployment sentiment-w1", "exceeded quota: team")


def test_a_claim_that_does_not_exist_is_a_source_that_is_not_found() -> None:
    message = '0/3 nodes are available: persistentvolumeclaim "models" not found. preemption: not helpful.'
    pod = a_pod(unschedulable_message=message)
    expect(find(pod), Severity.STALLED, Reason.SOURCE_NOT_FOUND, '"models" not found', "Create the claim")


def test_an_agent_that_never_answered_keeps_a_ready_candidate_from_the_traffic_and_is_named() -> None:
    pod = a_pod(ready=True, agent_unreachable=True)
    expect(find(pod), Severity.STALLED, Reason.AGENT_UNREACHABLE, "sentiment-w1-0", "8080", "NetworkPolicy")


def _was(reason: Reason, *, generation: int = 1) -> ModelDeploymentStatus:
    ready = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.FALSE,
        reason=reason,
        message="as it was",
        observed_generation=generation,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    return ModelDeploymentStatus(conditions=(ready,))


SERVES = replace(reporting(AgentPhase.READY), ready=True)


@pytest.mark.parametrize(
    ("reason", "severity"),
    [
        (Reason.NAME_CONFLICT, Severity.STALLED),
        (Reason.INVALID_SPEC, Severity.STALLED),
        (Reason.QUOTA_BLOCKED, Severity.BLOCKED),
    ],
)
def test_what_stood_in_a_childs_way_before_a_restart_stands_until_the_child_was_tried(
    reason: Reason, severity: Severity
) -> None:
    expect(find(SERVES, status=_was(reason), unwritten=frozenset({SERVICE})), severity, reason, "as it was")
    assert find(SERVES, status=_was(reason)) is None


@pytest.mark.parametrize("status", [_was(Reason.NAME_CONFLICT, generation=0), _was(Reason.STARTING)])
def test_what_is_over_or_was_no_obstacle_is_not_kept(status: ModelDeploymentStatus) -> None:
    found = find(SERVES, status=status, unwritten=frozenset({DEPLOYMENT}))
    assert found is None
