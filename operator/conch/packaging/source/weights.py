"""Weights from a file, without running what the file says.

A `.pth` is a pickle, and a pickle is a program: only what torch reads with `weights_only=True` is read, whoever made
it.
A `.safetensors` holds numbers and nothing else.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

from conch.packaging.errors import PackagingError
from conch.packaging.source import torch_extra

with torch_extra():
    import safetensors
    import safetensors.torch
    import torch

_PICKLES: Final = (".pth", ".pt", ".bin", ".ckpt")
# Where training scripts put the weights when they save more than these.
_WEIGHTS_WITHIN: Final = ("state_dict", "model_state_dict", "model")
_GLOBAL: Final = re.compile(r"GLOBAL (\S+)")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors`, or of a `.pth`, `.pt`, `.bin` or `.ckpt` that holds nothing but weights.

    Of a training checkpoint, its `state_dict`. On the CPU, whatever they were saved from. Raises PackagingError.
    """
    if not path.is_file():
        raise PackagingError(f"the weights {path} are {'no file' if path.exists() else 'not there'}; give a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _PICKLES:
        return _state_dict(path, _read_pickle(path))
    raise PackagingError(
        f"{path.name}: weights are read from .safetensors or {', '.join(_PICKLES)}; save them with "
        "safetensors.torch.save_file(module.state_dict(), 'net.safetensors')"
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(path, device="cpu"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise PackagingError(f"{path} is damaged or no safetensors file ({error}); save it again") from error


def _read_pickle(path: Path) -> object:
    try:
        # A TorchScript archive makes torch warn before it raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, OSError, KeyError) as error:
        text = str(error)
        if "TorchScript" in text:
            raise PackagingError(
                f"{path} is a TorchScript archive, not weights; give the weights of the module that it was made from"
            ) from error
        if found := _GLOBAL.search(text):
            raise PackagingError(
                f"{path} holds pickled code ({found[1]}), which would run if it were read, so it is not; "
                "where you trained it, save the weights alone: safetensors.torch.save_file(net.state_dict(), "
                "'net.safetensors'), or torch.save(net.state_dict(), 'net.pth')"
            ) from error
        # torch advises weights_only=False for most of what it cannot read; nobody is told that here.
        why = "" if "weights_only" in text else f" ({text.strip() or 'it ends early'})"
        raise PackagingError(f"{path} is damaged or not written by torch.save{why}; save it again") from error


def _state_dict(path: Path, content: object) -> dict[str, torch.Tensor]:
    for key in _WEIGHTS_WITHIN:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise PackagingError(
            f"{path} holds a {type(content).__name__}, not a module's weights; save module.state_dict() instead"
        )
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise PackagingError(
            f"{path} holds more than tensors ({', '.join(others[:4])}{', …' if len(others) > 4 else ''}), and none of "
            f"them is named {' or '.join(_WEIGHTS_WITHIN)}; save module.state_dict() alone"
        )
    return {str(name): value for name, value in content.items()}
