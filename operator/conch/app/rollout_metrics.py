"""Models and their rollouts for Prometheus: read from the objects' status at each scrape, so nothing of it is stale.

A standby knows the same objects, and two processes telling of one are counted twice. So whoever leads registers this,
for as long as it leads. The counters stand in every process: each status is counted by who wrote it, and their sum is
right whoever leads.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from conch.api.command import Verb
from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import RollbackCause, RolloutStatus
from conch.api.shadow import ShadowStatus
from conch.api.status import ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.app import metrics
from conch.app.cluster_view import ClusterView
from conch.core.rollout.phases import UNDER_WAY

_OBJECT: Final = ("namespace", "name")
_WORKLOAD: Final = (*_OBJECT, "workload", "revision", "version", "role")
_CHECK: Final = (*_OBJECT, "check")
_KINDS: Final = (
    "goldenSet",
    "successRate",
    "latency absolute",
    "latency relative",
    "queueTime",
    "traffic",
    "shadowAnswers",
    "shadowLatency",
)
_PERCENTILE: Final = re.compile(r"p[0-9.e+-]+")


class _Role(StrEnum):
    """What a workload is to its object."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    RETIRING = "retiring"
    """It only finishes what it has. Status does not say which version that is: its label is empty."""


class _Outcome(StrEnum):
    DONE = "done"
    ROLLED_BACK = "rolled_back"


# A counter that begins with its first event shows no increase by it.
metrics.ROLLOUTS.labels(_Outcome.DONE.value, "")
for _cause in RollbackCause:
    metrics.ROLLOUTS.labels(_Outcome.ROLLED_BACK.value, _cause.value)
for _verb in Verb:
    for _accepted in ("true", "false"):
        metrics.COMMANDS.labels(_verb.value, _accepted)


def count_changes(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
    """Count what a status tells that the one before it did not: a rollout that is over, a command that was heeded."""
    was, now = before.rollout, after.rollout
    if now and now.finished_at and (was is None or (was.id, was.finished_at) != (now.id, now.finished_at)):
        outcome = _Outcome.ROLLED_BACK if now.cause else _Outcome.DONE
        metrics.ROLLOUTS.labels(outcome.value, now.cause.value if now.cause else "").inc()
    command = after.command
    if command and (before.command is None or before.command.nonce != command.nonce):
        metrics.COMMANDS.labels(command.command, str(command.accepted).lower()).inc()


class RolloutMetrics(Collector):
    """Every known object. The labels are bounded: by the objects, their few workloads, and closed sets of words."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        objects = _Objects()
        workloads = _Workloads()
        rollouts = _Rollouts()
        for key in self._view.known():
            if (owner := self._view.model_deployment(key)) is not None:
                objects.add(owner)
                workloads.add(owner)
                if owner.status.rollout is not None:
                    rollouts.add(owner, owner.status.rollout)
        yield from (*objects.families, *workloads.families, *rollouts.families)


class _Objects:
    def __init__(self) -> None:
        self._ready = GaugeMetricFamily("conch_model_ready", "1 if the condition Ready is true.", labels=_OBJECT)
        self._reason = GaugeMetricFamily(
            "conch_model_reason", "1 for the present reason of the condition Ready.", labels=(*_OBJECT, "reason")
        )
        self._desired = GaugeMetricFamily("conch_model_desired_replicas", "Replicas wanted.", labels=_OBJECT)
        self._serving = GaugeMetricFamily(
            "conch_model_ready_replicas", "Ready replicas; during a rollout those of both revisions.", labels=_OBJECT
        )
        self._pods = GaugeMetricFamily(
            "conch_model_pods", "Pods of the wanted revision, by how far they are.", labels=(*_OBJECT, "state")
        )
        self._rejected = GaugeMetricFamily(
            "conch_rejected_revisions", "Revisions that were rolled back and are not tried again.", labels=_OBJECT
        )
        self.families = (self._ready, self._reason, self._desired, self._serving, self._pods, self._rejected)

    def add(self, owner: ModelDeployment) -> None:
        labels, status = (owner.namespace, owner.name), owner.status
        ready = status.condition(ConditionType.READY)
        self._ready.add_metric(labels, ready is not None and ready.status is ConditionStatus.TRUE)
        if ready is not None:
            self._reason.add_metric((*labels, ready.reason.value), 1)
        self._desired.add_metric(labels, status.desired_replicas)
        self._serving.add_metric(labels, status.ready_replicas)
        for state, number in status.pods:
            self._pods.add_metric((*labels, state), number)
        self._rejected.add_metric(labels, len(status.rejected))


class _Workloads:
    def __init__(self) -> None:
        self._info = GaugeMetricFamily(
            "conch_workload_info",
            "1 for each workload of an object: the gateways count by workload, and this says which revision it is.",
            labels=_WORKLOAD,
        )
        self._weight = GaugeMetricFamily(
            "conch_rollout_weight_percent", "Share of the requests that a workload is to get.", labels=_WORKLOAD
        )
        self.families = (self._info, self._weight)

    def add(self, owner: ModelDeployment) -> None:
        status = owner.status
        weights = {share.workload: share.weight for share in status.traffic}
        shown = {share.workload: (share.revision, "", _Role.RETIRING) for share in status.traffic}
        for role, served in ((_Role.STABLE, status.stable), (_Role.CANDIDATE, status.candidate)):
            if served is not None:
                shown[served.workload] = (served.revision, str(served.version), role)
        for workload, (revision, version, role) in shown.items():
            labels = (owner.namespace, owner.name, workload, revision, version, role.value)
            self._info.add_metric(labels, 1)
            self._weight.add_metric(labels, weights.get(workload, 0))


class _Rollouts:
    def __init__(self) -> None:
        self._phase = GaugeMetricFamily(
            "conch_rollout_phase",
            "1 for the present phase of the rollout that is under way, or of the last one.",
            labels=(*_OBJECT, "phase"),
        )
        self._started = GaugeMetricFamily(
            "conch_rollout_started_timestamp_seconds", "When that rollout began.", labels=_OBJECT
        )
        self._finished = GaugeMetricFamily(
            "conch_rollout_finished_timestamp_seconds",
            "When it was over; nothing while it is under way.",
            labels=_OBJECT,
        )
        self._verdict = GaugeMetricFamily(
            "conch_rollout_check_verdict",
            "1 for the present verdict of a check of the rollout that is under way.",
            labels=(*_CHECK, "verdict"),
        )
        self._value = GaugeMetricFamily(
            "conch_rollout_check_value",
            "What a check has seen, in its own unit: percent that failed, milliseconds, or wrong answers.",
            labels=_CHECK,
        )
        self._limit = GaugeMetricFamily(
            "conch_rollout_check_limit", "What it may be at most, in the same unit.", labels=_CHECK
        )
        self._samples = GaugeMetricFamily(
            "conch_rollout_check_samples", "How many requests a check has seen.", labels=_CHECK
        )
        self._copies = GaugeMetricFamily(
            "conch_rollout_shadow_copies",
            "Copies of requests that the candidate of the rollout that is under way got, by what came of them.",
            labels=(*_OBJECT, "outcome"),
        )
        self._latency = GaugeMetricFamily(
            "conch_rollout_shadow_latency_seconds",
            "How long answers to copies take.",
            labels=(*_OBJECT, "role", "quantile"),
        )
        self.families = (
            *(self._phase, self._started, self._finished),
            *(self._verdict, self._value, self._limit, self._samples),
            *(self._copies, self._latency),
        )

    def add(self, owner: ModelDeployment, rollout: RolloutStatus) -> None:
        labels = (owner.namespace, owner.name)
        self._phase.add_metric((*labels, rollout.phase.value), 1)
        self._started.add_metric(labels, _seconds(rollout.started_at))
        if rollout.finished_at is not None:
            self._finished.add_metric(labels, _seconds(rollout.finished_at))
        if rollout.phase in UNDER_WAY:
            self._add_checks(labels, rollout)
            if rollout.shadow is not None:
                self._add_shadow(labels, rollout.shadow)

    def _add_shadow(self, labels: tuple[str, str], shadow: ShadowStatus) -> None:
        outcomes = {
            "agreed": shadow.compared - shadow.disagreed,
            "disagreed": shadow.disagreed,
            "failed": shadow.failed,
            "skipped": shadow.skipped,
            "dropped": shadow.dropped,
        }
        for outcome, number in outcomes.items():
            self._copies.add_metric((*labels, outcome), number)
        latencies = (
            (_Role.STABLE, "0.5", shadow.stable_p50_ms),
            (_Role.STABLE, "0.9", shadow.stable_p90_ms),
            (_Role.CANDIDATE, "0.5", shadow.candidate_p50_ms),
            (_Role.CANDIDATE, "0.9", shadow.candidate_p90_ms),
        )
        for role, quantile, milliseconds in latencies:
            if milliseconds is not None:
                self._latency.add_metric((*labels, role.value, quantile), milliseconds / 1000)

    def _add_checks(self, labels: tuple[str, str], rollout: RolloutStatus) -> None:
        met: Counter[str] = Counter()
        for check in rollout.checks:
            kind = _kind(check.name)
            met[kind] += 1
            # Several of a kind may be declared, and no sample may be told twice.
            name = kind if met[kind] == 1 else f"{kind} ({met[kind]})"
            self._verdict.add_metric((*labels, name, check.verdict), 1)
            self._samples.add_metric((*labels, name), check.samples)
            if check.value is not None:
                self._value.add_metric((*labels, name), check.value)
            if check.limit is not None:
                self._limit.add_metric((*labels, name), check.limit)


def _kind(name: str) -> str:
    """A check's name without what its author may choose freely, which would make another series each time.

    >>> [_kind(name) for name in ("successRate", "latency p99.125 relative", "<b>")]
    ['successRate', 'latency relative', 'other']
    """
    words = [word for word in name.split() if not _PERCENTILE.fullmatch(word)]
    kind = " ".join(words)
    return kind if kind in _KINDS else "other"


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
