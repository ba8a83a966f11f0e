"""What one server can do: the time that a batch of n takes, learnt from what was executed.

A batch of n takes `a + b n` seconds: a is what every execution costs (launch, transfer), b what each item in it adds.
Triton counts items; a request may bring several. The curve is in requests of the mean size, for that is what comes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

from conch.api.inference_counts import BATCH_SIZES_MOST, MODELS_MOST
from conch.core.scaling.signals import BatchTimes

_FIXED_SHARE: Final = 0.3
"""Of the time of a batch, where only one size was ever seen: what is assumed to be `a`."""
_EXECUTIONS_LEAST: Final = 3
"""A size that was seen less often says nothing yet: a first execution compiles, allocates, warms up."""
_EXTRAPOLATION: Final = 2
"""Larger batches than so many times the largest that was seen are not counted on."""
_EXECUTION_SECONDS_LEAST: Final = 1e-7
"""No execution takes less; who says so, says nothing."""
_REQUESTS_KEPT: Final = 0.99
"""Of what was known of requests' sizes, with each look that tells more."""
_SILENT_LOOKS_MOST: Final = 60
"""A model of which nothing is told as often as others tell is gone: another version has other members."""
_KEPT_EXECUTIONS: Final = 20_000
"""Beyond so many of a model, older ones count ever less: models and neighbours change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCurve:
    """The time of a batch, and by it the ceiling of one server. Items are requests of the mean size."""

    base_seconds: float
    per_item_seconds: float
    max_batch: int
    instances: int = 1
    """How many batches are executed at the same time."""
    others_seconds: float = 0.0
    """What the other members of an ensemble add to a request."""
    model: str = ""
    """The member of an ensemble that limits it."""

    def batch_seconds(self, size: int) -> float:
        """How long a batch of this size takes."""
        return self.base_seconds + self.per_item_seconds * size

    @property
    def least_seconds(self) -> float:
        """How long a single request takes with nobody else there."""
        return self.batch_seconds(1) + self.others_seconds

    @property
    def ceiling(self) -> float:
        """Requests per second of a server that executes nothing but full batches: instances x B / (a + b B).

        >>> round(ServiceCurve(base_seconds=0.003, per_item_seconds=0.001, max_batch=8).ceiling)
        727
        """
        return self.throughput(self.max_batch)

    def throughput(self, size: int) -> float:
        """Requests per second of a server that executes nothing but batches of this size."""
        return self.instances * size / self.batch_seconds(size)

    def is_like(self, other: "ServiceCurve") -> bool:
        """Whether what was calculated for the one still holds for the other."""
        return (self.max_batch, self.instances) == (other.max_batch, other.instances) and all(
            abs(mine - theirs) <= _ALIKE * max(mine, theirs)
            for mine, theirs in (
                (self.batch_seconds(1), other.batch_seconds(1)),
                (self.ceiling, other.ceiling),
                (self.least_seconds, other.least_seconds),
            )
        )


_ALIKE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Executed:
    """What was seen of one model."""

    max_batch: int
    instances: int
    decoupled: bool
    joins_requests: bool
    sizes: Mapping[int, tuple[float, float]]
    """Executions and their seconds, by batch size in items."""
    requests: float = 0.0
    items: float = 0.0
    silent_looks: int = 0
    """How often others told since it told last."""

    @property
    def configuration(self) -> tuple[int, int, bool]:
        """With another one, everything is to be learnt anew."""
        return self.max_batch, self.instances, self.decoupled

    @property
    def items_per_request(self) -> float:
        """On average; one at least."""
        return max(1.0, self.items / self.requests) if self.requests else 1.0


@dataclass(frozen=True, kw_only=True)
class SeenBatches:
    """Everything that was seen executed, as a base for the curve."""

    models: Mapping[str, _Executed] = field(default_factory=lambda: MappingProxyType({}))

    def with_(self, batches: Iterable[BatchTimes]) -> "SeenBatches":
        """With what was executed since; a model that is configured otherwise is learnt anew."""
        models = {
            name: replace(model, silent_looks=model.silent_looks + 1)
            for name, model in self.models.items()
            if model.silent_looks < _SILENT_LOOKS_MOST
        }
        for new in batches:
            sizes: dict[int, tuple[float, float]]
            before = models.get(new.name)
            if before is None or before.configuration != (new.max_batch, new.instances, new.decoupled):
                before, sizes = None, {}
            else:
                sizes = _faded(before.sizes)
            requests, items = (
                (before.requests * _REQUESTS_KEPT, before.items * _REQUESTS_KEPT) if before else (0.0, 0.0)
            )
            for size, executions, seconds in new.sizes:
                if size < 1 or executions < 1 or seconds < executions * _EXECUTION_SECONDS_LEAST:
                    continue
                known_executions, known_seconds = sizes.get(size, (0.0, 0.0))
                sizes[size] = (known_executions + executions, known_seconds + seconds)
            if new.name not in models and len(models) >= MODELS_MOST:
                continue
            models[new.name] = _Executed(
                max_batch=new.max_batch,
                instances=new.instances,
                decoupled=new.decoupled,
                joins_requests=new.joins_requests,
                sizes=MappingProxyType(_most_executed(sizes)),
                requests=requests + new.item_requests,
                items=items + new.items,
            )
        return SeenBatches(models=MappingProxyType(models))

    @property
    def is_decoupled(self) -> bool:
        """Whether any of the models gives many answers to one request."""
        return any(model.decoupled for model in self.models.values())

    @property
    def executions(self) -> float:
        """How often anything was executed."""
        return sum(executions for model in self.models.values() for executions, _ in model.sizes.values())

    @property
    def slots(self) -> int:
        """Requests that a server can execute at the same time, by its configuration."""
        return min((model.instances * model.max_batch for model in self.models.values()), default=1)

    def curve(self) -> ServiceCurve | None:
        """The curve; of an ensemble, its slowest member's. None while too little was executed."""
        return self._curve

    @cached_property
    def _curve(self) -> ServiceCurve | None:
        # Asked for several times with every look, and another one only when agents have told something.
        curves = [(name, curve) for name, model in self.models.items() if (curve := _fit(model))]
        if not curves:
            return None
        name, slowest = min(curves, key=lambda each: each[1].ceiling)
        others = sum(curve.batch_seconds(1) for other, curve in curves if other != name)
        return replace(slowest, others_seconds=others, model=name if len(self.models) > 1 else "")


def _most_executed(sizes: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """What is worth remembering, however many sizes somebody tells of."""
    if len(sizes) <= BATCH_SIZES_MOST:
        return sizes
    most = sorted(sizes, key=lambda size: sizes[size][0], reverse=True)[:BATCH_SIZES_MOST]
    return {size: sizes[size] for size in most}


def _faded(sizes: Mapping[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    total = sum(executions for executions, _ in sizes.values())
    factor = min(1.0, _KEPT_EXECUTIONS / total) if total else 1.0
    return {size: (executions * factor, seconds * factor) for size, (executions, seconds) in sizes.items()}


def _fit(model: _Executed) -> ServiceCurve | None:
    """Least squares of a + b n over the mean time of each batch size, weighted by how often it was seen."""
    seen = {size: each for size, each in model.sizes.items() if each[0] >= _EXECUTIONS_LEAST}
    if not seen:
        return None
    weight = sum(executions for executions, _ in seen.values())
    mean_size = sum(size * executions for size, (executions, _) in seen.items()) / weight
    mean_seconds = sum(seconds for _, seconds in seen.values()) / weight
    spread = sum(executions * (size - mean_size) ** 2 for size, (executions, _) in seen.items())
    # An assumption takes part as if it were a little of the data: of sizes next to each other the slope is noise.
    assumed = (1 - _FIXED_SHARE) * mean_seconds / mean_size
    together = sum(
        executions * (size - mean_size) * (seconds / executions - mean_seconds)
        for size, (executions, seconds) in seen.items()
    )
    per_item = (together + assumed * _PRIOR_SPREAD) / (spread + _PRIOR_SPREAD)
    per_item = min(max(per_item, 0.0), mean_seconds / mean_size)
    # Rounded, the difference can be less than nothing.
    base = max(0.0, mean_seconds - per_item * mean_size)
    most = min(model.max_batch, max(seen) * _EXTRAPOLATION)
    return ServiceCurve(
        base_seconds=base,
        per_item_seconds=per_item * model.items_per_request,
        max_batch=max(1, int(most / model.items_per_request)) if model.joins_requests else 1,
        instances=model.instances,
    )


_PRIOR_SPREAD: Final = 5.0
"""Sum of the squared deviations of batch sizes below which the assumption of the slope outweighs what was seen."""
