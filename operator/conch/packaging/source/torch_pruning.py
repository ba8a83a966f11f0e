"""Structured pruning: whole channels are taken out of a module, so that what is left is smaller and faster.

Which layers hang together (a convolution, its batch norm, the next layer's inputs) torch-pruning finds out by tracing.
What must keep its width is found here, in the graph of autograd: the layers that make the outputs, and those whose
channels a later operation cuts into heads of attention.
"""

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from conch.packaging.errors import PackagingError
from conch.packaging.source import torch_extra
from conch.packaging.source.torch_module import at_line, described, few, load_object, users_code
from conch.packaging.source.torch_run import named_leaves, run_module, torch_tensors
from conch.packaging.tensors import Tensors

with torch_extra():
    import torch
    import torch_pruning

# Layers with channels of their own; a recurrent layer's gates lie in one matrix, and it stays whole.
_LAYERS: Final = (torch.nn.Linear, torch.nn.modules.conv._ConvNd, torch.nn.Embedding)
_WHOLE: Final = (torch.nn.RNNBase, torch.nn.RNNCellBase, torch.nn.MultiheadAttention)
# Autograd's names of products of two activations: attention.
_ATTENTION: Final = re.compile(r"ScaledDotProduct|Bmm|Baddbmm")


def prune_module(module: torch.nn.Module, example: Tensors, *, share: float, finetune: str | None) -> torch.nn.Module:
    """A copy without `share` of the channels (those of the least magnitude), trained further by `finetune`.

    `finetune` is `train.py:fit`, called with the pruned module; it trains it in place or returns it. Outputs keep their
    widths. Raises PackagingError.
    """
    if not 0 < share < 1:
        raise PackagingError(f"prune={share:g} is no share of the channels; give a number between 0 and 1, such as 0.5")
    expected = {name: array.shape for name, array in run_module(module, example).items()}
    whole = _left_whole(_copy(module), example)
    pruned, failure = _without_channels(module, example, share, whole, expected)
    if failure is not None:
        # Widths that stand as numbers in the module's code show only when tried; the layers they belong to stay whole.
        candidates = [name for name, part in module.named_modules() if isinstance(part, _LAYERS) and name not in whole]
        whole |= {name for name in candidates if not _bears_pruning(module, example, name, expected)}
        pruned, failure = _without_channels(module, example, share, whole, expected)
    if failure is not None:
        raise failure
    if _size(pruned) >= _size(module):
        raise PackagingError(_why_nothing(module, whole, share))
    if finetune is not None:
        pruned = _finetuned(pruned, finetune)
        if misfit := _misfit(pruned, example, expected):
            raise PackagingError(f"after {finetune} {misfit}")
    return pruned.eval()


def _copy(module: torch.nn.Module) -> torch.nn.Module:
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise PackagingError(
            f"the module cannot be copied{at_line(error)}, which pruning needs: {described(error)}; keep in it what is "
            "made of modules, parameters and buffers"
        ) from error
    # What was frozen for training is pruned like all else, and tracing follows gradients.
    return copied.requires_grad_(True)


def _left_whole(module: torch.nn.Module, example: Tensors) -> set[str]:
    """Names of the layers that keep their channels: those whose channels reach an output or a product of attention
    before another layer takes them in, and what feeds layers that stay whole themselves."""
    name_of = {part: name for name, part in module.named_modules()}
    made: dict[Any, str] = {}  # by the autograd node that a layer's answer comes from
    taken: list[tuple[torch.nn.Module, Any]] = []

    def remember(part: torch.nn.Module, inputs: Any, keywords: Any, answer: Any) -> None:
        taken.extend((part, node) for node in _nodes((inputs, keywords)))
        made.update((node, name_of[part]) for node in _nodes(answer))

    hooks = [
        part.register_forward_hook(remember, with_kwargs=True)
        for part in module.modules()
        if isinstance(part, (*_LAYERS, *_WHOLE))
    ]
    with torch.enable_grad():
        answer = module(**torch_tensors(module, example))
    for hook in hooks:
        hook.remove()
    whole = {name for part, name in name_of.items() if isinstance(part, _WHOLE)}
    # What is inside a layer that stays whole, such as the projection of nn.MultiheadAttention.
    whole |= {name for name in name_of.values() if any(name.startswith(f"{outer}.") for outer in whole)}
    whole |= {name for node in _nodes(answer) for name, _ in _makers(node, made)}
    for part, node in taken:
        stays = isinstance(part, _WHOLE)
        whole |= {name for name, attended in _makers(node, made) if stays or attended}
    return whole


def _nodes(value: object) -> Iterator[Any]:
    """The autograd nodes of the tensors in what a module takes or returns."""
    match value:
        case torch.Tensor():
            if value.grad_fn is not None:
                yield value.grad_fn
        case Mapping():
            for part in value.values():
                yield from _nodes(part)
        case tuple() | list():
            for part in value:
                yield from _nodes(part)


def _makers(node: Any, made: Mapping[Any, str]) -> Iterator[tuple[str, bool]]:
    """The layers that a node's value comes from directly, and whether through a product of attention."""
    waiting, seen = [(node, False)], set()
    while waiting:
        here, attended = waiting.pop()
        if (here, attended) in seen:
            continue
        seen.add((here, attended))
        if here in made:
            yield made[here], attended
            continue
        attended = attended or bool(_ATTENTION.search(here.name()))
        waiting.extend((earlier, attended) for earlier, _ in here.next_functions if earlier is not None)


def _without_channels(
    module: torch.nn.Module, example: Tensors, share: float, whole: set[str], expected: Mapping[str, tuple[int, ...]]
) -> tuple[torch.nn.Module, PackagingError | None]:
    """A pruned copy, and what is wrong with it."""
    copied = _copy(module)
    inputs = torch_tensors(copied, example)
    try:
        with _quiet():
            pruner = torch_pruning.pruner.BasePruner(
                copied,
                inputs,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=share,
                ignored_layers=[part for name, part in copied.named_modules() if name in whole],
                forward_fn=_run,
                output_transform=_differentiable,
            )
            pruner.step()
    except Exception as error:
        return copied, PackagingError(
            f"the module cannot be pruned{at_line(error)}: {described(error)}; leave prune out, or use plain layers"
        )
    failure = _misfit(copied, example, expected)
    return copied, PackagingError(f"pruned, {failure}") if failure else None


def _bears_pruning(
    module: torch.nn.Module, example: Tensors, name: str, expected: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether the module still runs without one channel of this layer."""
    copied = _copy(module)
    try:
        with _quiet():
            graph = torch_pruning.DependencyGraph().build_dependency(
                copied, torch_tensors(copied, example), forward_fn=_run, output_transform=_differentiable
            )
            layer = copied.get_submodule(name)
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, idxs=[0]).prune()
    except Exception:
        return False
    return _misfit(copied, example, expected) is None


def _misfit(module: torch.nn.Module, example: Tensors, expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """What the module does not answer as the original does."""
    try:
        found = {name: array.shape for name, array in run_module(module, example).items()}
    except PackagingError as error:
        return f"{error}; where the code has a width as a number, take it from the tensor"
    if found != expected:
        return f"the module's outputs are {found} instead of {dict(expected)}; outputs must keep their names and widths"
    return None


def _finetuned(pruned: torch.nn.Module, finetune: str) -> torch.nn.Module:
    fit = load_object(finetune)
    pruned.train()
    # Shuffling and dropout are the same each time, so that the same command gives the same model.
    with users_code(f"{finetune}(module)"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = fit(pruned)
    if trained is None:
        return pruned
    if not isinstance(trained, torch.nn.Module):
        raise PackagingError(
            f"{finetune} returned a {type(trained).__name__}; train the given module in place, or return the module"
        )
    return trained


def _why_nothing(module: torch.nn.Module, whole: set[str], share: float) -> str:
    layers = [name for name, part in module.named_modules() if isinstance(part, (*_LAYERS, *_WHOLE))]
    if free := [name for name in layers if name not in whole]:
        return (
            f"prune={share:g} of the channels of {few(map(repr, free))} would leave none of them; give a smaller share"
        )
    return (
        f"nothing of the module can be pruned; its layers ({few(map(repr, layers)) or 'it has none'}) make outputs, "
        "are recurrent, belong to attention or have their width in the code, and keep their channels; leave prune out"
    )


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _run(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    return module(**inputs)


def _differentiable(answer: object) -> list[torch.Tensor]:
    return [value for value in named_leaves(answer).values() if value.grad_fn is not None]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
