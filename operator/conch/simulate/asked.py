"""What is replayed: by the options, and by the object for what they leave out."""

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from pydantic import ValidationError

from conch.api.autoscaling import DEFAULT_IDLE_SECONDS, DEFAULT_PERCENTILE, Autoscaling, LearntCurve
from conch.api.gpu import COUNT_DEFAULT
from conch.client.errors import ClientError
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import COLD_START_PRIOR_SECONDS, Metric, ScalingSettings
from conch.kube.client import Json
from conch.rollouts.reading import connected, read
from conch.simulate.fleet import FleetSettings
from conch.simulate.options import Options, duration_seconds, service_curve
from conch.simulate.rules.bounds import Bounds
from conch.simulate.trace import Trace

DEFAULT_MAXIMUM: Final = 100
_FIRST_SECONDS: Final = 60.0
_FIRST_UTILISATION: Final = 0.6

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Everything that is settled before the replay begins."""

    fleet: FleetSettings
    scaling: ScalingSettings
    gpus: int
    """Of one replica."""

    @property
    def bounds(self) -> Bounds:
        """For the rules of others."""
        return Bounds(minimum=self.scaling.minimum, maximum=self.scaling.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an object says of itself."""

    autoscaling: Autoscaling | None = None
    curve: ServiceCurve | None = None
    cold_start_seconds: float | None = None
    gpus: int = 1


def asked(options: Options) -> Asked:
    """Reads the object if one is named. Raises ClientError or KubeconfigError."""
    known = asyncio.run(_read(options.name, options)) if options.name else Known()
    return settle(options, known)


async def _read(name: str, options: Options) -> Known:
    async with connected(options.context, options.namespace) as (client, namespace):
        return known_of(await read(client, namespace, name))


def known_of(body: Json) -> Known:
    """The autoscaling of an object, asked for and learnt; what another version of Conch wrote otherwise is left out."""
    spec, status = body.get("spec", {}), body.get("status", {}).get("autoscaling", {})
    learnt = status.get("curve")
    seconds = status.get("coldStartSeconds")
    try:
        autoscaling = Autoscaling.model_validate(spec["autoscaling"]) if "autoscaling" in spec else None
        curve = LearntCurve.model_validate(learnt) if learnt else None
    except ValidationError as error:
        name = body.get("metadata", {}).get("name")
        raise ClientError(
            f"ModelDeployment {name} has an autoscaling that this conch does not know: {error}"
        ) from error
    return Known(
        autoscaling=autoscaling,
        curve=ServiceCurve(
            base_seconds=curve.base_milliseconds / 1000,
            per_item_seconds=curve.per_item_milliseconds / 1000,
            max_batch=curve.max_batch,
            instances=curve.instances,
        )
        if curve
        else None,
        cold_start_seconds=float(seconds) if seconds else None,
        gpus=_gpus(spec.get("gpu", {})),
    )


def _gpus(gpu: Json) -> int:
    """Of a replica; a claim counts as one, for only its template knows better (--gpus says it)."""
    claims = len(gpu.get("claims", ()))
    return max(1, int(gpu.get("count", 0 if claims else COUNT_DEFAULT)) + claims)


def settle(options: Options, known: Known) -> Asked:
    """What is given goes before what the object says, and that before defaults. Raises ClientError."""
    spec = known.autoscaling
    minimum = _first(options.minimum, spec.effective_min_replicas if spec else None, 1)
    maximum = _first(options.maximum, spec.max_replicas if spec else None, max(DEFAULT_MAXIMUM, minimum))
    if minimum > maximum:
        raise ClientError(f"--min {minimum} is more than --max {maximum}; lower the one or raise the other")
    objective_seconds = _objective_seconds(options, spec)
    percentile = _first(
        options.percentile, spec.objective.effective_percentile if spec and spec.objective else None, DEFAULT_PERCENTILE
    )
    curve = service_curve(options.curve) if options.curve else known.curve
    if curve is None:
        raise ClientError(_no_curve(options))
    if curve.least_seconds >= objective_seconds:
        raise ClientError(
            f"a single request takes {1000 * curve.least_seconds:.0f} ms by the curve, which is over the objective of "
            f"{1000 * objective_seconds:.0f} ms: no number of replicas keeps it; raise --objective"
        )
    cold_start = duration_seconds("--cold-start", options.cold_start) if options.cold_start else None
    idle = duration_seconds("--idle", options.idle) if options.idle else None
    idle_of_spec = spec.effective_idle_seconds if spec else None
    return Asked(
        fleet=FleetSettings(
            curve=curve,
            objective_seconds=objective_seconds,
            cold_start_seconds=_first(cold_start, known.cold_start_seconds, COLD_START_PRIOR_SECONDS),
        ),
        scaling=ScalingSettings(
            minimum=minimum,
            maximum=maximum,
            metric=Metric.LATENCY,
            value=1000 * objective_seconds,
            percentile=percentile,
            idle_seconds=_first(idle, idle_of_spec, float(DEFAULT_IDLE_SECONDS)) if minimum == 0 else None,
            behavior=spec.behavior if spec else None,
        ),
        gpus=_first(options.gpus, None, known.gpus),
    )


def begun(wanted: Asked, trace: Trace, replicas: int | None = None) -> Asked:
    """With as many replicas at the beginning: whoever has a log has servers already, whatever scales them later.

    If it is not given, as many as the first minute keeps busy to 60 %.
    """
    bounds = wanted.bounds
    if replicas is None:
        rate = float(np.searchsorted(trace.seconds, _FIRST_SECONDS)) / _FIRST_SECONDS
        replicas = max(1, math.ceil(rate / (_FIRST_UTILISATION * wanted.fleet.curve.ceiling)))
    return replace(wanted, fleet=replace(wanted.fleet, replicas=bounds.clamp(replicas)))


def _first(given: _T | None, known: _T | None, default: _T) -> _T:
    return given if given is not None else known if known is not None else default


def _objective_seconds(options: Options, spec: Autoscaling | None) -> float:
    if options.objective is not None:
        return duration_seconds("--objective", options.objective)
    if spec is not None and spec.objective is not None:
        return spec.objective.latency_ms / 1000
    raise ClientError("what is late? Give --objective, such as 200ms, or --from an object that has an objective")


def _no_curve(options: Options) -> str:
    if options.name is None:
        return "how fast is a replica? Give --curve A,B,MAX_BATCH (a batch of n takes A + B x n ms), or --from NAME"
    return (
        f"ModelDeployment {options.name} has no learnt curve yet: it is learnt from the first requests that it answers "
        "with spec.autoscaling set. Until then give --curve A,B,MAX_BATCH (a batch of n takes A + B x n ms)"
    )
