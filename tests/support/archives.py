"""Archives for tests."""

import io
import tarfile
import zipfile
from typing import Literal

import zstandard


def tar(files: dict[str, bytes]) -> bytes:
    """Files in a row, not packed."""
    return _tar(files, "w")


def tar_gz(files: dict[str, bytes]) -> bytes:
    """A small archive."""
    return _tar(files, "w:gz")


def tar_zst(files: dict[str, bytes]) -> bytes:
    """The same, packed with zstd."""
    return zstandard.compress(_tar(files, "w"))


def zipped(files: dict[str, bytes]) -> bytes:
    """The same as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar(files: dict[str, bytes], mode: Literal["w", "w:gz"]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
