"""Which of a fetched model's files go where in Triton's repository: pure planning over a listing, and one edge.

A repository must hold nothing but the model and what it is composed of (ensemble.py): Triton takes any foreign folder
for a model. So only what is recognised is laid out, as `<name>/config.pbtxt`, `<name>/<version>/...` and the model's
other files.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from conch.api.model import ModelFormat
from conch.triton.bare_file import BareFile, find_bare_file, wanted_words
from conch.triton.errors import InvalidModelError

CONFIG: Final = "config.pbtxt"
ONNX_SUFFIX: Final = ".onnx"
DEFAULT_ONNX: Final = "model.onnx"
GOLDEN_SET: Final = "golden.json"
"""Recorded samples and answers (see golden_set.py), in the model's folder or beside a bare graph."""
_VERSION: Final = re.compile(r"[1-9][0-9]*")
_LISTED_MOST: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A fetched tree: relative posix paths of its files and of its folders."""

    files: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def of(cls, files: Iterable[str], folders: Iterable[str] = ()) -> "Tree":
        """A tree from file names; the folders they lie in are added."""
        names = frozenset(files)
        parents = {str(p) for name in (*names, *folders) for p in PurePosixPath(name).parents if str(p) != "."}
        return cls(files=names, folders=frozenset(folders) | parents)

    def below(self, folder: str) -> "Tree":
        """The tree inside a folder."""
        start = f"{folder}/"
        return Tree(
            files=frozenset(f.removeprefix(start) for f in self.files if f.startswith(start)),
            folders=frozenset(f.removeprefix(start) for f in self.folders if f.startswith(start)),
        )

    @property
    def top_files(self) -> list[str]:
        """Files directly in the tree's root."""
        return sorted(f for f in self.files if "/" not in f)

    @property
    def top_folders(self) -> list[str]:
        """Folders directly in the tree's root."""
        return sorted(f for f in self.folders if "/" not in f)

    @property
    def versions(self) -> list[int]:
        """Version folders directly in the tree's root."""
        return sorted(int(f) for f in self.top_folders if _VERSION.fullmatch(f))

    @property
    def is_model(self) -> bool:
        """Whether this is a Triton model directory."""
        return CONFIG in self.files or bool(self.versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The model within a fetched tree."""

    root: str
    """Folder of the model within the fetched tree; empty for the tree itself."""
    tree: Tree
    """What lies below `root`."""
    bare: BareFile | None = None
    """The file that is the model, below `root`; None for a Triton model directory."""

    @property
    def has_config(self) -> bool:
        """Whether the model's author gave a config.pbtxt."""
        return self.bare is None and CONFIG in self.tree.files

    @property
    def golden_set(self) -> str | None:
        """The model's golden set, within the fetched tree."""
        prefix = f"{self.root}/" if self.root else ""
        return prefix + GOLDEN_SET if GOLDEN_SET in self.tree.files else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What to put into `<repository>/<name>`: target -> source in the fetched tree, and its version folder."""

    links: dict[str, str]
    version_folder: str


def find_model(tree: Tree, *, name: str, format: ModelFormat) -> Found:
    """Recognise the model `name` in a fetched tree; raises InvalidModelError."""
    others: list[str] = []
    for root in ("", *_wrapping_folder(tree)):
        inner = tree.below(root) if root else tree
        prefix = f"{root}/" if root else ""
        if format in (ModelFormat.AUTO, ModelFormat.REPOSITORY):
            if inner.is_model:
                return Found(root=root, tree=inner)
            models = [folder for folder in inner.top_folders if inner.below(folder).is_model]
            if name in models:
                return Found(root=prefix + name, tree=inner.below(name))
            # A single one may be the folder that everything is packed into.
            others = models or others
            if len(models) > 1:
                break
        if format is not ModelFormat.REPOSITORY and (bare := _bare_file(inner, format)):
            return Found(root=root, tree=inner, bare=bare)
    if others:
        raise InvalidModelError(
            f"the source holds {'the models' if len(others) > 1 else 'the model'} {_listed(others)} but none named "
            f"{name!r}; set spec.model.name to the one to serve"
        )
    raise InvalidModelError(f"the source holds {_listed(sorted(tree.files))}; expected is {wanted_words(format)}")


def find_within(tree: Tree, folder: str, *, name: str, format: ModelFormat) -> Found:
    """Recognise the model `name` in one folder of a fetched tree (empty: in all of it); raises InvalidModelError."""
    found = find_model(tree.below(folder) if folder else tree, name=name, format=format)
    return replace(found, root="/".join(part for part in (folder, found.root) if part))


def find_beside(tree: Tree, found: Found, name: str) -> Found | None:
    """The model `name` in the folder that a found model lies in; None where there is none."""
    parent = PurePosixPath(found.root).parent if found.root else None
    if parent is None:
        return None
    root = (parent / name).as_posix()
    inner = tree.below(root)
    is_there = root in tree.folders and "/" not in name and inner.is_model
    return Found(root=root, tree=inner) if is_there else None


def plan_layout(found: Found, *, version: int, is_ensemble: bool = False, is_step: bool = False) -> Layout:
    """Select exactly one version of the model; raises InvalidModelError if it is not there.

    `is_step`: of a step that was found beside its ensemble.

    An ensemble's version folder is empty by nature and gets lost in archives and object stores: it is made anew.
    """
    prefix = f"{found.root}/" if found.root else ""
    folder = str(version)
    if found.bare is not None:
        # What lies beside it (weights, modules) is taken along under the names by which the model knows it.
        files = found.tree.files if found.bare.kind.with_folders else found.tree.top_files
        links = {file if file == GOLDEN_SET else f"{folder}/{file}": prefix + file for file in files}
        return Layout(links=links, version_folder=folder)
    if version not in found.tree.versions and not is_ensemble:
        if not found.tree.versions:
            raise InvalidModelError(
                f"the model has no version folder; put its files into a folder {version} beside its {CONFIG}"
            )
        there = _listed([str(v) for v in found.tree.versions])
        remedy = "model_version of the step" if is_step else "spec.model.version"
        raise InvalidModelError(f"the model has no version {version}; it has {there}; set {remedy} to one of them")
    links = {file: prefix + file for file in found.tree.files if file != CONFIG and not _is_other_version(file, folder)}
    return Layout(links=links, version_folder=folder)


def read_tree(folder: Path) -> Tree:
    """The listing of a folder on disk."""
    files, folders = [], []
    for parent, names, leaves in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        files += [(relative / leaf).as_posix() for leaf in leaves]
        folders += [(relative / name).as_posix() for name in names]
    return Tree(files=frozenset(files), folders=frozenset(folders))


def make_layout(layout: Layout, fetched: Path, target: Path, written: Mapping[str, bytes] | None = None) -> None:
    """Put a layout into `target` (which must not exist) by links: no copy, and the fetched tree stays whole.

    `written` are files that have another content for Triton than in the source.
    """
    (target / layout.version_folder).mkdir(parents=True)
    changed = written or {}
    for name, source in sorted(layout.links.items()):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name in changed:
            place.write_bytes(changed[name])
            continue
        file = fetched / source
        if file.is_symlink():
            place.symlink_to(file.readlink())
        else:
            place.hardlink_to(file)


def _is_other_version(file: str, version: str) -> bool:
    top = file.partition("/")[0]
    return top != version and _VERSION.fullmatch(top) is not None


def _wrapping_folder(tree: Tree) -> list[str]:
    """The one folder that everything lies in, as `tar czf model.tar.gz model/` makes it."""
    return tree.top_folders if len(tree.top_folders) == 1 and not tree.top_files else []


def _bare_file(tree: Tree, format: ModelFormat) -> BareFile | None:
    files = [file for file in tree.top_files if file != GOLDEN_SET]
    return find_bare_file(files, format, alone=not tree.top_folders)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    shown = ", ".join(every[:_LISTED_MOST])
    return f"{shown} and {len(every) - _LISTED_MOST} more" if len(every) > _LISTED_MOST else shown or "no file"
