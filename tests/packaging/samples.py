"""Builds the samples of manifests/samples by their own scripts: `python -m tests.packaging.samples FOLDER`.

Runs in the environment with torch. What is there already, of the same files, is not made anew.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.constants import REPOSITORY
from tests.cluster.progress import say

SAMPLES: Final = REPOSITORY / "manifests" / "samples"
NAMES: Final = ("linear", "regression", "classifier", "digits-cnn", "sequence", "text", "pipeline")
"""Folders with a package.sh."""
SECOND_VERSIONS: Final = ("digits-cnn", "text")
"""Those with a package-2.sh too."""
_PACKAGING: Final = REPOSITORY / "operator" / "conch" / "packaging"
_LOCK: Final = REPOSITORY / "requirements" / "torch.txt"
_SCRIPT_SECONDS_MOST: Final = 1200
_CONCH: Final = '#!/bin/sh\nexec "{python}" -c "from conch.cli import main; main()" "$@"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A packaged sample."""

    name: str
    version: int
    out: Path
    """What the scripts know as OUT: several samples may share it."""
    told: dict[str, Any]
    """What `conch package --json` printed."""
    printed: str
    """What the script printed before."""

    @property
    def trained(self) -> Path:
        """What train.py has written."""
        return self.out / self.name / "trained"

    @property
    def path(self) -> Path:
        """What is pushed."""
        return Path(self.told["path"])

    @property
    def manifest(self) -> Path:
        """The ModelDeployment."""
        return SAMPLES / self.name / f"model-deployment{'' if self.version == 1 else f'-{self.version}'}.yaml"

    @property
    def score(self) -> float:
        """Of the variant that was kept."""
        kept = self.told["kept"]["name"]
        return next(float(each["score"]["value"]) for each in self.told["variants"] if each["name"] == kept)


def built(name: str, out: Path, *, version: int = 1) -> Built:
    """What `build` has made of the files that are here now; needs no torch. Fails where that is not there."""
    known = _known(name, out, version)
    assert known, f"{out} has no version {version} of the sample {name} as it is now: make samples"
    return Built(name=name, version=version, out=out, told=known["told"], printed=known["printed"])


def build(name: str, out: Path, *, version: int = 1) -> Built:
    """Run package.sh (version 1, which trains) or package-2.sh (which needs that), unless it was run already."""
    known = _known(name, out, version)
    if not known:
        script = SAMPLES / name / ("package.sh" if version == 1 else f"package-{version}.sh")
        say(f"{script.relative_to(REPOSITORY)}")
        if version == 1:
            _remove(out / name)
        _remove(out / name / str(version))
        # The report of --json begins with a line of its own; package.sh trains before, which prints the score.
        printed, told = re.split(r"^(?=\{$)", _run(script, out), maxsplit=1, flags=re.MULTILINE)
        known = {"inputs": _inputs(name), "printed": printed, "told": json.loads(told)}
        _summary(name, out, version).write_text(json.dumps(known))
    return built(name, out, version=version)


def _summary(name: str, out: Path, version: int) -> Path:
    return out / name / f"{version}.json"


def _known(name: str, out: Path, version: int) -> dict[str, Any]:
    """Of an earlier run of the same files; else empty."""
    summary = _summary(name, out, version)
    known: dict[str, Any] = json.loads(summary.read_bytes()) if summary.is_file() else {}
    return known if known.get("inputs") == _inputs(name) else {}


def _run(script: Path, out: Path) -> str:
    with _conch() as folder:
        programs = (str(folder), str(Path(sys.executable).parent), os.environ["PATH"])
        environment = {**os.environ, "OUT": str(out), "PATH": os.pathsep.join(programs)}
        done = subprocess.run(
            [script, "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SCRIPT_SECONDS_MOST,
        )
    assert done.returncode == 0, f"{script}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def _conch() -> Iterator[Path]:
    """A folder with the command `conch`: Conch is not installed where torch is, but found by PYTHONPATH."""
    with tempfile.TemporaryDirectory(prefix="conch-command-") as name:
        command = Path(name, "conch")
        command.write_text(_CONCH.format(python=sys.executable))
        command.chmod(0o755)
        yield Path(name)


def _inputs(name: str) -> str:
    """Of all that decides what comes out."""
    own = (file for file in (SAMPLES / name).rglob("*.*") if not file.name.startswith("model-deployment"))
    files = [*own, *_PACKAGING.rglob("*.py"), _LOCK]
    sums = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts):
        sums.update(f"{file.relative_to(REPOSITORY)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return sums.hexdigest()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Build all of them into a folder."""
    out = Path(sys.argv[1]).resolve()
    for name in NAMES:
        for version in (1, 2) if name in SECOND_VERSIONS else (1,):
            sample = build(name, out, version=version)
            say(f"  {sample.path}  {sample.told['digest']}")


if __name__ == "__main__":
    main()
