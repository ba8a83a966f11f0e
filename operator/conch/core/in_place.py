"""A revision in the pods of another one: which of them serve which of the two, and whose turn comes next.

Two revisions of one home share a Deployment, its pods and its Service. `status.rollout.turned` says which pods are to
serve the new one; everything else in the planner sees a pod as one of the workload that stands for the revision that it
serves, as if the two had pods of their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from conch.api.agent_report import AgentPhase
from conch.api.rollout import TURNED_MOST, RolloutStatus
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.api.types import timestamp
from conch.core.drain import drained
from conch.core.evictions import evictions
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.policy import InstallationPolicy
from conch.core.staffing import Staffing, leaving_first


def shares_home(stable: ServedRevision | None, candidate: ServedRevision | None) -> bool:
    """Whether the same pods serve the two."""
    return stable is not None and candidate is not None and candidate.host == stable.home


def as_they_serve(observed: Observed, status: ModelDeploymentStatus) -> Observed:
    """The same with each pod as one of the workload whose revision it serves; seen so twice, nothing more changes.

    A pod whose agent is at another revision is not ready for its own, whatever the kubelet's probe says: that asks for
    the model by its name, which both have.
    """
    homes = _homes(status)
    if not homes:
        return observed
    return replace(observed, pods=pods_as_they_serve(observed.pods, status), homes=homes)


def pods_as_they_serve(pods: Iterable[ObservedPod], status: ModelDeploymentStatus) -> tuple[ObservedPod, ...]:
    """The same of pods alone."""
    return tuple(_as_it_serves(pod, status) for pod in pods)


def _homes(status: ModelDeploymentStatus) -> dict[str, str]:
    """The workloads that have no pods of their own -> those that have them."""
    homes = {share.workload: share.home for share in status.traffic if share.host}
    served = (each for each in (status.stable, status.candidate) if each and each.host)
    return homes | {each.workload: each.home for each in served}


def _as_it_serves(pod: ObservedPod, status: ModelDeploymentStatus) -> ObservedPod:
    served = _revision_of(pod, status)
    if served is None:
        return pod
    is_at_another = pod.report is not None and pod.report.revision not in ("", served.revision)
    return replace(pod, workload=served.workload, ready=pod.ready and not is_at_another)


def _revision_of(pod: ObservedPod, status: ModelDeploymentStatus) -> ServedRevision | None:
    """What a pod serves, or is to serve, where that cannot be told from its label."""
    stable, candidate, rollout = status.stable, status.candidate, status.rollout
    if stable is None or pod.workload != stable.home:
        return None
    if candidate is None or candidate.host != stable.home or rollout is None:
        return stable if stable.host else None
    if rollout.beside and pod.report and pod.report.revision in (stable.revision, candidate.revision):
        # It answers all the time: as the one that it was until its agent has begun to change it.
        return candidate if pod.report.revision == candidate.revision else stable
    return candidate if pod.name in rollout.turned else stable


def yet_to_turn(served: ServedRevision, observed: Observed) -> frozenset[str]:
    """Pods of a revision's home that are still at one which nobody is to serve any more: they are about to change."""
    return frozenset(
        pod.name
        for pod in observed.pods
        if pod.workload != served.workload and observed.homes.get(pod.workload, pod.workload) == served.home
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The pods of two revisions that share a home, as they are to be now."""

    staffings: Mapping[str, Staffing]
    """Of the two, by their workloads."""
    replicas: Mapping[str, int]
    """What the home's Deployment asks for."""
    rollout: RolloutStatus
    """With whose turn it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Those pods of one of the two revisions that are to go: to the other one, or for good."""

    leaving: tuple[str, ...]
    """They get nothing new."""
    turning: frozenset[str]
    """Whose turn it is: they have nothing any more."""
    removed: tuple[ObservedPod, ...]
    """Nobody needs them any more."""
    may_be_removed: bool
    """Whether these have nothing any more."""


def take_turns(
    rollout: RolloutStatus,
    stable: ServedRevision,
    candidate: ServedRevision,
    replicas: int,
    *,
    shares: tuple[TrafficShare | None, TrafficShare | None],
    held: tuple[frozenset[str], frozenset[str]],
    observed: Observed,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Turns:
    """The next step towards as many pods of each revision as the rollout wants, of an object of `replicas` pods.

    `shares` and `held` are of the stable revision and of the candidate. A pod that serves is turned once every gateway
    knows that it gets nothing new; but one that loads the new model beside the old answers all the time. No pod is
    taken from the traffic before it has prepared what it is to serve.
    """
    wanted = (rollout.stable_replicas, rollout.candidate_replicas) if replicas else (0, 0)
    pods = (observed.pods_of(stable.workload), observed.pods_of(candidate.workload))

    serving_now = {pod.name for each in pods for pod in each if pod.ready} - held[0] - held[1]

    def side(index: int) -> _Side:
        surplus = max(0, len(pods[index]) - wanted[index])
        turns = min(surplus, max(0, wanted[1 - index] - len(pods[1 - index])))
        before = shares[index]
        listed = held[index].union(before.draining if before and before.draining_since else ())
        in_order = leaving_first(pods[index], listed)
        # Where fewer pods are wanted than there are, some go for good.
        removed, rest = in_order[: surplus - turns], in_order[surplus - turns :]
        # What it served before a pod holds always.
        prepared = [pod for pod in rest if not pod.ready or index == 1 or _has_prepared(pod, candidate)]
        # Whoever is the last that serves stays until another does, or answers while it changes.
        turning = [pod for pod in prepared if not pod.ready or rollout.beside or serving_now - {pod.name}][:turns]
        serving = [pod for pod in removed if pod.ready]
        serving += [pod for pod in turning if pod.ready and not rollout.beside]
        leaving = tuple(sorted(pod.name for pod in serving))
        told = before is None or (
            frozenset(before.draining).issuperset(leaving)
            and drained(before, in_flight=0, acknowledged=acknowledged, policy=policy, now=now)
        )
        return _Side(
            # Nobody sends anything to a workload that has no share.
            leaving=leaving if before else (),
            turning=frozenset(pod.name for pod in turning if told or pod not in serving),
            removed=tuple(removed),
            may_be_removed=told or not leaving,
        )

    of_stable, of_candidate = side(0), side(1)
    there = {pod.name for each in pods for pod in each}
    turned = (there.intersection(rollout.turned) | of_stable.turning) - of_candidate.turning
    rollout = _with_turned(rollout, tuple(sorted(turned))[:TURNED_MOST])
    sides = (of_stable, of_candidate)
    unmarked = tuple(pod for each in sides for pod in each.removed if pod.ready and not pod.marked_for_removal)
    deployment = observed.deployment_of(stable.workload)
    as_it_is = max(deployment.replicas if deployment else 0, replicas)
    waits = unmarked or not all(each.may_be_removed for each in sides if each.removed)
    # Of a pod that answers all the time nobody is told that it gets nothing.
    elsewhere = frozenset() if rollout.beside else frozenset(turned) | of_candidate.turning
    unproven = frozenset() if rollout.beside else of_stable.turning
    coming = held[0] | held[1] | unproven
    # However old a pod is, while it changes it is about to come.
    seen = [replace(pod, created=timestamp(now)) if pod.name in coming else pod for each in pods for pod in each]
    may_leave = evictions(replicas, seen, coming, now)
    staffing_of_stable = Staffing(
        replicas=wanted[0],
        leaving=of_stable.leaving,
        held=held[0] | elsewhere,
        removed_first=unmarked if all(each.may_be_removed for each in sides) else (),
        evictions=may_leave,
    )
    staffing_of_candidate = Staffing(
        replicas=wanted[1], leaving=of_candidate.leaving, held=held[1] | unproven, evictions=may_leave
    )
    return Turns(
        staffings={stable.workload: staffing_of_stable, candidate.workload: staffing_of_candidate},
        replicas={stable.home: as_it_is if waits else replicas},
        rollout=rollout,
    )


def _has_prepared(pod: ObservedPod, candidate: ServedRevision) -> bool:
    """Whether a pod of the stable revision holds what it needs to serve the candidate."""
    change = pod.report.change if pod.report else None
    return (
        change is not None
        and change.revision == candidate.revision
        and change.phase is AgentPhase.READY
        and change.digest == candidate.digest
    )


def _with_turned(rollout: RolloutStatus, turned: tuple[str, ...]) -> RolloutStatus:
    if turned == rollout.turned:
        return rollout
    return rollout.model_copy(update={"turned": turned, "turn": rollout.turn + 1})
