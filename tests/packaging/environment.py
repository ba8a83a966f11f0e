"""The Python environment that has torch: `python -m tests.packaging.environment ARGUMENTS OF PYTHON`.

It is 5 GB, so there is one per machine and lock, in the cache outside every checkout. Conch itself is not installed in
it but found by PYTHONPATH: each checkout uses its own code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.cluster import cache
from tests.cluster.constants import REPOSITORY
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say, step

LOCK: Final = REPOSITORY / "requirements" / "torch.txt"
_INSTALL_EXPECTED_SECONDS: Final = 150.0
_INSTALL_MOST_SECONDS: Final = 1800
# 2.8 GB of wheels in uv's cache, and 5.3 GB unpacked where that cannot share files with the environment.
_NEEDED_BYTES: Final = 9 * 10**9
_UNUSED_AFTER_SECONDS: Final = 7 * 86_400


def ensure() -> Path:
    """The environment's Python; installs it if this machine has none for this lock."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache.root() / "torch" / cache.digest(version, LOCK.read_bytes())
    python = folder / "bin" / "python"
    if not python.exists():
        with cache.locked(folder.parent / ".lock", what="installs torch"):
            if not python.exists():
                _install(folder)
    # Its age tells which environments no checkout uses any more.
    os.utime(folder)
    return python


def _install(folder: Path) -> None:
    """Makes the environment; whole or not at all."""
    _remove_unused(folder.parent)
    free = shutil.disk_usage(folder.parent).free
    if free < _NEEDED_BYTES:
        raise ClusterError(
            f"The environment with torch needs {_NEEDED_BYTES // 10**9} GB in {folder.parent}, and {free / 1e9:.1f} GB "
            "are free.",
            todo="Free some, or name a folder of a larger disk in CONCH_CACHE.",
        )
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch,
        step("installing torch, 2.8 GB, once per machine", expected_seconds=_INSTALL_EXPECTED_SECONDS),
    ):
        new = Path(scratch) / "venv"
        _uv("venv", "--quiet", "--relocatable", "--python", sys.executable, str(new))
        _uv("pip", "install", "--quiet", "--python", str(new / "bin" / "python"), "--require-hashes", "-r", str(LOCK))
        new.rename(folder)


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_MOST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"Installing torch took more than {_INSTALL_MOST_SECONDS // 60} minutes.",
            todo="Check the network, then run again: what was downloaded is kept.",
        ) from error
    if result.returncode != 0:
        tail = "\n  ".join(result.stderr.strip().splitlines()[-12:])
        raise ClusterError(
            f"Installing torch failed:\n  {tail}",
            todo="Check that the package index is reachable and that the disk is not full, then run again.",
        )


def _remove_unused(folder: Path) -> None:
    """Environments of other locks that nobody has used for a week, and what a killed installation left."""
    for old in folder.iterdir():
        if old.is_dir() and (old.name.startswith(".") or time.time() - old.stat().st_mtime > _UNUSED_AFTER_SECONDS):
            say(f"  removing {old}: no longer used")
            shutil.rmtree(old)


def main() -> None:
    """Becomes the environment's Python with the given arguments, in this checkout."""
    try:
        python = ensure()
    except ClusterError as error:
        say(f"error: {error}")
        raise SystemExit(1) from None
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "operator")}
    environment.pop("VIRTUAL_ENV", None)
    # The models are small, and two threads that wait for each other on a busy machine cost more than they gain.
    environment.setdefault("OMP_NUM_THREADS", "1")
    os.execve(python, [str(python), *sys.argv[1:]], environment)  # noqa: S606 - there is no shell, on purpose


if __name__ == "__main__":
    main()
