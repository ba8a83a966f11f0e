"""How many pods a workload is to have, and which of them leave.

A pod that serves leaves in steps, each seen before the next: it is listed in `status.traffic[].draining`; every gateway
acknowledges that; it is marked, so that the Deployment's controller takes this one; the Deployment asks for fewer. What
the pod still executes it finishes: Triton ends only after that.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from conch.api.status import TrafficShare
from conch.core.acknowledgement import in_flight
from conch.core.drain import drained
from conch.core.evictions import Evictions, evictions
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.policy import InstallationPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Staffing:
    """One workload's pods as they are to be now."""

    replicas: int
    """What the Deployment asks for."""
    leaving: tuple[str, ...] = ()
    """Pods that get nothing new, because they are about to be removed."""
    held: frozenset[str] = frozenset()
    """Pods that get nothing yet, because they are not verified."""
    removed_first: tuple[ObservedPod, ...] = ()
    """Pods to be marked before the Deployment asks for fewer."""
    evictions: Evictions = Evictions.ONE_AT_A_TIME


def staff(
    workload: str,
    wanted: int,
    before: TrafficShare | None,
    observed: Observed,
    *,
    held: frozenset[str],
    gets_share: bool,
    through_gateways: bool,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Staffing:
    """The next step towards `wanted` replicas of the workload that serves; those that are held back leave first."""
    staffing = _staffed(
        workload,
        wanted,
        before,
        observed,
        held=held,
        gets_share=gets_share,
        through_gateways=through_gateways,
        acknowledged=acknowledged,
        policy=policy,
        now=now,
    )
    # That a pod is verified is in the status, for the gateways, before its budget lets another one go.
    return replace(staffing, held=held, evictions=evictions(wanted, observed.pods_of(workload), held, now))


def _staffed(
    workload: str,
    wanted: int,
    before: TrafficShare | None,
    observed: Observed,
    *,
    held: frozenset[str],
    gets_share: bool,
    through_gateways: bool,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Staffing:
    deployment = observed.deployment_of(workload)
    pods = observed.pods_of(workload)
    target = wanted + _replacements(wanted, pods, held)
    if deployment is None or len(pods) <= target:
        return Staffing(replicas=target)
    # Without that time, those that are listed have only been held back: one that is verified by now is to stay.
    draining = held.union(before.draining if before and before.draining_since else ())
    serving = [pod for pod in leaving_first(pods, draining)[: len(pods) - target] if pod.ready]
    leaving = tuple(sorted(pod.name for pod in serving))
    unmarked = tuple(pod for pod in serving if not pod.marked_for_removal)
    as_it_is = max(deployment.replicas, target)
    if not leaving or (before is None and not gets_share):
        # Nobody sends anything to a workload that never had a share of the traffic.
        return Staffing(replicas=target)
    if not through_gateways:
        # Marked is not enough, it has to be seen: the Deployment's controller looks at pods for itself.
        return Staffing(replicas=as_it_is if unmarked else target, removed_first=unmarked)
    if (
        before is not None
        and frozenset(before.draining).issuperset(leaving)
        and drained(
            before,
            # What others are sent says nothing about the pods that leave.
            in_flight=in_flight(observed, workload) if target == 0 else 0,
            acknowledged=acknowledged,
            policy=policy,
            now=now,
        )
    ):
        replicas = as_it_is if unmarked else target
        return Staffing(replicas=replicas, leaving=leaving, removed_first=unmarked)
    return Staffing(replicas=as_it_is, leaving=leaving)


def _replacements(wanted: int, pods: tuple[ObservedPod, ...], held: frozenset[str]) -> int:
    """One, while the only replica serves from a node that is about to be drained and no other serves."""
    serving = [pod for pod in pods if pod.ready and pod.name not in held]
    return 1 if wanted == 1 and serving and all(pod.node_cordoned for pod in serving) else 0


def leaving_first(pods: tuple[ObservedPod, ...], draining: frozenset[str]) -> list[ObservedPod]:
    """In the order in which they leave, which is the Deployment controller's too once the first are marked.

    That knows nothing of what a node is about to go through: of pods that are marked already, it takes the youngest.
    """
    youngest_first = sorted(pods, key=lambda pod: pod.created, reverse=True)
    return sorted(
        youngest_first,
        key=lambda pod: (
            pod.ready,
            not pod.marked_for_removal,
            pod.name not in draining,
            not (pod.node_cordoned or pod.marked_for_removal),
        ),
    )
