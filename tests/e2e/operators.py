"""The operators of the cluster end without a goodbye."""

import os
import signal
from contextlib import suppress
from typing import Final

from tests.cluster.client import Cluster, existing
from tests.cluster.errors import ClusterError
from tests.support.installation import NAMESPACE

SELECTOR: Final = "app.kubernetes.io/component=operator"
AFTER_KILL_SECONDS: Final = 240
"""How long a test waits for what operators do that may just have been killed: their new pods start beside everything
else that the test runs (40 s), the Lease of the dead one runs out (10 s and some tries), they list and ask all anew
(10 s), and then do it. Three times that: it is shown what they do, and not how fast a busy machine is."""


def kill_operators(cluster: Cluster) -> None:
    """All of them at once. Their processes first: who only loses its pod is told to end, and gives its Lease back."""
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", SELECTOR)["items"]
    assert pods, "there is no operator to be killed"
    names = [pod["metadata"]["name"] for pod in pods]
    processes = []
    if not existing():
        for pod in pods:
            for container in pod["spec"]["containers"]:
                # One that does not run has nobody to kill.
                with suppress(ClusterError, OSError, ValueError):
                    processes.append(cluster.container_pid(pod["metadata"]["name"], container["name"], NAMESPACE))
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, *names, "--grace-period=0", "--force", "--ignore-not-found")
