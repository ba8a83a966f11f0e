"""Writes models into a repository's folder: all of them or nothing.

Everything is written into a temporary folder first and renamed at the end. That folder lies beside the repository where
it can, not in it: Triton takes any folder in its repository for a model, should it start meanwhile or should this
process be killed.
"""

import errno
import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc import model_config_pb2

from conch.packaging.errors import PackagingError
from conch.store.digest import regular_files
from conch.store.errors import StoreError
from conch.triton.config_pbtxt import format_config, is_ensemble, parse_config
from conch.triton.errors import InvalidModelError
from conch.triton.layout import CONFIG

KEEP: Final = ".keep"
"""An empty folder is lost in git, archives and object stores, and a model without a version folder is not served."""
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """One model of a repository as it shall be written."""

    config: Any
    """Its ModelConfig (a protobuf message); becomes config.pbtxt."""
    version: int
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    """Content by path in the model's folder, such as `1/model.onnx`; what a Path names is copied."""


def require_place(out: Path, name: str, version: int) -> None:
    """Raises PackagingError where this version of this model cannot be written to the repository `out`."""
    target = out / name
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        raise PackagingError(f"{out} is no folder; give another --output") from error
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise PackagingError(f"{str(out)!r} cannot be written to: {words}; give another --output") from error
    if (out / CONFIG).exists():
        raise PackagingError(f"{out} is a model's folder, not a repository's; give --output the folder above it")
    for folder in (out, target):
        if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
            raise PackagingError(f"{folder} is no folder; give another --output")
    if os.path.lexists(target / str(version)):
        raise PackagingError(
            f"{target} has a version {version} already, and a version is never overwritten; give another --version "
            f"than {', '.join(map(str, _versions(target)))}, or remove the folder"
        )
    if target.is_dir() and not _versions(target) and any(target.iterdir()):
        raise PackagingError(f"{target} holds something that is no model; give another --name or --output")
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PackagingError(f"{nearest} may not be written to; give another --output or get the right to write there")


def write_model(out: Path, models: Mapping[str, ModelFiles]) -> None:
    """Write the models, by name, into the repository `out`. Raises PackagingError; then nothing has changed.

    A model that is there keeps its other versions, and the new one must take and give the same tensors; what belongs to
    all versions (the configuration, the golden set) is the new one's afterwards. Also of an interruption nothing is
    left.
    """
    _require_places(out, models)
    missing = [folder for folder in (out.absolute(), *out.absolute().parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out), _scratch(out.resolve()) as scratch:
            # Once more: another process may just have written here.
            _require_places(out, models)
            for name, model in models.items():
                _fill(scratch / "new" / name, model, there=out / name)
            _move_in(scratch, out, list(models))
    except BaseException as error:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise _told(error, out) from error
        raise


def _require_places(out: Path, models: Mapping[str, ModelFiles]) -> None:
    for name, model in models.items():
        require_place(out, name, model.version)
        _require_plain(out / name)
        _require_same_tensors(out / name, name, model)


def _require_plain(target: Path) -> None:
    """What is there is taken along, and with a link in it the model would have no digest."""
    if target.is_dir():
        try:
            regular_files(target)
        except StoreError as error:
            raise PackagingError(f"{target} cannot get another version: {error.message}") from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time writes to a repository: else the later one would take the earlier one's version away."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _versions(target: Path) -> list[int]:
    if not target.is_dir():
        return []
    return sorted(int(each.name) for each in target.iterdir() if each.is_dir() and _VERSION.fullmatch(each.name))


def _told(error: OSError, out: Path) -> PackagingError:
    if error.errno in _FULL:
        return PackagingError(
            f"the model does not fit into {out} ({error.strerror}); make room or give another --output. Nothing is "
            "left of it"
        )
    where = f" ({error.filename})" if error.filename else ""
    return PackagingError(f"the model cannot be written to {out}: {error.strerror or error}{where}")


def _require_same_tensors(target: Path, name: str, model: ModelFiles) -> None:
    """One config.pbtxt describes all versions of a model."""
    file = target / CONFIG
    if not file.is_file():
        return
    try:
        there = parse_config(file.read_text(encoding="utf-8"))
    except (InvalidModelError, UnicodeDecodeError, OSError) as error:
        raise PackagingError(f"{file} cannot be read ({error}); mend it, or give another --name") from error
    for what, old, new in (
        ("backend", _kind(there), _kind(model.config)),
        ("batches", there.max_batch_size > 0, model.config.max_batch_size > 0),
        *(
            (f"{kind} {tensor!r}", before.get(tensor), after.get(tensor))
            for kind, before, after in (
                ("input", _tensors(there.input), _tensors(model.config.input)),
                ("output", _tensors(there.output), _tensors(model.config.output)),
            )
            for tensor in dict.fromkeys((*before, *after))
        ),
    ):
        if old != new:
            raise PackagingError(
                f"{what} of version {model.version} is not that of the versions of {name!r} that are in {target}: "
                f"{_shown(new)}, there {_shown(old)}. One config.pbtxt describes all versions: give another --name"
            )


def _kind(config: Any) -> str:
    return "ensemble" if is_ensemble(config) else str(config.backend or config.platform)


def _tensors(entries: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {each.name: (model_config_pb2.DataType.Name(each.data_type), tuple(each.dims)) for each in entries}


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case (str() as kind, tuple() as dims):
            return f"{kind.removeprefix('TYPE_')} {list(dims)}"
        case _:
            return str(value)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder from which a rename leads into `out`."""
    beside = out.parent
    same = beside.stat().st_dev == out.stat().st_dev and os.access(beside, os.W_OK | os.X_OK)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-conch-", dir=beside if same else out))
    try:
        for part in ("new", "old", "undone"):
            (scratch / part).mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(folder: Path, model: ModelFiles, *, there: Path) -> None:
    folder.mkdir()
    if there.is_dir():
        _take_along(there, folder, renewed={name.partition("/")[0] for name in model.files})
    contents = {CONFIG: format_config(model.config).encode(), **model.files}
    version = str(model.version)
    if not any(name.startswith(f"{version}/") for name in contents):
        contents[f"{version}/{KEEP}"] = b""
    for name, content in contents.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # Never through a link into the model that is there.
        place.unlink(missing_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            place.write_bytes(content)


def _take_along(there: Path, folder: Path, renewed: Set[str]) -> None:
    """The other versions and what lies beside them, as links where the file system has them: no copy of weights.

    Not the folders that are `renewed`: what a model needs beside its versions (a library in a folder of its own) comes
    anew, whole.
    """
    for entry in sorted(there.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            _link(entry, folder / entry.name)
        elif entry.name not in renewed:
            shutil.copytree(entry, folder / entry.name, symlinks=True, copy_function=_link)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _FULL:
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def _move_in(scratch: Path, out: Path, names: list[str]) -> None:
    """The renames: all or none; the last one is of the model that clients call, which needs the others."""
    begun: list[str] = []
    with _uninterrupted():
        try:
            for name in names:
                begun.append(name)
                if (out / name).exists():
                    (out / name).rename(scratch / "old" / name)
                (scratch / "new" / name).rename(out / name)
        except OSError:
            for name in begun:
                if not (scratch / "new" / name).exists():
                    (out / name).rename(scratch / "undone" / name)
                if (scratch / "old" / name).exists():
                    (scratch / "old" / name).rename(out / name)
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _frame: came.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        for received in came:
            signal.raise_signal(received)
