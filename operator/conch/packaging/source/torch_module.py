"""A trained module from the user's own Python file: `model.py:net`.

This runs the user's code, as `python model.py` would: it is for the person's own machine, and the operator never does.
"""

import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import conch
from conch.packaging.errors import PackagingError
from conch.packaging.source import torch_extra
from conch.packaging.source.weights import read_weights

with torch_extra():
    import torch
    import torch.nn.utils.prune

_NAMED_AT_MOST: Final = 4
# What wrappers put before the names of all weights: DataParallel, torch.compile.
_WRAPPERS: Final = ("module.", "_orig_mod.")
_FOREIGN: Final = tuple(
    {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")} | set(conch.__path__)
)
# Folders put on sys.path, so that the user's code may import the files beside it.
_folders: set[str] = set()


def load_module(reference: str, weights: Path | None) -> torch.nn.Module:
    """The module that `reference` names, with its weights, in evaluation mode on the CPU.

    It names a module, a module's class, or a function that returns one; the latter two are called without arguments.
    Raises PackagingError.
    """
    _forget_earlier_files()
    # What comes from no file comes from torch's random numbers; the same command gives the same model.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _made(reference, load_object(reference))
    if weights is not None:
        _take_weights(reference, module, weights, read_weights(weights))
    without = [name for name, tensor in module.state_dict(keep_vars=True).items() if tensor.is_meta or _is_lazy(tensor)]
    if without:
        raise PackagingError(
            f"{reference}: {few(without)} of the module have no values yet; give its weights (--weights), or make it "
            "without lazy modules and torch.device('meta')"
        )
    _bake_masks(module)
    return module.cpu().eval()


def load_object(reference: str) -> Any:
    """What the Python file before the colon calls by the name after it. Raises PackagingError."""
    file, separator, name = reference.rpartition(":")
    if not separator or not file or not name.isidentifier():
        raise PackagingError(f"{reference!r} names no object of a Python file; write it as model.py:net")
    path = Path(file)
    if not path.is_file():
        raise PackagingError(f"{file} is not there; give the path of the Python file, from {Path.cwd()}")
    source = _imported(path)
    try:
        return getattr(source, name)
    except AttributeError:
        modules = [known for known, value in vars(source).items() if _is_own_module(value, source)]
        hint = f"its modules are {', '.join(modules)}" if modules else "it has no torch module at all"
        raise PackagingError(f"{file} has no {name!r}; {hint}") from None


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Around what runs the user's code: an error there becomes a PackagingError with its line.

    What the code prints goes to stderr: stdout is for the command's own result.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except PackagingError:
        raise
    # A script that parses arguments exits when it is imported.
    except (Exception, SystemExit) as error:
        raise PackagingError(f"{what} failed{at_line(error)}: {described(error)}") from error


def at_line(error: BaseException) -> str:
    """` at model.py:12`: the innermost line of the user's own code that led to the error; empty where none did."""
    chain: list[BaseException] = []
    while error and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]  # the loop ends at None
    for link in reversed(chain):
        if isinstance(link, SyntaxError) and link.filename and is_users(link.filename):
            return f" at {shown(link.filename)}:{link.lineno}"
        own = [frame for frame in traceback.extract_tb(link.__traceback__) if is_users(frame.filename)]
        if own:
            return f" at {shown(own[-1].filename)}:{own[-1].lineno}"
    return ""


def is_users(filename: str) -> bool:
    """Whether a file is the user's code, not Python's, a package's or ours."""
    return not (
        filename.startswith(("<", *(f"{folder}/" for folder in _FOREIGN)))
        or {"site-packages", "dist-packages"} & set(Path(filename).parts)
    )


def shown(filename: str) -> str:
    """A path as a person would write it here."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def described(error: BaseException) -> str:
    """The error's kind and the first line of what it says."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = text.strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _imported(path: Path) -> ModuleType:
    """The file, run as a module of its name, so that other files beside it that import it get this very module."""
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        _folders.add(folder)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    taken = known is not None or path.stem in sys.stdlib_module_names
    name = f"packaged_{path.stem}" if taken else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PackagingError(f"{path.name} is no Python file; give a file that ends in .py")
    source = importlib.util.module_from_spec(spec)
    sys.modules[name] = source
    try:
        with users_code(f"importing {path.name}"):
            spec.loader.exec_module(source)
    except PackagingError:
        del sys.modules[name]
        raise
    return source


def _forget_earlier_files() -> None:
    """Take out what an earlier module of this process brought: another folder's `layers.py` is another file."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "." not in name and is_users(file):
            folder = Path(file).parent
            if str(folder.parent if Path(file).name == "__init__.py" else folder) in _folders:
                for part in [part for part in sys.modules if part == name or part.startswith(f"{name}.")]:
                    del sys.modules[part]
    sys.path[:] = [folder for folder in sys.path if folder not in _folders]
    _folders.clear()


def _made(reference: str, found: Any) -> torch.nn.Module:
    """The module itself: the object, or what it gives when called."""
    module = found
    if not isinstance(found, torch.nn.Module) and callable(found):
        _require_no_arguments(reference, found)
        with users_code(f"{reference}()"):
            module = found()
    if isinstance(module, torch.jit.ScriptModule):
        raise PackagingError(
            f"{reference} is a TorchScript module, which has no Python code to export any more; give the module that "
            "it was made from"
        )
    if not isinstance(module, torch.nn.Module):
        what = f"returned a {type(module).__name__}" if module is not found else f"is a {type(found).__name__}"
        raise PackagingError(
            f"{reference} {what}; name a torch.nn.Module, its class, or a function without arguments that returns one"
        )
    return module


def _require_no_arguments(reference: str, found: Callable[..., Any]) -> None:
    needed = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        name = reference.rpartition(":")[2]
        raise PackagingError(
            f"{reference} needs arguments ({', '.join(needed)}); add a line that gives them to the file, such as "
            f"`net = {name}({', '.join(f'{argument}=…' for argument in needed)})`, and name that"
        )


def _take_weights(reference: str, module: torch.nn.Module, path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Load the weights into the module; raises PackagingError naming what does not fit."""
    own = module.state_dict(keep_vars=True)
    for prefix in _WRAPPERS:
        if weights and all(name.startswith(prefix) for name in weights) and not any(n.startswith(prefix) for n in own):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    misfits = []
    if missing := [name for name in own if name not in weights and not _is_tied(name, own, weights)]:
        misfits.append(f"without {few(missing)}")
    if unknown := [name for name in weights if name not in own]:
        misfits.append(f"with {few(unknown)}, which the module does not have")
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and not _is_lazy(tensor) and weights[name].shape != tensor.shape
    ]
    if shapes:
        misfits.append(f"with {few(shapes)}")
    if misfits:
        raise PackagingError(
            f"{path} does not fit {reference}: it comes {'; '.join(misfits)}; give the weights of this architecture"
        )
    try:
        module.load_state_dict(weights, strict=False, assign=any(tensor.is_meta for tensor in own.values()))
    except RuntimeError as error:
        raise PackagingError(f"{path} does not fit {reference}: {described(error)}") from error


def _bake_masks(module: torch.nn.Module) -> None:
    """Make the zeros of torch.nn.utils.prune part of the weights: else the graph holds each weight and its mask."""
    for part in module.modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, torch.nn.utils.prune.BasePruningMethod):
                torch.nn.utils.prune.remove(part, hook._tensor_name)


def _is_tied(name: str, own: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> bool:
    """Whether a weight is another name of one that is there: files of safetensors hold shared weights once."""
    tensor = own[name]
    return any(own[other] is tensor for other in weights if other in own)


def _is_lazy(tensor: torch.Tensor) -> bool:
    return bool(torch.nn.parameter.is_lazy(tensor))


def _is_own_module(value: object, source: ModuleType) -> bool:
    """Whether it is a module, or a class of modules that the file itself defines."""
    if isinstance(value, type):
        return issubclass(value, torch.nn.Module) and value.__module__ == source.__name__
    return isinstance(value, torch.nn.Module)


def few(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED_AT_MOST
    return ", ".join(listed[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
