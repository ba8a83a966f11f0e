"""A torch module run: its inputs and outputs by name, as its graph will have them."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np

from conch.packaging.errors import PackagingError
from conch.packaging.source import torch_extra
from conch.packaging.source.torch_module import at_line, described
from conch.packaging.tensors import Array, Tensors

with torch_extra():
    import torch


def run_module(module: torch.nn.Module, inputs: Tensors) -> dict[str, Array]:
    """What the module itself answers, under the names that its graph's outputs have. Raises PackagingError."""
    with serving(module):
        return {
            name: tensor.contiguous().numpy()
            for name, tensor in outputs_of(module, torch_tensors(module, inputs)).items()
        }


def torch_tensors(module: torch.nn.Module, inputs: Tensors) -> dict[str, torch.Tensor]:
    """As the module's forward takes them: by its names, in its order."""
    parameters = inspect.signature(module.forward).parameters.values()
    unnamed = [
        str(parameter)
        for parameter in parameters
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY)
    ]
    if unnamed:
        raise PackagingError(
            f"forward of {_kind(module)} takes {unnamed[0]}, so that its inputs have no names; name each of them"
        )
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    needed = {p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    missing, unknown = needed - inputs.keys(), [name for name in inputs if name not in known]
    if missing or (unknown and len(known) == len(parameters)):
        raise PackagingError(
            f"forward of {_kind(module)} takes ({', '.join(known)}), and the example has ({', '.join(inputs)}); name "
            "the example's tensors as forward's parameters"
        )
    return {name: _tensor(name, inputs[name]) for name in (*known, *unknown) if name in inputs}


def outputs_of(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor], *, single: bool = False
) -> dict[str, torch.Tensor]:
    """What the module answers, by name. `single`: the example had one sample, and was repeated."""
    try:
        with redirect_stdout(sys.stderr):
            answer = module(**tensors)
    except Exception as error:
        if single and _runs(module, {name: tensor[:1] for name, tensor in tensors.items()}):
            raise PackagingError(
                f"the batch axis is frozen: the module runs on one sample, and fails on two{at_line(error)}: "
                f"{described(error)}; take the batch size from the input: x.shape[0]"
            ) from error
        wide = [name for name, tensor in tensors.items() if tensor.dtype is torch.float64]
        hint = f" ({', '.join(wide)} of the example is float64; should it be float32?)" if wide else ""
        raise PackagingError(f"the module fails on the example{at_line(error)}: {described(error)}{hint}") from error
    outputs = named_leaves(answer)
    for name, value in outputs.items():
        if not isinstance(value, torch.Tensor):
            raise PackagingError(
                f"the module's output {name!r} is a {type(value).__name__}; return a tensor, or a tuple, a named tuple "
                "or a dict of tensors"
            )
        if value.layout is not torch.strided or value.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
            raise PackagingError(
                f"the module's output {name!r} is {value.layout} of {value.dtype}, which is not served; return it as a "
                "dense tensor of floats: .to_dense(), .float(), torch.view_as_real"
            )
    if not outputs:
        raise PackagingError("the module returns nothing; return a tensor")
    return outputs


def named_leaves(value: object, name: str = "") -> dict[str, Any]:
    """What a module returns, flat: by a dict's keys, a named tuple's fields, else `output` and numbers.

    >>> named_leaves((1, 2)), named_leaves({"label": 1, "state": (2, 3)})
    ({'output_0': 1, 'output_1': 2}, {'label': 1, 'state_0': 2, 'state_1': 3})
    """
    within = f"{name}_" if name else ""
    parts: list[tuple[str, object]]
    match value:
        case Mapping():
            if strange := [key for key in value if not isinstance(key, str) or not key]:
                raise PackagingError(
                    f"the module returns a dict with the key {strange[0]!r}; outputs are named by texts"
                )
            parts = [(f"{within}{key}", part) for key, part in value.items()]
        case tuple() if hasattr(value, "_fields"):
            parts = [(f"{within}{field}", part) for field, part in zip(value._fields, value, strict=True)]
        case tuple() | list():
            many = len(value) > 1
            parts = [(f"{name or 'output'}_{index}" if many else name, part) for index, part in enumerate(value)]
        case _:
            return {name or "output": value}
    found: dict[str, Any] = {}
    for part_name, part in parts:
        for leaf, content in named_leaves(part, part_name).items():
            if leaf in found:
                raise PackagingError(f"two outputs of the module are named {leaf!r}; rename one")
            found[leaf] = content
    return found


def require_rows(example: Tensors) -> int:
    """The example's number of samples; raises PackagingError where its arrays disagree about it."""
    if not example:
        raise PackagingError("the example has no tensor; give one batch of the module's inputs")
    if scalars := [name for name, array in example.items() if array.ndim == 0]:
        raise PackagingError(f"the example's {', '.join(scalars)} is a scalar; axis 0 of every input is the batch")
    lengths = {name: int(array.shape[0]) for name, array in example.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise PackagingError(
            "axis 0 of every input is the batch, and has the same length of at least 1; the example's are "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
        )
    return min(lengths.values())


@contextmanager
def serving(module: torch.nn.Module) -> Iterator[None]:
    """The module as it serves: no dropout, no gradients, and without torch's fused attention layers.

    These answer zeros at padded positions, where the layers' own code, which is what is exported, does not.
    """
    training = [part for part in module.modules() if part.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for part in training:
            part.training = True


def _tensor(name: str, array: Array) -> torch.Tensor:
    try:
        # A copy: torch warns about arrays that are not to be written to.
        return torch.from_numpy(np.array(array))
    except TypeError as error:
        raise PackagingError(
            f"the example's {name} holds {array.dtype}, which is no tensor of torch; give numbers (texts become "
            "numbers with --tokenizer)"
        ) from error


def _runs(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    try:
        module(**tensors)
    except Exception:
        return False
    return True


def _kind(module: torch.nn.Module) -> str:
    return type(module).__name__
