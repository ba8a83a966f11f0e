"""What `conch why` makes of an object, its pods and its Events: pure, on objects as the API server gives them."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api import names
from conch.api.agent_report import AgentPhase, GoldenOutcome
from conch.api.gateway import GatewayMode
from conch.api.reasons import Reason
from conch.api.rollout import CheckResult, RollbackCause, RolloutPhase
from conch.api.source_policy import SourcePolicy
from conch.api.status import Condition, ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.core import findings
from conch.core.finding import Finding
from conch.core.findings import CHECKS
from conch.core.observed_child import ROUTE_KINDS
from conch.core.observed_pod import ObservedContainer
from conch.core.rollout.phases import FAILURES
from conch.why.chain import LOOKED, explain
from conch.why.gather import Seen
from conch.why.report import Outcome, Report
from tests.unit.test_core_findings import (
    DEPLOYMENT,
    DIRECT,
    ROUTED,
    SECRET_TEXT,
    SERVICE,
    a_gateway,
    a_pod,
    find,
    listing,
    refused_pods,
    reporting,
    waiting,
)
from tests.unit.test_core_findings_rollout import ANALYSED, answering, rejecting, rolling

DIGEST = f"sha256:{'ab' * 32}"
CHAIN = [LOOKED, *(check.__name__ for check in CHECKS)]


def condition(type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def body(
    *conditions: dict[str, Any], check: str = "", seen: int = 1, spec: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": "sentiment", "namespace": "team-a", "uid": "uid", "generation": 1, "resourceVersion": "1"},
        "spec": {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}, **(spec or {})},
        "status": {
            "observedGeneration": seen,
            "conditions": list(conditions),
            "display": {"check": check} if check else {},
            **status,
        },
    }


def not_ready(check: str, reason: str = "Starting", message: str = "m", **fields: Any) -> dict[str, Any]:
    return body(condition("Ready", "False", reason, message), check=check, **fields)


def a_live_pod(name: str, *, workload: str = "w1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {names.LABEL_MODEL_DEPLOYMENT: "sentiment", names.LABEL_WORKLOAD: workload},
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Pending", **status},
    }


def a_warning(kind: str, name: str, at: str, *, uid: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.{at}", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": kind, "name": name, "uid": uid},
        "type": "Warning",
        "reason": "BackOff",
        "message": f"at {at}",
        "lastTimestamp": f"2026-01-01T00:{at}:00Z",
        **fields,
    }


def a_deployment(workload: str, *, owner: str = "uid", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"sentiment-{workload}",
            "uid": workload,
            "resourceVersion": "1",
            "labels": {names.LABEL_WORKLOAD: workload},
            "ownerReferences": [{"kind": names.KIND, "name": "sentiment", "uid": owner, "controller": True}],
        },
        "spec": {"replicas": 2},
        "status": status,
    }


def failed(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.outcome is Outcome.FAILED]


@dataclass(frozen=True)
class Case:
    """One finding that a check makes."""

    check: str
    finding: Finding | None


REFUSED_KEY = waiting("CreateContainerConfigError", SECRET_TEXT)
SILENT = a_pod(waits_for_scheduler="volcano", created="2025-12-31T23:00:00Z")
CRASHING = a_pod(containers=(ObservedContainer(name="triton", restarts=5, waiting_reason="CrashLoopBackOff"),))
SERVES = a_pod(ready=True, report=reporting(AgentPhase.READY).report)
BEFORE = ModelDeploymentStatus(
    conditions=(
        Condition(
            type=ConditionType.READY,
            status=ConditionStatus.FALSE,
            reason=Reason.NAME_CONFLICT,
            observed_generation=1,
            last_transition_time="2026-01-01T00:00:00Z",
        ),
    )
)
NO_CLAIM = 'persistentvolumeclaim "models" not found'

OTHER_FILES = replace(reporting(AgentPhase.READY, digest=f"sha256:{'cd' * 32}"), ready=True)

UNDECIDED = (CheckResult(name="successRate", verdict="Inconclusive", message="too few samples yet"),)
UNHEARD = a_gateway("g1", heard=False)
BY_ROUTES = {
    "model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}},
    "gateway": {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}]},
}
WITH_ROUTES = replace(DIRECT, exposure=replace(DIRECT.exposure, mode=GatewayMode.GATEWAY_API), by_routes=True)
UNLISTED = replace(ROUTED, exposure=replace(ROUTED.exposure, listed=()))

CASES = [
    Case("spec_is_readable", find(spec={})),
    Case("source_is_allowed", find(policy=SourcePolicy(allowed_hosts=()))),
    Case("gateway_api_is_installed", find(spec=BY_ROUTES, absent_kinds=frozenset(ROUTE_KINDS))),
    Case(
        "gateways_accept_the_routes",
        find(SERVES, spec=BY_ROUTES, routing=WITH_ROUTES, absent_kinds=frozenset()),
    ),
    Case("names_are_free", find(strangers={SERVICE: None})),
    Case("admin_key_is_ours", find(REFUSED_KEY)),
    Case("children_are_accepted", find(refusals={DEPLOYMENT: "no"})),
    Case("children_are_accepted", find(refusals={DEPLOYMENT: "exceeded quota"})),
    Case("earlier_obstacles_are_gone", find(SERVES, status=BEFORE, unwritten=frozenset({SERVICE}))),
    Case("pods_can_be_created", find(children=refused_pods("exceeded quota"))),
    Case("pods_can_be_created", find(children=refused_pods("forbidden"))),
    Case("agents_report_no_failure", find(reporting(AgentPhase.FAILED, message="m"))),
    Case("images_are_pulled", find(waiting("ErrImagePull"))),
    Case("containers_are_configured", find(waiting("CreateContainerError"))),
    Case("containers_keep_running", find(CRASHING)),
    Case("pods_are_not_evicted", find(a_pod(phase="Failed", failure="Evicted"))),
    Case("pods_have_volumes", find(a_pod(unschedulable_message=NO_CLAIM))),
    Case("pods_have_volumes", find(a_pod(unschedulable_message="didn't find persistent volumes to bind"))),
    Case("pods_have_a_node", find(a_pod(unschedulable_message="Insufficient nvidia.com/gpu"))),
    Case("pods_have_a_node", find(a_pod(unschedulable_message="Insufficient cpu"))),
    Case("a_scheduler_looks_at_the_pods", find(SILENT)),
    Case("a_scheduler_looks_at_the_pods", find(replace(SILENT, missing_claims=("one-gpu",)))),
    Case("agents_can_be_asked", find(a_pod(ready=True, agent_unreachable=True))),
    Case("pods_serve_the_pinned_files", find(OTHER_FILES, digest=f"sha256:{'ab' * 32}")),
    Case("nodes_answer", find(a_pod(node_lost=True))),
    Case("replicas_are_ready", find()),
    Case("replicas_are_ready", find(SERVES, replicas=2)),
    Case("replicas_are_ready", find(reporting(AgentPhase.FETCHING))),
    Case("replicas_are_ready", find(reporting(AgentPhase.LOADING))),
    Case("a_port_is_free", find(routing=replace(ROUTED, exposure=replace(ROUTED.exposure, port=None)))),
    Case("gateways_are_there", find(SERVES, routing=ROUTED)),
    Case("gateways_route", find(SERVES, routing=ROUTED, gateways=(a_gateway("g1"),))),
    Case("gateways_route", find(SERVES, routing=ROUTED, gateways=(a_gateway("g1", rejected=True),))),
    Case("gateways_route", find(SERVES, routing=ROUTED, gateways=(UNHEARD,), children=listing(UNHEARD.address))),
    Case("service_sends_to_it", find(SERVES, unwritten=frozenset({SERVICE}))),
    Case("service_sends_to_it", find(SERVES, routing=UNLISTED, gateways=(a_gateway("g1", generation="g2"),))),
    *(
        Case("revision_is_not_rejected", find(SERVES, succession=rejecting(cause)))
        for cause in RollbackCause
        if cause in FAILURES
    ),
    Case(
        "the_way_back_is_over",
        find(SERVES, succession=rolling(RolloutPhase.ROLLING_BACK, cause=RollbackCause.ABORTED)),
    ),
    Case("the_golden_set_passes", find(answering(GoldenOutcome.FAILED))),
    Case("the_golden_set_passes", find(answering(GoldenOutcome.ERROR))),
    Case("the_rollout_is_over", find(SERVES, succession=rolling())),
    Case("the_rollout_is_over", find(SERVES, succession=rolling(paused=True))),
    Case("the_rollout_is_over", find(SERVES, succession=rolling(observed_since="2026-01-01T00:00:00Z"))),
    Case(
        "the_rollout_is_over",
        find(
            SERVES,
            spec=ANALYSED,
            succession=rolling(step=1, observed_since="2026-01-01T00:00:00Z", checks=UNDECIDED),
        ),
    ),
    *(
        Case("agents_report_no_failure", find(reporting(AgentPhase.FAILED, reason=reason, message="m")))
        for reason in Reason
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}-{case.finding and case.finding.reason}")
def test_a_finding_stands_at_its_check_with_all_before_it_passed_and_none_after_it_looked_at(case: Case) -> None:
    found = case.finding
    assert found is not None
    report = explain(Seen(body=not_ready(found.check, found.reason, found.message)))
    assert found.check == case.check
    here = CHAIN.index(case.check)
    marks = [Outcome.PASSED] * here + [Outcome.FAILED] + [Outcome.NOT_REACHED] * (len(CHAIN) - here - 1)
    assert [(check.name, check.outcome) for check in report.checks] == list(zip(CHAIN, marks, strict=True))
    assert (report.reason, report.message) == (found.reason, found.message)


def test_every_check_and_every_reason_of_the_checks_is_among_the_cases() -> None:
    folder = Path(findings.__file__).parent
    named = {match for path in folder.glob("*.py") for match in re.findall(r"Reason\.([A-Z_]+)", path.read_text())}
    assert {Reason[name] for name in named} <= {case.finding.reason for case in CASES if case.finding}
    assert {case.check for case in CASES} == {check.__name__ for check in CHECKS}


def test_every_check_says_in_one_sentence_what_holds() -> None:
    report = explain(Seen(body=not_ready("names_are_free")))
    assert [check.holds for check in report.checks if not re.fullmatch(r"[A-Z][^;:]+\.", check.holds)] == []
    assert len({check.holds for check in report.checks}) == len(report.checks)


@given(
    check=st.one_of(st.sampled_from(CHAIN[1:]), st.text(max_size=20)),
    seen=st.integers(0, 2),
    status=st.sampled_from(["True", "False", "Unknown", None]),
)
def test_exactly_one_check_has_failed_unless_the_object_is_ready(check: str, seen: int, status: str | None) -> None:
    conditions = [condition("Ready", status, "Starting")] if status else []
    report = explain(Seen(body=body(*conditions, check=check, seen=seen)))
    assert len(failed(report)) == (0 if report.ready else 1)
    assert report.ready == (status == "True" and seen >= 1)
    assert report.next_step


def test_a_ready_object_has_passed_every_check() -> None:
    report = explain(Seen(body=body(condition("Ready", "True", "Serving", "1 of 1 replicas serve version 1."))))
    assert report.ready
    assert {check.outcome for check in report.checks} == {Outcome.PASSED}
    assert report.next_step == "Nothing: it serves."


@pytest.mark.parametrize("status", [{}, {"conditions": [condition("Ready", "Unknown", "NotObserved")]}, None])
def test_an_object_that_nobody_looked_at_says_how_to_look_for_the_operator(status: dict[str, Any] | None) -> None:
    new = body()
    if status is None:
        del new["status"]
    else:
        new["status"] = status
    report = explain(Seen(body=new))
    assert (report.observed, report.ready, failed(report)) == (False, False, [LOOKED])
    assert "kubectl get pods -A -l app.kubernetes.io/name=conch" in report.next_step


def test_a_status_that_is_older_than_the_spec_is_not_used() -> None:
    old = body(condition("Ready", "True", "Serving"), seen=1)
    old["metadata"]["generation"] = 2
    report = explain(Seen(body=old))
    assert (report.ready, report.since, failed(report)) == (False, None, [LOOKED])
    assert {check.outcome for check in report.checks[1:]} == {Outcome.NOT_REACHED}


@pytest.mark.parametrize("check", ["of_tomorrow", ""])
def test_a_check_of_another_version_is_shown_without_a_place_among_the_others(check: str) -> None:
    report = explain(Seen(body=not_ready(check, "OfTomorrow")))
    assert failed(report) == [check]
    assert [each.outcome for each in report.checks[:2]] == [Outcome.PASSED, Outcome.FAILED]
    assert {each.outcome for each in report.checks[2:]} == {Outcome.NOT_REACHED}
    assert report.reason == "OfTomorrow"


def test_a_suspended_object_says_so_and_how_to_serve_again() -> None:
    ready = condition("Ready", "True", "Suspended", "Suspended; set spec.suspend to false to serve again.")
    report = explain(Seen(body=body(ready, spec={"suspend": True})))
    assert report.ready
    assert "suspended" in report.notes[0]
    assert "spec.suspend to false" in report.next_step


def test_an_object_that_wants_no_replicas_says_so_and_how_to_get_one() -> None:
    report = explain(Seen(body=body(condition("Ready", "True", "NoReplicas"), spec={"replicas": 0})))
    assert "No replicas are wanted" in report.notes[0]
    assert "kubectl scale mdep sentiment -n team-a --replicas=1" in report.next_step


def test_an_object_that_is_being_deleted_says_what_holds_it() -> None:
    going = not_ready("replicas_are_ready")
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    assert "foregroundDeletion" in explain(Seen(body=going)).notes[0]


@pytest.mark.parametrize(
    ("type_", "words"), [("Stalled", "Somebody has to act. m"), ("CapacityBlocked", "goes on by itself"), ("", "-w")]
)
def test_the_next_step_tells_waiting_from_acting(type_: str, words: str) -> None:
    why = [condition("Ready", "False", "X", "m"), *([condition(type_, "True", "X", "m")] if type_ else [])]
    assert words in explain(Seen(body=body(*why, check="replicas_are_ready"))).next_step


def test_a_candidate_beside_what_serves_and_the_pods_of_both() -> None:
    served = {"revision": "r", "digest": DIGEST, "resolved": "abc"}
    seen = Seen(
        body=body(
            condition("Ready", "False", "Loading"),
            condition("Available", "True", "Serving", "2 replicas serve version 1."),
            check="replicas_are_ready",
            stable={**served, "version": 1, "workload": "w1"},
            candidate={**served, "version": 2, "workload": "w2"},
        ),
        pods=(
            a_live_pod("old", conditions=[{"type": "Ready", "status": "True"}]),
            a_live_pod("new", workload="w2"),
            a_live_pod("gone", workload="w0"),
        ),
        deployments=(a_deployment("w1"), a_deployment("w2", owner="somebody else")),
        warnings=(),
    )
    report = explain(seen)
    assert [(row.role, row.version, row.replicas) for row in report.revisions] == [
        ("stable", 1, 2),
        ("candidate", 2, None),
    ]
    assert report.pods is not None
    assert [(pod.name, pod.role) for pod in report.pods] == [("gone", ""), ("new", "candidate"), ("old", "stable")]
    assert report.notes == ("Meanwhile: 2 replicas serve version 1.",)


def test_a_deployment_whose_pods_are_refused_says_why() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}
    served = {"revision": "r", "version": 1, "workload": "w1"}
    seen = Seen(
        body=not_ready("pods_can_be_created", candidate=served),
        deployments=(a_deployment("w1", conditions=[refused]),),
    )
    assert explain(seen).revisions[0].creation_error == "exceeded quota: team"


def test_a_pod_is_seen_with_its_containers_and_its_last_exit() -> None:
    ended = {"reason": "Error", "exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}
    triton = {
        "name": "triton",
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}},
        "lastState": {"terminated": ended},
    }
    report = explain(
        Seen(body=not_ready("containers_keep_running"), pods=(a_live_pod("p", containerStatuses=[triton]),))
    )
    assert report.pods is not None
    (pod,) = report.pods
    (container,) = pod.containers
    assert (pod.node, pod.phase, pod.ready) == ("node-1", "Pending", False)
    assert (container.restarts, container.waiting_reason) == (4, "CrashLoopBackOff")
    assert (container.last_exit, container.last_exit_at) == ("Error, exit code 1", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
                ]
            },
            "no GPU",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Evicted: disk"),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]},
            "does not answer",
        ),
    ],
)
def test_a_pods_own_problem_is_told(status: dict[str, Any], words: str) -> None:
    report = explain(Seen(body=not_ready("replicas_are_ready"), pods=(a_live_pod("p", **status),)))
    assert report.pods is not None
    assert words in report.pods[0].problem


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ([], "the scheduler volcano has said nothing of it yet"),
        ([{"name": "gpu", "resourceClaimTemplateName": "two-h100"}], "no claim of two-h100 has been made for it yet"),
    ],
)
def test_a_pod_that_no_scheduler_has_looked_at_says_whose_word_is_missing(claims: list[Any], words: str) -> None:
    pod = {**a_live_pod("p"), "spec": {"schedulerName": "volcano", "resourceClaims": claims}}
    report = explain(Seen(body=not_ready("a_scheduler_looks_at_the_pods"), pods=(pod,)))
    assert report.pods is not None
    assert report.pods[0].problem == words


def test_warnings_are_those_of_the_object_and_its_pods_in_the_order_of_time() -> None:
    events = (
        a_warning("Pod", "sentiment-w1-abc-1", "30"),
        a_warning(names.KIND, "sentiment", "10", uid="uid"),
        a_warning(names.KIND, "sentiment", "11", uid="of a namesake before it"),
        a_warning("ReplicaSet", "sentiment-w1-abc", "20", count=7),
        a_warning("Deployment", "sentiment-w1", "05"),
        a_warning("Pod", "sentiment-w10-abc-1", "40"),
        a_warning("Pod", "other", "50"),
        a_warning("Node", "sentiment-w1", "55"),
    )
    candidate = {"revision": "r", "version": 1, "workload": "w1"}
    report = explain(Seen(body=not_ready("pods_have_a_node", candidate=candidate), warnings=events))
    assert report.warnings is not None
    assert [(each.regarding, each.count) for each in report.warnings] == [
        ("Deployment sentiment-w1", 1),
        ("ModelDeployment sentiment", 1),
        ("ReplicaSet sentiment-w1-abc", 7),
        ("Pod sentiment-w1-abc-1", 1),
    ]


def test_only_the_last_warnings_are_kept() -> None:
    events = tuple(a_warning(names.KIND, "sentiment", f"{minute:02}", uid="uid") for minute in range(40))
    report = explain(Seen(body=not_ready("replicas_are_ready"), warnings=events))
    assert report.warnings is not None
    assert [each.message for each in report.warnings] == [f"at {minute:02}" for minute in range(30, 40)]


@pytest.mark.parametrize(
    ("dates", "at"),
    [
        ({"lastTimestamp": None, "eventTime": "2026-02-01T00:00:00.123456Z"}, "2026-02-01T00:00:00Z"),
        ({"lastTimestamp": None}, "2026-01-01T00:00:00Z"),
        ({"series": {"count": 3, "lastObservedTime": "2026-03-01T00:00:00.000000Z"}}, "2026-03-01T00:00:00Z"),
    ],
)
def test_an_event_is_dated_by_whatever_date_it_has(dates: dict[str, Any], at: str) -> None:
    event = a_warning(names.KIND, "sentiment", "01", uid="uid") | dates
    report = explain(Seen(body=not_ready("replicas_are_ready"), warnings=(event,)))
    assert report.warnings is not None
    assert report.warnings[0].at == at


def test_what_could_not_be_read_is_null_and_said() -> None:
    report = explain(Seen(body=not_ready("replicas_are_ready"), left_out=("You may not list pods.",)))
    assert (report.pods, report.warnings, report.left_out) == (None, None, ("You may not list pods.",))


def test_the_json_has_every_field_in_every_case() -> None:
    """Who reads it with jq relies on this list; fields may be added."""
    wire = explain(Seen(body=body())).model_dump(mode="json")
    assert list(wire) == [
        "namespace",
        "name",
        "ready",
        "observed",
        "reason",
        "message",
        "since",
        "notes",
        "checks",
        "revisions",
        "pin",
        "fetch",
        "cache",
        "autoscaling",
        "pods",
        "warnings",
        "leftOut",
        "nextStep",
    ]
    assert wire["checks"][0] == {
        "name": "operator_has_looked",
        "holds": "The operator has looked at the spec as it is now.",
        "outcome": "Failed",
    }
    pods = explain(Seen(body=body(), pods=(a_live_pod("p", containerStatuses=[{"name": "triton"}]),))).model_dump()
    assert list(pods["pods"][0]) == [
        "name",
        "role",
        "phase",
        "ready",
        "deleting",
        "node",
        "createdAt",
        "problem",
        "containers",
    ]
    assert list(pods["pods"][0]["containers"][0]) == [
        "name",
        "ready",
        "restarts",
        "waitingReason",
        "waitingMessage",
        "lastExit",
        "lastExitAt",
    ]
