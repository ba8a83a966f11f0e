"""What of a repository may be opened."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.packaging.errors import PackagingError
from conch.store.digest import regular_files
from conch.store.errors import StoreError
from conch.triton.layout import CONFIG, read_tree

_TEXT_BYTES_MOST: Final = 16 << 20
"""Of configurations, labels and records: whoever wrote them, they are read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What may be opened: plain files of its models, so that no name in a file leads to anything else."""

    root: Path
    files: Mapping[str, frozenset[str]]
    """By model; none of one that holds links or special files."""
    is_whole: bool
    """Whether all of it is looked at, not one model's folder."""

    @classmethod
    def of(cls, root: Path, models: list[str], *, is_whole: bool) -> "Repository":
        """Look at the folders of these models; what is no plain file is the digest's own finding."""
        files: dict[str, frozenset[str]] = {}
        for name in models:
            folder = root / name
            with suppress(StoreError, OSError):
                files[name] = frozenset(each.relative_to(folder).as_posix() for each in regular_files(folder))
        return cls(root=root, files=files, is_whole=is_whole)

    def has(self, place: str) -> bool:
        """Whether there is such a file, by its path in the repository."""
        model, _, file = place.partition("/")
        return file in self.files.get(model, frozenset())

    def read(self, place: str, most: int = _TEXT_BYTES_MOST) -> bytes:
        """A file; raises OSError where there is none, or a larger one."""
        if not self.has(place):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        with (self.root / place).open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise OSError(errno.EFBIG, f"it has more than {most >> 20} MiB", place)
        return content


def folders_of(repository: Path) -> tuple[Path, list[str]]:
    """(the repository, the models in it); of a model's own folder the folder above it. Raises PackagingError."""
    if not repository.is_dir():
        raise PackagingError(f"{repository} is no folder; give a repository, or the folder of one of its models")
    tree = read_tree(repository)
    if tree.is_model:
        folder = repository if repository.name not in ("", "..") else repository.resolve()
        return folder.parent, [folder.name]
    folders = [name for name in tree.top_folders if tree.below(name).is_model]
    if not folders:
        raise PackagingError(
            f"{repository} holds no model: no folder in it has a {CONFIG} or a version folder; give a repository, or "
            "the folder of one of its models"
        )
    return repository, folders
