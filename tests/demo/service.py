"""The model's Service as this machine reaches it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.client import Cluster, existing
from tests.demo.model import NAME, NAMESPACE


@contextmanager
def service_address(cluster: Cluster, name: str = NAME) -> Iterator[str]:
    """The host of ports 8000 and 8001: the Service's address on the local cluster, else a forwarding to a gateway."""
    if not existing():
        yield cluster.get("service", name, "-n", NAMESPACE)["spec"]["clusterIP"]
        return
    # kubectl's own port-forward takes no Service without a selector, and one to a pod would see no rollout.
    conch = str(Path(sys.executable).with_name("conch"))
    path = os.pathsep.join((str(cluster.bin), os.environ["PATH"]))
    forward = subprocess.Popen(
        [conch, "port-forward", name, "-n", NAMESPACE, "--via-gateway"],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert forward.stdout
        # A line for each of the two ports; none where it ends, which says why on stderr.
        if not (forward.stdout.readline() and forward.stdout.readline()):
            raise SystemExit("conch port-forward gave no way to the model")
        yield "127.0.0.1"
    finally:
        forward.terminate()
        forward.wait()
