"""Waiting for a node, being on the way, and which of two findings is the one to show."""

from dataclasses import replace

import pytest

from conch.api.agent_report import AgentPhase
from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.api.status import Condition, ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core.finding import UNREACHABLE, Severity
from conch.core.observed_pod import ObservedContainer
from tests.unit.test_core_findings import (
    DEPLOYMENT,
    ROUTED,
    SECRET_TEXT,
    SERVICE,
    a_gateway,
    a_pod,
    expect,
    find,
    listing,
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


CLAIMED = {
    "model": {"version": 1, "source": {"uri": "https://h/a"}},
    "gpu": {"claims": [{"name": "gpu", "resourceClaimTemplateName": "two-h100"}]},
}
NO_DEVICE = "0/3 nodes are available: 3 cannot allocate all claims. still not schedulable."


def test_a_claim_for_which_no_device_is_left_is_named_by_its_template() -> None:
    words = ("1 of 2 replicas", "two-h100 (gpu.claims)", "cannot allocate all claims", "lower replicas")
    finding = find(a_pod(unschedulable_message=NO_DEVICE), spec=CLAIMED, replicas=2)
    expect(finding, Severity.BLOCKED, Reason.WAITING_FOR_GPU, *words)


def test_a_pod_with_claims_asks_for_no_counted_gpu() -> None:
    finding = find(a_pod(unschedulable_message="1 Insufficient nvidia.com/gpu"), spec=CLAIMED)
    expect(finding, Severity.BLOCKED, Reason.UNSCHEDULABLE)


def test_a_pod_that_its_queue_does_not_admit_names_the_queue() -> None:
    spec = {"model": CLAIMED["model"], "scheduling": {"queueName": "team-a"}}
    held = a_pod(gated=True, unschedulable_message="Scheduling is blocked due to non-empty scheduling gates")
    words = ("1 of 2 replicas", "the queue team-a (scheduling.queueName)", "LocalQueue team-a", "lower replicas")
    expect(find(held, spec=spec, replicas=2), Severity.BLOCKED, Reason.QUOTA_BLOCKED, *words)


def test_a_pod_that_somebody_else_holds_back_says_so() -> None:
    held = a_pod(gated=True, unschedulable_message="Scheduling is blocked due to non-empty scheduling gates")
    expect(find(held), Severity.BLOCKED, Reason.QUOTA_BLOCKED, "non-empty scheduling gates", "has to open them")


def test_a_pod_that_fits_nowhere_for_another_cause_is_not_waiting_for_a_gpu() -> None:
    pod = a_pod(unschedulable_message="0/3 nodes are available: 3 Insufficient cpu.")
    words = ("3 Insufficient cpu", "runtime.resources", "scheduling")
    expect(find(pod), Severity.BLOCKED, Reason.UNSCHEDULABLE, *words)


def test_a_pod_that_found_its_node_waits_no_longer() -> None:
    expect(find(replace(UNSCHEDULABLE, scheduled=True)), Severity.PROGRESSING, Reason.STARTING)


SILENT = a_pod(waits_for_scheduler="volcano", created="2025-12-31T23:59:00Z")


def test_a_scheduler_that_says_nothing_for_long_is_named() -> None:
    words = ("1 of 2 replicas", "60 s", "the scheduler volcano", "scheduling.schedulerName")
    expect(find(SILENT, replicas=2), Severity.BLOCKED, Reason.UNSCHEDULABLE, *words)


def test_a_scheduler_may_take_its_time() -> None:
    expect(find(replace(SILENT, created="2025-12-31T23:59:01Z")), Severity.PROGRESSING, Reason.STARTING)


def test_a_claim_that_nobody_makes_is_named_and_not_the_scheduler() -> None:
    finding = find(replace(SILENT, missing_claims=("two-h100",)), spec=CLAIMED)
    assert finding is not None
    assert "volcano" not in finding.message
    expect(finding, Severity.BLOCKED, Reason.UNSCHEDULABLE, "ResourceClaimTemplate two-h100", "gpu.claims")


def test_a_pod_without_a_node_comes_before_one_that_nobody_has_looked_at() -> None:
    expect(find(UNSCHEDULABLE, SILENT, replicas=2), Severity.BLOCKED, Reason.WAITING_FOR_GPU)


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
    expect(find(pod), Severity.STALLED, Reason.AGENT_UNREACHABLE, "sentiment-w1-0", "8080", UNREACHABLE)


def test_a_gateway_that_does_not_answer_is_named_with_what_may_be_in_the_way() -> None:
    serving = replace(reporting(AgentPhase.READY), ready=True)
    silent = a_gateway("g1", heard=False)
    finding = find(serving, routing=ROUTED, gateways=(silent,), children=listing(silent.address))
    expect(finding, Severity.PROGRESSING, Reason.GATEWAY_SILENT, "g1", "8080", UNREACHABLE)


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
