"""A Secret as a kubelet mounts it: files that are links through `..data`, which one rename makes lead elsewhere."""

import itertools
from collections.abc import Mapping
from pathlib import Path


class MountedSecret:
    """The folder of the mount; `put` again is what a kubelet does when the Secret has changed."""

    def __init__(self, folder: Path, entries: Mapping[str, str]) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True)
        self.put(entries)

    def put(self, entries: Mapping[str, str]) -> None:
        """These entries and no others."""
        version = f"..{next(self._numbers)}"
        (self.folder / version).mkdir()
        for name, text in entries.items():
            (self.folder / version / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(version)
        link.rename(self.folder / "..data")
        for path in self.folder.iterdir():
            if not path.name.startswith("..") and path.name not in entries:
                path.unlink()
        for name in entries:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
