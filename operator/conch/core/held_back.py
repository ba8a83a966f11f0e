"""Which pods get nothing yet: each one's own answers are held against the golden set before it is sent a request.

A revision is verified by its first pods. Those that it gets later (with more of the traffic, in the place of a pod that
crashed, by scaling) are pods on other nodes and GPUs, so each is held back until it is verified itself. A gateway sends
to a pod as soon as the kubelet calls it ready, so it has to be listed in `status.traffic[].draining` while it starts.

That list is the memory too: a pod that is ready and not in it has been verified once, and stays in the traffic while
nobody can say more of it (the operator or its agent has just started). So nothing flaps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from conch.api.agent_report import GoldenOutcome
from conch.api.analysis import GoldenSetPolicy
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.observed import Observed
from conch.core.observed_pod import ObservedPod
from conch.core.rollout.verified import answers_as_recorded
from conch.core.succession import Succession

NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Of one workload."""

    waiting: frozenset[str]
    """Not verified yet."""
    refuted: frozenset[str]
    """They answer otherwise than recorded."""
    has_open: bool
    """Whether another of its pods is ready."""


def held_back(
    status: ModelDeploymentStatus, succession: Succession, observed: Observed, golden: GoldenSetPolicy | None
) -> Mapping[str, frozenset[str]]:
    """Names of the pods that get nothing before they are verified, by workload.

    `golden` is None where the spec cannot be read: then nobody is added. Where no pod of the object would be left that
    may be sent something, unverified ones are better than none; but one of a candidate that was found to answer
    otherwise is not.
    """
    if golden is GoldenSetPolicy.IGNORED:
        return {}
    found: dict[ServedRevision, _Held] = {}
    for served in succession.workloads:
        before = next((share for share in status.traffic if share.workload == served.workload), None)
        if before is not None or succession.is_due(served):
            found[served] = _of(served, before, observed, golden, proven=served == succession.stable)
    if any(held.has_open for held in found.values()):
        return {served.workload: held.waiting | held.refuted for served, held in found.items()}
    return {served.workload: NOBODY if served == succession.stable else held.refuted for served, held in found.items()}


def _of(
    served: ServedRevision,
    before: TrafficShare | None,
    observed: Observed,
    golden: GoldenSetPolicy | None,
    *,
    proven: bool,
) -> _Held:
    """`proven`: whether it is the stable revision, whose files are known to be good."""
    # Of files that are proven, that none of them is a golden set says nothing: the policy is of a later spec.
    policy = GoldenSetPolicy.IF_PRESENT if proven or golden is None else golden
    listed = frozenset(before.draining) if before else None
    waiting, refuted, has_open = set(), set(), False
    for pod in observed.pods_of(served.workload):
        if _is_refuted(pod, policy):
            refuted.add(pod.name)
        elif (
            not answers_as_recorded(pod, served, policy)
            # The kubelet's word has to do, once the revision is proven.
            and not (proven and pod.cannot_be_asked)
            and _is_kept_waiting(pod, listed, proven=proven)
        ):
            waiting.add(pod.name)
        else:
            has_open |= pod.ready
    if golden is None:
        known = listed or NOBODY
        has_open |= any(pod.ready and pod.name not in known for pod in observed.pods_of(served.workload))
        waiting, refuted = waiting & known, refuted & known
    return _Held(waiting=frozenset(waiting), refuted=frozenset(refuted), has_open=has_open)


def _is_kept_waiting(pod: ObservedPod, listed: frozenset[str] | None, *, proven: bool) -> bool:
    """Of a pod that is not verified: whether it has had nothing until now."""
    if not pod.ready:
        return True
    if listed is None:
        return not proven
    return pod.name in listed


def _is_refuted(pod: ObservedPod, policy: GoldenSetPolicy) -> bool:
    told = pod.report.golden if pod.report else None
    if told is None:
        return False
    absent = told.outcome is GoldenOutcome.ABSENT and policy is GoldenSetPolicy.REQUIRED
    return absent or told.outcome is GoldenOutcome.FAILED
