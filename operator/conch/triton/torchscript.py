"""Whether a `.pt` file is TorchScript, from the list of files that a zip has at its end; nothing in it is run."""

import os
import zipfile
from io import FileIO
from pathlib import Path
from typing import Final

from conch.triton.errors import InvalidModelError
from conch.triton.plain_file import without_waiting

_READ_MOST: Final = 8 << 20
"""Of the archive's list of files: enough for some 90,000 tensors."""
_REMEDY: Final = "save the model with torch.jit.script or torch.jit.trace and torch.jit.save"


def check_torchscript(file: Path, *, name: str) -> None:
    """Raises InvalidModelError for a file that libtorch cannot load as a TorchScript module."""
    try:
        with _Bounded(file) as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InvalidModelError(f"{name} is no TorchScript file ({error}); {_REMEDY}") from error
    parts = {entry.partition("/")[2].partition("/")[0] for entry in entries}
    if "constants.pkl" in parts and "code" in parts:
        return
    if "data.pkl" in parts:
        found = "what torch.save writes, a pickle without the model's code"
    elif "models" in parts or "archive_format" in parts:
        found = "an exported program (.pt2)"
    else:
        found = "another kind of archive"
    raise InvalidModelError(f"{name} is no TorchScript file but {found}; {_REMEDY}")


class _Bounded(FileIO):
    """A file of which no single read takes more than _READ_MOST: the list's length is whatever the file says."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb", opener=without_waiting)

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _READ_MOST:
            raise zipfile.BadZipFile("its list of files is too long")
        return super().read(wanted) or b""
