"""What the autoscaler wants for an object and why, and what its user had better change. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from conch.api import names
from conch.api.autoscaling import Autoscaling, Objective, ScalingReason, Target, TargetMetric
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.kube.client import Json
from conch.why.report import Counted, CurveRow, DecisionRow, InstancesRow, ScalingRow
from conch.why.words import figure

_GATEWAY_LABELS: Final = ",".join(f"{key}={value}" for key, value in names.GATEWAY_LABELS.items())


def scaling_row(body: Json) -> ScalingRow | None:
    """From the object as it stands there: a newer operator's reasons are to be shown, and `parse` would drop them."""
    spec, status = body.get("spec", {}), body.get("status", {})
    if "autoscaling" not in spec or spec.get("suspend"):
        return None
    asked = _asked(spec["autoscaling"])
    told: Mapping[str, Any] = status.get("autoscaling", {})
    return ScalingRow(
        goal=_goal(asked) if asked else None,
        min_replicas=asked.effective_min_replicas if asked else None,
        max_replicas=asked.max_replicas if asked else None,
        wanted=status.get("desiredReplicas", 0),
        ready=status.get("readyReplicas", 0),
        reason=told.get("reason"),
        message=told.get("message", ""),
        counted=_counted(asked, told),
        demand=told.get("demand"),
        capacity_per_replica=told.get("capacityPerReplica"),
        late_percent=told.get("latePercent"),
        curve=_curve(told["curve"]) if "curve" in told else None,
        cold_start_seconds=told.get("coldStartSeconds"),
        policy=told.get("policy", ""),
        instances=_instances(told["instances"]) if "instances" in told else None,
        observed_at=told.get("observedAt"),
        decisions=tuple(map(_decision, told.get("decisions", ()))),
    )


def scaling_advice(owner: ModelDeployment, row: ScalingRow) -> str:
    """What keeps a model that serves from what is asked of its autoscaling; empty if nothing does."""
    if isinstance(owner.spec, InvalidSpec) or (asked := owner.spec.autoscaling) is None:
        return ""
    alone = row.curve.base_milliseconds + row.curve.per_item_milliseconds if row.curve else 0.0
    if asked.objective and alone >= asked.objective.latency_ms:
        limit = asked.objective.latency_ms
        return (
            f"A request takes {figure(alone)} ms with nobody else there, and the objective is {limit} ms: no number of "
            "servers keeps it. Raise spec.autoscaling.objective.latencyMs, or make the model faster."
        )
    if row.reason == ScalingReason.MAXIMUM:
        return (
            f"The load needs more servers than spec.autoscaling.maxReplicas allows ({asked.max_replicas}): raise it, "
            "or answers will be late."
        )
    if row.reason == ScalingReason.NO_DATA and owner.spec.gateway.mode is GatewayMode.GATEWAY:
        return (
            "The count stays as it is until the gateways tell of the load. See whether they run: "
            f"kubectl get pods -A -l {_GATEWAY_LABELS}"
        )
    return ""


def waking(owner: ModelDeployment, row: ScalingRow) -> str:
    """What the next request of a model that was scaled to zero will meet."""
    if isinstance(owner.spec, InvalidSpec):
        return "Nothing: the next request wakes it."
    hold_seconds = owner.spec.gateway.effective_hold.seconds
    if hold_seconds == 0:
        return "The next request wakes it, but is refused itself: spec.gateway.hold.seconds is 0."
    if row.cold_start_seconds is not None and row.cold_start_seconds > hold_seconds:
        return (
            f"The next request wakes it, but would be refused before it is answered: a server took "
            f"{figure(row.cold_start_seconds)} s to start, and requests are held for {hold_seconds} s. Raise "
            "spec.gateway.hold.seconds."
        )
    return "Nothing: the next request is held and wakes it."


def _asked(spec: Mapping[str, Any]) -> Autoscaling | None:
    try:
        return Autoscaling.model_validate(spec)
    except ValidationError:
        return None


def _goal(asked: Autoscaling) -> str:
    match asked.objective or asked.target:
        case Objective() as objective:
            return f"{objective.effective_percentile:g} % of the requests within {objective.latency_ms} ms"
        case Target(metric=TargetMetric.CONCURRENCY, value=value):
            return f"{figure(value)} requests at each server at the same time"
        case Target(metric=TargetMetric.QUEUE_TIME, value=value):
            return f"requests wait {figure(value)} ms on average"
        case Target(metric=TargetMetric.REQUESTS_PER_SECOND, value=value):
            return f"{figure(value)} requests per second for each server"
        case _:
            return "none is given"


def _counted(asked: Autoscaling | None, told: Mapping[str, Any]) -> Counted:
    """Streams are counted by how many there are at the same time; they have a capacity, and no curve."""
    metric = asked.target.metric if asked and asked.target else None
    if metric is TargetMetric.REQUESTS_PER_SECOND:
        return Counted.PER_SECOND
    is_stream = "capacityPerReplica" in told and "curve" not in told
    return Counted.AT_ONCE if metric is TargetMetric.CONCURRENCY or is_stream else Counted.PER_SECOND


def _curve(told: Mapping[str, Any]) -> CurveRow:
    return CurveRow(
        base_milliseconds=told["baseMilliseconds"],
        per_item_milliseconds=told["perItemMilliseconds"],
        max_batch=told["maxBatch"],
        instances=told.get("instances", 1),
        model=told.get("model", ""),
    )


def _instances(told: Mapping[str, Any]) -> InstancesRow:
    return InstancesRow(count=told.get("count"), trying=told.get("trying"), message=told.get("message", ""))


def _decision(told: Mapping[str, Any]) -> DecisionRow:
    return DecisionRow(
        at=told["at"],
        before=told["before"],
        after=told["after"],
        reason=told["reason"],
        message=told.get("message", ""),
    )
