"""Makes the forms of a graph that were asked for, measures them beside each other, and says which is kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from onnx import ModelProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.clean import to_bytes
from conch.packaging.graph.parity import Parity, measure_parity
from conch.packaging.graph.session import Runner
from conch.packaging.optimise import latency
from conch.packaging.optimise.batch_invariance import BATCH, deviation_in_batch
from conch.packaging.optimise.calibration import check_calibration, default_calibration
from conch.packaging.optimise.fp16_range import beyond_fp16
from conch.packaging.optimise.half_precision import to_fp16
from conch.packaging.optimise.int8 import dynamic_int8, static_int8
from conch.packaging.optimise.latency import Clock, measure_latencies
from conch.packaging.optimise.not_made import NotMade
from conch.packaging.optimise.score import Score, score
from conch.packaging.optimise.variants import Choice, Variant, choose
from conch.packaging.progress import Progress, Silent
from conch.packaging.request import HeldOut, Optimise
from conch.packaging.tensors import Tensors, rows

FP32: Final = "fp32"
PRUNED: Final = "pruned"
FP16: Final = "fp16"
DYNAMIC_INT8: Final = "int8 (dynamic)"
STATIC_INT8: Final = "int8 (static)"
_SILENT: Final = Silent()
_SECONDS_ALONE: Final = 0.2
"""Where nothing is compared, the latency is for information only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A form of the graph that runs; its score is known, its latency is not."""

    name: str
    graph: ModelProto
    runner: Runner
    bytes: int
    score: Score | None
    for_gpu: bool
    origin: str | None


def optimise(
    graph: ModelProto,
    *,
    wishes: Optimise,
    held_out: HeldOut | None,
    calibration: Tensors | None,
    inputs: Tensors,
    most_batch: int,
    pruned: ModelProto | None = None,
    progress: Progress = _SILENT,
    clock: Clock = time.perf_counter_ns,
) -> tuple[Choice, tuple[Variant, ...]]:
    """The choice, with a reason for everything that was asked for and is not kept, and the variants it was made among.

    The first variant is the graph as it came. `inputs` are what latency is measured with; `most_batch` is the largest
    batch that the server makes, 0 where the graph takes none; `pruned` is the graph of the pruned module. Without
    calibration data the held-out inputs calibrate, else `inputs`.

    A variant that cannot be made, or gives no numbers, is left out with its reason. Raises PackagingError where
    something is asked for and there is no held-out data, or data does not fit the graph.
    """
    _refuse_unmeasured(wishes, held_out, pruned)
    if wishes.int8:
        if calibration is None:
            calibration = default_calibration(held_out.inputs if held_out else None, inputs) or {}
        check_calibration(graph, calibration)
    workshop = _Workshop(held_out=held_out, most_batch=most_batch, progress=progress)
    workshop.add(FP32, lambda: graph)
    if pruned is not None:
        workshop.add(PRUNED, lambda: pruned)
    for base in workshop.made.copy():
        if wishes.int8:
            workshop.add(DYNAMIC_INT8, partial(dynamic_int8, base.graph), origin=base)
            workshop.add(STATIC_INT8, partial(static_int8, base.graph, calibration or {}), origin=base)
        if wishes.fp16 and held_out is not None:
            make = partial(_fp16, base.graph, held_out, most_batch)
            workshop.add(FP16, make, origin=base, for_gpu=True)
    variants = _measured(workshop, inputs, _most_varied(held_out, calibration, inputs), clock)
    choice = choose(variants, max_drop=wishes.max_drop)
    return replace(choice, reasons=choice.reasons | workshop.left_out), variants


def _refuse_unmeasured(wishes: Optimise, held_out: HeldOut | None, pruned: ModelProto | None) -> None:
    if wishes.asks_something and held_out is None:
        raise PackagingError(
            "--optimise needs held-out data (--data: inputs with their targets) to measure what it costs: "
            "an optimisation that nobody measured is not kept"
        )
    if wishes.prune is not None and pruned is None:
        raise PackagingError(
            "--optimise prune works on a torch module: the channels of a finished ONNX graph are not taken out; "
            "package the module, or leave prune out"
        )


def _fp16(graph: ModelProto, held_out: HeldOut, most_batch: int) -> ModelProto:
    try:
        beyond = beyond_fp16(graph, held_out.inputs, batch=most_batch)
    except PackagingError as error:
        raise NotMade(f"whether its numbers fit into FP16 cannot be told: {error}") from error
    if beyond is not None:
        raise NotMade(beyond)
    return to_fp16(graph)


class _Workshop:
    """Makes variants one by one, and keeps those that run."""

    def __init__(self, *, held_out: HeldOut | None, most_batch: int, progress: Progress) -> None:
        self.made: list[_Made] = []
        self.left_out: dict[str, str] = {}
        self.most_batch = most_batch
        self.progress = progress
        self._held_out = held_out

    def add(
        self, name: str, make: Callable[[], ModelProto], *, origin: _Made | None = None, for_gpu: bool = False
    ) -> None:
        """The first one's troubles are the model's own, and are raised; another's are why it is left out."""
        if origin is not None and origin is not self.made[0]:
            name = f"{origin.name}, {name}"
        self.progress.stage(f"make and score {name}" if self._held_out else f"load {name}")
        try:
            graph = make()
        except NotMade as error:
            self.left_out[name] = str(error)
            return
        try:
            content = to_bytes(graph)
            runner = Runner(content)
            scored = score(runner, self._held_out, batch=self.most_batch) if self._held_out else None
        except PackagingError as error:
            if not self.made:
                raise
            self.left_out[name] = str(error)
            return
        self.made.append(
            _Made(
                name=name,
                graph=graph,
                runner=runner,
                bytes=len(content),
                score=scored,
                for_gpu=for_gpu,
                origin=origin.name if origin else None,
            )
        )


def _measured(workshop: _Workshop, inputs: Tensors, varied: Tensors, clock: Clock) -> tuple[Variant, ...]:
    made, most, progress = workshop.made, workshop.most_batch, workshop.progress
    progress.stage("measure latency")
    latencies = measure_latencies(
        {each.name: each.runner for each in made},
        inputs,
        most=most,
        progress=progress,
        seconds=latency.SECONDS if len(made) > 1 else _SECONDS_ALONE,
        clock=clock,
    )
    progress.stage("compare answers alone and in batches")
    return tuple(
        Variant(
            name=each.name,
            graph=each.graph,
            bytes=each.bytes,
            score=each.score,
            latency=latencies[each.name],
            batch_deviation=_deviation(each.runner, varied, most),
            parity=None if each is made[0] else _parity(made[0].runner, each.runner, varied if most else inputs, most),
            for_gpu=each.for_gpu,
            origin=each.origin,
        )
        for each in made
    )


def _most_varied(held_out: HeldOut | None, calibration: Tensors | None, inputs: Tensors) -> Tensors:
    """The set with the most samples: neighbours have to differ to show anything."""
    sets = [each for each in (inputs, calibration, held_out.inputs if held_out else None) if each]
    return max(sets, key=lambda each: min(len(array) if array.ndim else 1 for array in each.values()))


def _deviation(runner: Runner, varied: Tensors, most: int) -> float | None:
    if most < 2:
        return 0.0
    return deviation_in_batch(runner, varied, batch=min(BATCH, most)) if rows(varied) > 1 else None


def _parity(first: Runner, other: Runner, varied: Tensors, most: int) -> Parity:
    """How far from the first variant's answers; whether that is too far is the score's to say."""
    return measure_parity(first.run, other, varied, batch_sizes=sorted({1, max(1, min(BATCH, most))}), bound=math.inf)
