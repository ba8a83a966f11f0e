"""Whether the steps of a pipeline fit together, tensor by tensor; pure, and before anything is written."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from conch.packaging.errors import PackagingError
from conch.packaging.pipeline.step_model import config_types
from conch.packaging.pipeline.steps import ANY_LENGTH, Pipeline, Step, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A step's tensor that gives or takes a value."""

    step: str
    tensor: str
    kind: TensorType

    def __str__(self) -> str:
        """For a message."""
        return f"step {self.step!r}, tensor {self.tensor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """A pipeline whose parts fit."""

    types: Mapping[str, TensorType]
    """Of every value; a length is -1 only where nobody knows better."""


def check_wiring(pipeline: Pipeline, configs: Mapping[str, Any]) -> Wiring:
    """Check a pipeline against its steps' configurations (by step name). Raises PackagingError, naming the step."""
    _unique("step", [step.name for step in pipeline.steps])
    _unique("input", pipeline.inputs)
    _unique("output", pipeline.outputs)
    for step in pipeline.steps:
        _check_tensors(step, configs[step.name])
        _check_batches(pipeline, step, configs[step.name])
    givers = _givers(pipeline, configs)
    takers = _takers(pipeline, configs, givers)
    _check_use(pipeline, givers, takers)
    _check_order(pipeline, givers)
    return Wiring(
        types={value: _agreed(value, givers.get(value), takers.get(value, [])) for value in (*pipeline.inputs, *givers)}
    )


def _unique(what: str, names: Iterable[str]) -> None:
    every = list(names)
    if twice := next((name for number, name in enumerate(every) if name in every[:number]), None):
        raise PackagingError(f"the pipeline has two {what}s {twice!r}; rename or remove one")


def _check_tensors(step: Step, config: Any) -> None:
    optional = {each.name for each in config.input if each.optional}
    for what, written, own in (("input", step.inputs, config.input), ("output", step.outputs, config.output)):
        names = [each.name for each in own]
        if unknown := [tensor for tensor in written if tensor not in names]:
            raise PackagingError(
                f"step {step.name!r}: its model {step.model} has no {what} {unknown[0]}; it has {', '.join(names)}"
            )
        missing = [tensor for tensor in names if tensor not in written and tensor not in optional]
        if missing and what == "input":
            raise PackagingError(
                f"step {step.name!r}: its model {step.model} also takes {missing[0]}; say which value that is"
            )
        if missing:
            raise PackagingError(
                f"step {step.name!r}: its model {step.model} also gives {missing[0]}; name the value, or write "
                f"`{missing[0]}: ~` where nobody wants it"
            )


def _check_batches(pipeline: Pipeline, step: Step, config: Any) -> None:
    most, asked = config.max_batch_size, pipeline.max_batch_size
    if most < asked:
        takes = f"batches of {most} at most" if most else "no batches"
        raise PackagingError(
            f"step {step.name!r}: its model {step.model} takes {takes}, and the pipeline batches of {asked}; set "
            f"max_batch_size: {most} in the pipeline, or export the model with a batch axis"
        )
    if most and not asked:
        raise PackagingError(
            f"step {step.name!r}: its model {step.model} takes batches, and the pipeline does not (max_batch_size: 0); "
            "set max_batch_size to 1 or more"
        )


def _givers(pipeline: Pipeline, configs: Mapping[str, Any]) -> dict[str, End]:
    givers: dict[str, End] = {}
    for step in pipeline.steps:
        types = config_types(configs[step.name].output)
        for tensor, value in step.outputs.items():
            if value is None:
                continue
            end = End(step=step.name, tensor=tensor, kind=types[tensor])
            if value in pipeline.inputs:
                raise PackagingError(f"{end} gives the value {value!r}, which the client sends; give it another name")
            if value in givers:
                raise PackagingError(f"{end} gives the value {value!r}, as {givers[value]} does; give it another name")
            givers[value] = end
    return givers


def _takers(pipeline: Pipeline, configs: Mapping[str, Any], givers: Mapping[str, End]) -> dict[str, list[End]]:
    takers: dict[str, list[End]] = {}
    known = [*pipeline.inputs, *givers]
    for step in pipeline.steps:
        types = config_types(configs[step.name].input)
        for tensor, value in step.inputs.items():
            end = End(step=step.name, tensor=tensor, kind=types[tensor])
            if value not in known:
                raise PackagingError(f"{end} takes the value {value!r}, which nobody gives{_meant(value, known)}")
            takers.setdefault(value, []).append(end)
    return takers


def _meant(value: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(value, known, n=1):
        return f"; {close[0]!r} is meant?"
    return f"; there are {', '.join(known)}"


def _check_use(pipeline: Pipeline, givers: Mapping[str, End], takers: Mapping[str, list[End]]) -> None:
    for value in pipeline.outputs:
        if value in pipeline.inputs:
            raise PackagingError(f"the pipeline's output {value!r} is what the client has sent; remove it")
        if value not in givers:
            raise PackagingError(f"no step gives the pipeline's output {value!r}{_meant(value, list(givers))}")
    for value, end in givers.items():
        if value not in takers and value not in pipeline.outputs:
            raise PackagingError(
                f"{end} gives the value {value!r}, which nobody takes; write `{end.tensor}: ~` there, or add {value!r} "
                "to the pipeline's outputs"
            )
    for value in pipeline.inputs:
        if value not in takers:
            raise PackagingError(f"no step takes the pipeline's input {value!r}; remove it, or give it to a step")


def _check_order(pipeline: Pipeline, givers: Mapping[str, End]) -> None:
    """Peel off the steps whose inputs are there; what is left waits for itself."""
    waits = {step.name: {givers[v].step for v in step.inputs.values() if v in givers} for step in pipeline.steps}
    while ready := [name for name, others in waits.items() if not others & waits.keys()]:
        for name in ready:
            del waits[name]
    if not waits:
        return
    chain = [next(iter(waits))]
    while True:
        following = min(waits[chain[-1]] & waits.keys())
        if following in chain:
            circle = [*chain[chain.index(following) :], following]
            raise PackagingError(
                f"the steps wait for each other: {' waits for '.join(map(repr, circle))}; a pipeline has no circles, "
                "and a step that calls others again and again is a Python model with BLS"
            )
        chain.append(following)


def _agreed(value: str, giver: End | None, takers: list[End]) -> TensorType:
    """The type of a value on which all who touch it agree, with the lengths that any of them knows."""
    source, *others = [*([giver] if giver else []), *takers]
    kind = source.kind
    for end in others:
        if not _agree(kind, end.kind):
            told = f"{source} {'gives' if source is giver else 'takes'} it"
            raise PackagingError(f"{end} takes {end.kind}, but the value {value!r} is {kind}, as {told}")
        dims = tuple(b if a == ANY_LENGTH else a for a, b in zip(kind.dims, end.kind.dims, strict=True))
        if dims != kind.dims:
            kind, source = TensorType(kind.datatype, dims), end
    return kind


def _agree(one: TensorType, other: TensorType) -> bool:
    return (
        one.datatype == other.datatype
        and len(one.dims) == len(other.dims)
        and all(a == b or ANY_LENGTH in (a, b) for a, b in zip(one.dims, other.dims, strict=True))
    )
