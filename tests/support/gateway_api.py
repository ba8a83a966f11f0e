"""The Gateway API's own CRDs, from the Go module that `tests/cluster/gomods/gateway-api` pins.

The module cache keeps them by name and version; go checks the module's hash. Nothing of it is committed.
"""

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.apiserver import ApiServer
from tests.cluster.binaries import MODULES
from tests.cluster.client import Cluster
from tests.cluster.errors import ClusterError
from tests.support.waiting import until

MODULE: Final = "sigs.k8s.io/gateway-api"
_KINDS: Final = ("gatewayclasses", "gateways", "httproutes", "grpcroutes")


def crd_files(*kinds: str) -> list[Path]:
    """The files of these kinds' CRDs (default: all that a controller and its users need), of the standard channel."""
    folder = _module() / "config" / "crd" / "standard"
    return [folder / f"gateway.networking.k8s.io_{kind}.yaml" for kind in kinds or _KINDS]


def install(api: ApiServer | Cluster) -> None:
    """Make the API server serve the Gateway API; done on return."""
    for file in crd_files():
        api.kubectl("apply", "--server-side", "-f", str(file))
    for kind in _KINDS:
        until(partial(_is_served, api, kind), f"{kind} to be served")


def uninstall(api: ApiServer | Cluster) -> None:
    """Remove the CRDs, and with them every object of their kinds."""
    for file in crd_files():
        api.kubectl("delete", "--ignore-not-found", "-f", str(file))


def _is_served(api: ApiServer | Cluster, kind: str) -> bool:
    return api.kubectl("get", f"{kind}.gateway.networking.k8s.io", "-A", check=False).returncode == 0


def _module() -> Path:
    go = shutil.which("go")
    if go is None:
        raise ClusterError("The program 'go' is missing.", todo="Install Go and put it on PATH.")
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        cwd=MODULES / "gateway-api",
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(
            f"The module {MODULE} cannot be had: {done.stderr.strip() or done.stdout.strip()}",
            todo="Check that the Go module proxy is reachable, then run again.",
        )
    return Path(json.loads(done.stdout)["Dir"])
