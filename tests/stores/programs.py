"""Programs of other people's packages, unpacked in the cache: nothing is installed on the machine."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster import cache
from tests.cluster.constants import SUITE
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step


def npm(package: str, version: str, *, expected_seconds: float) -> Path:
    """The folder with the package's `node_modules`."""

    def fill(folder: Path) -> None:
        # No code of a package runs before the server itself does.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--prefix", str(folder)]
        _run(["npm", "install", *options, f"{package}@{version}"], folder, "Check that the npm registry is reachable.")

    return _cached("npm", f"{package}-{version}", fill, expected_seconds)


def debian(package: str, *, expected_seconds: float) -> Path:
    """The folder with the package's `usr` and `etc`; none of its scripts has run, no service was started."""

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            command, todo = ["apt-get", "download", package], "Is this machine's OS Debian, and its mirror reachable?"
            try:
                _run(command, Path(scratch), todo)
            except ClusterError:
                # A new machine has no lists of packages, and old ones name what is no longer there.
                _run(["apt-get", "update"], Path(scratch), todo)
                _run(command, Path(scratch), todo)
            [archive] = Path(scratch).glob("*.deb")
            _run(["dpkg-deb", "-x", str(archive), str(folder)], Path(scratch), "Is the disk full?")

    return _cached("debian", f"{package}-{SUITE}", fill, expected_seconds)


def _cached(kind: str, name: str, fill: Callable[[Path], None], expected_seconds: float) -> Path:
    target = cache.root() / kind / name
    if target.exists():
        return target
    with cache.locked(target.parent / f".{name}.lock", what=f"fetches {name}"):
        if target.exists():
            return target
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch,
            step(f"fetching {name}", expected_seconds=expected_seconds),
        ):
            fresh = Path(scratch) / name
            fresh.mkdir()
            fill(fresh)
            fresh.rename(target)
    return target


def _run(command: list[str], folder: Path, todo: str) -> None:
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"The program {command[0]} is missing.", todo=f"Install {command[0]}.") from error
    if result.returncode != 0:
        tail = "\n  ".join(result.stderr.strip().splitlines()[-12:])
        raise ClusterError(f"{' '.join(command[:2])} failed:\n  {tail}", todo=todo)
