"""What the machine is shown: everything of the cluster that a step of a rollout depends on."""

from collections.abc import Mapping, Set
from datetime import datetime
from typing import Final

from conch.api.agent_report import GoldenOutcome
from conch.api.analysis import Check, GoldenSetPolicy
from conch.api.gateway import GatewayMode
from conch.api.rollout import CheckResult, Rollout, RolloutPhase, RolloutStatus
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.api.types import bounded
from conch.core.analysis.alpha import alpha_of_each
from conch.core.analysis.copies import judge_copies
from conch.core.analysis.judge import DEFAULT_CHECK, judge
from conch.core.analysis.judgement import Judgement, Verdict, combine
from conch.core.analysis.samples import Samples
from conch.core.finding import EXCEEDED_QUOTA
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.pinning import changes_to
from conch.core.pod_trouble import failed_change, refusal_of, trouble, trouble_lasts
from conch.core.policy import InstallationPolicy
from conch.core.rollout.capacity import Fleet
from conch.core.rollout.machine import window_of
from conch.core.rollout.phases import NO_TRAFFIC_YET
from conch.core.rollout.sight import Sight
from conch.core.rollout.verified import (
    golden_error,
    golden_failure,
    golden_policy,
    open_pods,
    ready_pods,
    unproven_change,
    verified_pods,
)

_GOLDEN_SET: Final = "goldenSet"
_SUCCESS_RATE: Final = "successRate"
_TRAFFIC: Final = "traffic"
_WORDS_MOST: Final = 1500
"""Of others' words; they become parts of messages."""


def look(
    rollout: RolloutStatus,
    *,
    spec: ModelDeploymentSpec,
    stable: ServedRevision,
    candidate: ServedRevision,
    wanted: str,
    listed: Mapping[str, Set[str]],
    observed: Observed,
    acknowledged: bool,
    through_gateways: bool,
    misfit: str | None,
    policy: InstallationPolicy,
    now: datetime,
) -> Sight:
    """See how the two revisions of a rollout that is under way are.

    `listed` are, by workload, the pods that get nothing new by what status says; `misfit` is why pods cannot change to
    the candidate in place.
    """
    golden = golden_policy(spec)
    pods = observed.pods_of(candidate.workload)
    no_room, since = _no_room(pods, candidate, rollout, observed)
    verdict, checks = _judged(rollout, spec, stable, candidate, observed, through_gateways=through_gateways)
    preparing = tuple(changes_to(candidate, observed))
    found = trouble(pods, now) or failed_change(preparing)
    told = f"{found.reason}: {found.message}" if found else golden_error(pods, golden)
    return Sight(
        policy=_policy(spec),
        replicas=spec.desired_replicas,
        fleet=_fleet(rollout, stable, candidate, observed, golden, listed),
        candidate_started=len(ready_pods(candidate, observed)),
        trouble=bounded(told, _WORDS_MOST),
        trouble_lasts=trouble_lasts(pods, now) or failed_change(preparing, lasting=True) is not None,
        no_room=bounded(no_room, _WORDS_MOST),
        no_room_for_long=since is not None and now - since >= policy.surge_patience,
        golden_failure=bounded(golden_failure(pods, golden) or unproven_change(preparing, golden), _WORDS_MOST),
        verdict=verdict,
        copies=observed.copies,
        checks=checks,
        superseded=wanted not in (stable.revision, candidate.revision),
        acknowledged=acknowledged,
        through_gateways=through_gateways,
        misfit=misfit,
        refused=bounded(next(filter(None, map(refusal_of, preparing)), ""), _WORDS_MOST),
        stable_lost_patience=policy.stable_lost_patience,
        now=now,
    )


def _policy(spec: ModelDeploymentSpec) -> Rollout:
    """Without what only Conch's gateways do, where requests do not go through them."""
    copies = spec.gateway.mode is GatewayMode.GATEWAY
    return spec.rollout if copies else spec.rollout.model_copy(update={"shadow": None})


def look_back(
    rollout: RolloutStatus,
    *,
    replicas: int,
    stable: ServedRevision,
    candidate: ServedRevision,
    listed: Mapping[str, Set[str]],
    observed: Observed,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Sight:
    """The same of a rollout on its way back, where the spec cannot be read: nothing is judged any more."""
    return Sight(
        policy=Rollout(),
        replicas=replicas,
        fleet=_fleet(rollout, stable, candidate, observed, GoldenSetPolicy.IF_PRESENT, listed),
        candidate_started=len(ready_pods(candidate, observed)),
        verdict=Verdict.INCONCLUSIVE,
        checks=rollout.checks,
        acknowledged=acknowledged,
        stable_lost_patience=policy.stable_lost_patience,
        now=now,
    )


def _fleet(
    rollout: RolloutStatus,
    stable: ServedRevision,
    candidate: ServedRevision,
    observed: Observed,
    golden: GoldenSetPolicy,
    listed: Mapping[str, Set[str]],
) -> Fleet:
    return Fleet(
        stable_ready=len(open_pods(stable, observed, golden, listed.get(stable.workload, frozenset()))),
        stable_left=len(observed.pods_left(stable.workload)),
        candidate_ready=_candidate_ready(
            rollout, candidate, observed, golden, listed.get(candidate.workload, frozenset())
        ),
        candidate_left=len(observed.pods_left(candidate.workload)),
    )


def _candidate_ready(
    rollout: RolloutStatus,
    candidate: ServedRevision,
    observed: Observed,
    golden: GoldenSetPolicy,
    listed: Set[str],
) -> int:
    """How many of its pods are verified; or were, and are ready and not heard now.

    After a start of the operator no agent has been asked yet, after one of an agent its golden set is replayed once
    more: neither may take the traffic from pods that serve.
    """
    verified = verified_pods(candidate, observed, golden)
    others = (pod for pod in open_pods(candidate, observed, golden, listed) if pod not in verified)
    unheard = sum(1 for pod in others if pod.report is None or pod.report.golden is None)
    return max(len(verified), min(rollout.ready, len(verified) + unheard))


def _no_room(
    pods: tuple[ObservedPod, ...], candidate: ServedRevision, rollout: RolloutStatus, observed: Observed
) -> tuple[str, datetime | None]:
    """Why a pod of the candidate finds no place; and since when, if a place of the old ones may be what is missing.

    A pod that no node may run, or whose volume is not there, would not run in their place either.
    """
    for pod in pods:
        if pod.unschedulable_message and not pod.scheduled:
            since = datetime.fromisoformat(pod.created) if pod.lacks_room and pod.created else None
            return pod.unschedulable_message.rstrip(". "), since
    deployment = observed.deployment_of(candidate.workload)
    if deployment and EXCEEDED_QUOTA in deployment.creation_error and len(pods) < deployment.replicas:
        # Of a quota nobody tells since when; at its first pods it is since the rollout began.
        begins = rollout.phase in NO_TRAFFIC_YET
        return deployment.creation_error, datetime.fromisoformat(rollout.started_at) if begins else None
    return "", None


def _judged(
    rollout: RolloutStatus,
    spec: ModelDeploymentSpec,
    stable: ServedRevision,
    candidate: ServedRevision,
    observed: Observed,
    *,
    through_gateways: bool,
) -> tuple[Verdict, tuple[CheckResult, ...]]:
    """What all checks together say, and each of them."""
    golden = () if golden_policy(spec) is GoldenSetPolicy.IGNORED else _golden_result(candidate, observed)
    name = window_of(rollout)
    if not through_gateways:
        # Nobody counts; the pods' own health is all that is known.
        return Verdict.PASS, golden
    shadow = _policy(spec).shadow if rollout.phase is RolloutPhase.SHADOWING else None
    if name is None and shadow is None:
        kept = tuple(check for check in rollout.checks if check.name != _GOLDEN_SET)
        return Verdict.INCONCLUSIVE, (*golden, *kept)
    if silence := _silence(spec, candidate, observed):
        result = CheckResult(name=_TRAFFIC, verdict=Verdict.ERROR, message=silence)
        return Verdict.ERROR, (*golden, result)
    if shadow is not None:
        verdict, results = judge_copies(shadow, observed.copies)
        return verdict, (*golden, *results)
    window = observed.window if observed.window and observed.window.name == name else None
    # At a step it has all of them where one pod has taken the place of the only other: that compares nothing.
    alone = rollout.weight == 100 and rollout.step >= len(rollout.steps)
    windows = len(rollout.steps) + 1
    of_candidate = window.samples.get(candidate.workload, Samples()) if window else Samples()
    of_stable = window.samples.get(stable.workload, Samples()) if window else Samples()
    declared = [check for check in spec.rollout.analysis or () if not check.golden_set]
    if not declared and spec.rollout.analysis != ():
        judgement = judge(DEFAULT_CHECK, of_candidate, of_stable, alpha=alpha_of_each(windows=windows, checks=1))
        verdict = Verdict.FAIL if judgement.verdict is Verdict.FAIL else Verdict.PASS
        return verdict, (*golden, _result(_SUCCESS_RATE, judgement))
    alpha = alpha_of_each(windows=windows, checks=max(1, len(declared)))
    judged = [
        (
            check.name,
            _alone(of_candidate) if alone and _compares(check) else judge(check, of_candidate, of_stable, alpha=alpha),
        )
        for check in declared
    ]
    results = tuple(_result(name, judgement) for name, judgement in judged)
    return combine(judgement for _, judgement in judged), (*golden, *results)


def _silence(spec: ModelDeploymentSpec, candidate: ServedRevision, observed: Observed) -> str:
    """Why nobody tells how requests fare; empty where somebody does."""
    if spec.gateway.mode is GatewayMode.GATEWAY_API:
        told = any(pod.report and pod.report.inference for pod in observed.pods_of(candidate.workload))
        return "" if told or spec.rollout.analysis == () else "no agent of its pods tells what Triton counts"
    return "" if any(gateway.heard for gateway in observed.gateways) else "no gateway answers the operator"


def _compares(check: Check) -> bool:
    """Whether it needs the stable revision's requests too."""
    return check.latency is not None and check.latency.max_ratio_to_stable is not None


def _alone(candidate: Samples) -> Judgement:
    """Of a comparison where there is nothing to compare with: what was compared was so at the steps before."""
    message = "not compared any more: all requests go to the new revision"
    return Judgement(verdict=Verdict.PASS, samples=candidate.requests, message=message)


def _result(name: str, judgement: Judgement) -> CheckResult:
    return CheckResult(
        name=name,
        verdict=judgement.verdict.value,
        value=_rounded(judgement.value),
        limit=_rounded(judgement.limit),
        samples=judgement.samples,
        message=judgement.message,
    )


def _rounded(value: float | None) -> float | None:
    """Short enough to be read, and to be the same after a way through JSON."""
    return None if value is None else float(f"{value:.4g}")


def _golden_result(candidate: ServedRevision, observed: Observed) -> tuple[CheckResult, ...]:
    """Of the pod that has most to say: the first that does not pass, else the first."""
    told = [pod.report.golden for pod in observed.pods_of(candidate.workload) if pod.report and pod.report.golden]
    worst = next((each for each in told if each.outcome is not GoldenOutcome.PASSED), told[0] if told else None)
    if worst is None or worst.outcome is GoldenOutcome.ABSENT:
        return ()
    return (
        CheckResult(
            name=_GOLDEN_SET,
            verdict={GoldenOutcome.PASSED: Verdict.PASS, GoldenOutcome.FAILED: Verdict.FAIL}.get(
                worst.outcome, Verdict.ERROR
            ).value,
            value=float(worst.mismatches),
            limit=0.0,
            samples=worst.samples,
            message=worst.message,
        ),
    )
