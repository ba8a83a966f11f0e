"""Where the time goes while something is measured: flame graph of the operator, Go profile of the API server."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.progress import say
from tests.perf.scale.world import World

_PY_SPY: Final = Path(sys.executable).with_name("py-spy")
_API_SERVER_SECONDS: Final = 25
"""The API server ends a request after 60 s, a profile too."""


@contextmanager
def profiled(world: World, operator_pid: int, folder: Path | None, phase: str) -> Iterator[None]:
    """Write `PHASE-operator.svg` and `PHASE-kube-apiserver.txt` of what happens meanwhile; nothing without a folder."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    samples, server = folder / f"{phase}-kube-apiserver.pprof", world.api.bin / "kube-apiserver"
    kubectl = (str(world.api.bin / "kubectl"), f"--kubeconfig={world.api.kubeconfig}")
    record = (str(_PY_SPY), "record", "--nonblocking", "--threads", "--duration", "unlimited")
    with (folder / f"{phase}.log").open("wb") as log, samples.open("wb") as out:
        flames = subprocess.Popen(
            [*record, "--pid", str(operator_pid), "--output", str(folder / f"{phase}-operator.svg")],
            stdout=log,
            stderr=log,
        )
        profile = subprocess.Popen(
            [*kubectl, "get", "--raw", f"/debug/pprof/profile?seconds={_API_SERVER_SECONDS}"], stdout=out, stderr=log
        )
        try:
            yield
        finally:
            flames.send_signal(signal.SIGINT)
            flames.wait()
            profile.wait()
    top = ["go", "tool", "pprof", "-top", "-cum", "-nodecount=200", str(server), str(samples)]
    text = subprocess.run(top, capture_output=True, text=True, check=True).stdout
    samples.with_suffix(".txt").write_text(text)
    say(f"  profiles of {phase}: {folder}")
