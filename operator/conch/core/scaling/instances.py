"""Another instance of the model on the same GPU: tried where it fits, measured, and kept or taken back.

While one batch is copied or launched, another can compute: a second instance often raises what a server can do, and
costs memory but no GPU. Whether it does is not to be told beforehand, so it is tried under the real load: the service
curve is learnt anew, and both are compared at the same batch size. Triton changes the count without loading the model
again, so nothing is interrupted.
"""

from dataclasses import dataclass, replace
from typing import Final

from conch.core.scaling.figures import figure
from conch.core.scaling.service_curve import SeenBatches, ServiceCurve
from conch.core.scaling.signals import SeenInstances

GAIN_LEAST: Final = 1.1
"""What a server can do must grow by a tenth; less is lost again by neighbours on the same GPU."""
_MEMORY_SPARE: Final = 1.1
_STEADY_SECONDS: Final = 120.0
"""A trial begins only when the count of servers has not changed for so long."""
_LOADED_SHARE: Final = 0.4
"""... and when so much of what the servers carry is there to measure by."""
_EXECUTIONS: Final = 200
_MEASURED_SECONDS: Final = 60.0
_TRIAL_SECONDS_MOST: Final = 600.0
_AGAIN_SECONDS: Final = 86_400.0
INSTANCES_MOST: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One instance more than before, being measured."""

    began: float
    before: int
    curve_before: ServiceCurve
    batches_before: SeenBatches


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How many each server is to have. `count` is None as long as nothing was changed: as the model says."""

    count: int | None = None
    trial: Trial | None = None
    not_before: float = float("-inf")
    """No further trial before this moment."""
    message: str = ""
    """What became of the last trial, with its figures."""

    @property
    def asked(self) -> int | None:
        """What the servers are to have now."""
        return self.trial.before + 1 if self.trial else self.count


def next_instances(
    now: float,
    known: Instances,
    batches: SeenBatches,
    seen: SeenInstances | None,
    *,
    steady_since: float,
    load_share: float,
    limit_seconds: float,
    undisturbed: bool,
) -> tuple[Instances, SeenBatches]:
    """Begin a trial, end one, or leave things as they are; with it, the batches that the curve is learnt from.

    `load_share` is what comes, of what the servers carry; `undisturbed` says that no version changes.
    """
    if known.trial is not None:
        return _judged(now, known, known.trial, batches, seen, limit_seconds, undisturbed=undisturbed)
    curve = batches.curve()
    if curve is None or seen is None or len(batches.models) != 1 or batches.is_decoupled:
        return known, batches
    ready_to_try = (
        undisturbed
        and now >= known.not_before
        and now - steady_since >= _STEADY_SECONDS
        and load_share >= _LOADED_SHARE
        and seen.running < INSTANCES_MOST
    )
    if not ready_to_try:
        return known, batches
    if (obstacle := _no_memory(seen)) is not None:
        return replace(known, message=obstacle, not_before=now + _AGAIN_SECONDS), batches
    trial = Trial(began=now, before=seen.running, curve_before=curve, batches_before=batches)
    message = f"{seen.running + 1} instances are being tried"
    return replace(known, trial=trial, message=message), SeenBatches()


def _no_memory(seen: SeenInstances) -> str | None:
    """Why another instance does not surely fit; one takes at most its part of all that is used."""
    if seen.memory_used_bytes is None or not seen.memory_total_bytes:
        return "no GPU tells how much memory is free, so no further instance is tried"
    needed = _MEMORY_SPARE * seen.memory_used_bytes / seen.running
    free = seen.memory_total_bytes - seen.memory_used_bytes
    if free >= needed:
        return None
    return (
        f"another instance may need {needed / 2**30:.1f} GiB of GPU memory, of which {free / 2**30:.1f} GiB are free: "
        "not tried"
    )


def _judged(
    now: float,
    known: Instances,
    trial: Trial,
    batches: SeenBatches,
    seen: SeenInstances | None,
    limit_seconds: float,
    *,
    undisturbed: bool,
) -> tuple[Instances, SeenBatches]:
    def back(why: str) -> tuple[Instances, SeenBatches]:
        ended = Instances(count=trial.before, not_before=now + _AGAIN_SECONDS, message=why)
        return ended, trial.batches_before

    tried = trial.before + 1
    if not undisturbed:
        return back(f"the trial of {tried} instances was ended: the version changes")
    if seen is not None and seen.refused:
        return back(f"{tried} instances were refused: {seen.refused}")
    curve = batches.curve()
    measured = now - trial.began >= _MEASURED_SECONDS and batches.executions >= _EXECUTIONS
    if curve is None or not measured or (seen is not None and seen.running != tried):
        if now - trial.began < _TRIAL_SECONDS_MOST:
            return known, batches
        return back(f"{tried} instances could not be measured within {_TRIAL_SECONDS_MOST:g} s")
    size = min(curve.max_batch, trial.curve_before.max_batch)
    before, after = trial.curve_before.throughput(size), curve.throughput(size)
    figures = f"{tried} instances do {figure(after)} requests per second and server, {trial.before} do {figure(before)}"
    if after < GAIN_LEAST * before:
        return back(f"{figures}: not kept")
    if curve.least_seconds > limit_seconds >= trial.curve_before.least_seconds:
        return back(f"{figures}, but a request alone takes {figure(1000 * curve.least_seconds)} ms: not kept")
    kept = Instances(count=tried, not_before=now + _TRIAL_SECONDS_MOST, message=f"{figures}: kept")
    return kept, batches
