"""Installs Conch on a cluster from its own chart, as a platform team would."""

import subprocess
from pathlib import Path
from typing import Final

from tests.cluster import binaries
from tests.cluster.client import Cluster

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "conch"
VALUES: Final = Path(__file__).with_name("values.yaml")
NAMESPACE: Final = "conch-system"


def helm(cluster: Cluster, *arguments: str, timeout_seconds: float = 300) -> str:
    """Run helm against the cluster; raises with what it printed."""
    program = binaries.ensure("helm") / "helm"
    done = subprocess.run(
        [str(program), "--kubeconfig", str(cluster.kubeconfig), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install(cluster: Cluster, *extra: str) -> str:
    """Install or upgrade Conch with the local values and wait until it is ready, with the image that is loaded now."""
    printed = helm(
        cluster,
        *("upgrade", "--install", "conch", str(CHART), "--namespace", NAMESPACE, "--create-namespace"),
        *("--values", str(VALUES), "--wait", "--timeout", "180s", *extra),
    )
    # The tag `dev` stays the same when the image changes.
    for command in (("restart",), ("status", "--timeout=120s")):
        for deployment in ("conch-operator", "conch-gateway"):
            cluster.kubectl("rollout", *command, f"deployment/{deployment}", "-n", NAMESPACE)
    return printed
