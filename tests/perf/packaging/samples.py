"""Trains and packages the samples by their own scripts, once, and takes the figures that these print."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.constants import REPOSITORY
from tests.cluster.progress import step
from tests.packaging.samples import SAMPLES, SECOND_VERSIONS

NAMES: Final = ("linear", "regression", "classifier", "digits-cnn", "sequence", "text")
"""The pipeline is left out: its only graph is a small perceptron, and its steps are programs."""
_EXPECTED_SECONDS: Final = {"text": 150.0, "digits-cnn": 60.0}
_CONCH: Final = '#!/bin/sh\nexec "{python}" -m tests.perf.packaging.stopwatch "{times}" "$@"\n'
# Everything a script runs with `python` is its training.
_PYTHON: Final = """#!/bin/sh
began=$(date +%s%N)
"{python}" "$@" || exit
echo "{{\\"trained_ns\\": $(($(date +%s%N) - began))}}" >> "{times}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """One run of a sample's script."""

    name: str
    version: int
    out: Path
    """What the scripts know as OUT."""
    told: Mapping[str, Any]
    """What `conch package --json` printed."""
    training_seconds: float | None
    """Of the whole process; None of version 2, which trains in `stages`."""
    package_seconds: float
    """Of the whole process, the start of Python and torch included."""
    stages: Mapping[str, float]

    @property
    def trained(self) -> Path:
        """What train.py has written."""
        return self.out / self.name / "trained"

    @property
    def repository(self) -> Path:
        """Where its models are."""
        return self.out / self.name / str(self.version)

    @property
    def variants(self) -> list[Mapping[str, Any]]:
        """The first is the graph as it was exported."""
        return list(self.told["variants"])


def package_all(out: Path) -> list[Packaged]:
    """All of them, one after the other."""
    made = []
    for name in NAMES:
        for version in (1, 2) if name in SECOND_VERSIONS else (1,):
            with step(f"{name}, version {version}", expected_seconds=_EXPECTED_SECONDS.get(name, 30.0)):
                made.append(_package(name, out, version))
    return made


def _package(name: str, out: Path, version: int) -> Packaged:
    commands = out / "commands" / f"{name}-{version}"
    commands.mkdir(parents=True)
    times = commands / "times.jsonl"
    for command, content in (("conch", _CONCH), ("python", _PYTHON)):
        file = commands / command
        file.write_text(content.format(python=sys.executable, times=times))
        file.chmod(0o755)
    script = SAMPLES / name / ("package.sh" if version == 1 else f"package-{version}.sh")
    environment = {
        **os.environ,
        "OUT": str(out),
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "operator"), str(REPOSITORY))),
    }
    began = time.monotonic()
    done = subprocess.run([script, "--json"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} failed after {time.monotonic() - began:.0f} s: {done.stdout[-500:]}{done.stderr}")
    lines = [json.loads(line) for line in times.read_text().splitlines()]
    training = [line["trained_ns"] / 1e9 for line in lines if "trained_ns" in line]
    (packaging,) = (line for line in lines if "stages" in line)
    return Packaged(
        name=name,
        version=version,
        out=out,
        told=json.loads("{" + ("\n" + done.stdout).rpartition("\n{\n")[2]),
        training_seconds=sum(training) if training else None,
        package_seconds=packaging["seconds"],
        stages=packaging["stages"],
    )
