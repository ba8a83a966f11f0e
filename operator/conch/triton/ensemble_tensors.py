"""How an ensemble's steps hand tensors on: each must be given by somebody, and fit those who take it.

As Triton checks it when it loads an ensemble, but earlier, and with what to do. What a member leaves to Triton to
complete from its file is not known here, and not checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import TYPE_INVALID

from conch.triton.errors import InvalidModelError
from conch.triton.tensor_check import fit, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """One end of a tensor's way through an ensemble."""

    what: str
    """Such as: output 'y' of step 1 (mlp)."""
    tensor: Any | None
    """Its entry in that model's configuration; None where that does not tell."""


def check_steps(ensemble: Any, models: Mapping[str, Any]) -> None:
    """Check an ensemble's steps against the configurations of their models, by name; other models pass.

    Raises InvalidModelError.
    """
    if not ensemble.ensemble_scheduling.step:
        return
    given = {tensor.name: _End(what="input of the ensemble", tensor=tensor) for tensor in ensemble.input}
    for number, step in enumerate(ensemble.ensemble_scheduling.step, 1):
        model = models[step.model_name]
        _check_inputs(number, step, model)
        for name, tensor in step.output_map.items():
            if tensor in given:
                raise InvalidModelError(
                    f"{_step(number, step)} gives the tensor {tensor!r}, which is there already as "
                    f"{given[tensor].what}; rename one of them"
                )
            entry = _entry(number, step, "output", name, model.output, tensor)
            given[tensor] = _End(what=f"output {name!r} of {_step(number, step)}", tensor=entry)
    for number, step in enumerate(ensemble.ensemble_scheduling.step, 1):
        for name, tensor in step.input_map.items():
            entry = _entry(number, step, "input", name, models[step.model_name].input, tensor)
            if tensor not in given:
                raise InvalidModelError(
                    f"{_step(number, step)} takes the tensor {tensor!r}, which is neither an input of the ensemble nor "
                    "in the output_map of another step; correct its input_map"
                )
            _check_fit(tensor, given[tensor], _End(what=f"input {name!r} of {_step(number, step)}", tensor=entry))
    for output in ensemble.output:
        if output.name not in given:
            raise InvalidModelError(
                f"no step gives the ensemble's output {output.name!r}; name it in a step's output_map, or remove it"
            )
        _check_fit(output.name, given[output.name], _End(what="output of the ensemble", tensor=output))


def _check_inputs(number: int, step: Any, model: Any) -> None:
    missing = [tensor.name for tensor in model.input if not tensor.optional and tensor.name not in step.input_map]
    if missing:
        raise InvalidModelError(
            f"{_step(number, step)} gets nothing for its input {missing[0]!r}; add it to the step's input_map"
        )


def _entry(number: int, step: Any, kind: str, name: str, tensors: Any, handed: str) -> Any | None:
    """The model's entry of a mapped tensor; None for a model that leaves its tensors to Triton."""
    if not tensors:
        return None
    found = next((tensor for tensor in tensors if tensor.name == name), None)
    if found is None:
        has = ", ".join(tensor.name for tensor in tensors)
        raise InvalidModelError(
            f"{_step(number, step)} has no {kind} {name!r}, to which {kind}_map gives {handed!r}; it has {has}"
        )
    return found


def _check_fit(name: str, giver: _End, taker: _End) -> None:
    one, other = giver.tensor, taker.tensor
    if one is None or other is None:
        return
    if TYPE_INVALID not in (one.data_type, other.data_type) and one.data_type != other.data_type:
        raise InvalidModelError(
            f"the tensor {name!r} is {type_name(one.data_type)} as {giver.what}, and {type_name(other.data_type)} as "
            f"{taker.what}; make them equal"
        )
    given, taken = tuple(one.dims), tuple(other.dims)
    if not given or not taken:
        return
    # A model that takes batches has one axis more than its configuration says, and Triton may find that out by itself.
    if not any(fit(*pair) for pair in ((given, taken), ((-1, *given), taken), (given, (-1, *taken)))):
        raise InvalidModelError(
            f"the tensor {name!r} has the dims {list(given)} as {giver.what}, and {list(taken)} as {taker.what}; make "
            "them equal"
        )


def _step(number: int, step: Any) -> str:
    return f"step {number} ({step.model_name})"
