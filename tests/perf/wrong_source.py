"""How long after `kubectl apply` of a model with a wrong source `kubectl get mdep` says why, on a warm node.

Reference in the same run: a pod of the agent's image that does nothing, from `kubectl apply` to running.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.support.cluster_stores import ClusterStores
from tests.support.installation import install

NAMESPACE: Final = "perf"
ROUNDS: Final = 5
_LOOK_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 60


def main() -> None:
    """Measure and print. Example: python -m tests.perf.wrong_source"""
    cluster = Cluster.current()
    install(cluster)
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    namespace = Namespace(cluster, NAMESPACE)
    seconds: dict[str, list[float]] = {"a bare pod runs": []}
    with tempfile.TemporaryDirectory(prefix="conch-stores-") as folder:
        stores = ClusterStores(cluster, Path(folder))
        try:
            wrong = {
                "no such object": ("s3://models/nothing", stores.s3.credentials, "SourceNotFound"),
                "wrong keys": ("s3://models/nothing", stores.s3.wrong_credentials, "SourceAccessDenied"),
            }
            for round_ in range(ROUNDS):
                seconds["a bare pod runs"].append(_bare_pod(cluster, f"bare-{round_}"))
                for what, (uri, entries, reason) in wrong.items():
                    name = f"{what.replace(' ', '-')}-{round_}"
                    source = namespace.secret(name, entries) | {"endpoint": stores.s3.endpoint}
                    started = time.monotonic()
                    namespace.deploy(name, uri, gpu={"count": 0}, model={"source": source})
                    _until(lambda name=name, reason=reason: reason in _shown(namespace, name))  # type: ignore[misc]  # mypy infers no lambda's default
                    seconds.setdefault(what, []).append(time.monotonic() - started)
                    cluster.kubectl("delete", "mdep", name, "-n", NAMESPACE)
        finally:
            stores.close()
    table = Table("until", "median s", "worst s", title="From kubectl apply to the reason in kubectl get mdep")
    for what, each in seconds.items():
        table.add_row(what, f"{statistics.median(each):.1f}", f"{max(each):.1f}")
    Console().print(table)


def _shown(namespace: Namespace, name: str) -> str:
    return namespace.cluster.kubectl("get", "mdep", name, "-n", namespace.name).stdout


def _bare_pod(cluster: Cluster, name: str) -> float:
    container = {"name": "idle", "image": "localhost/conch:dev", "command": ["sleep", "60"]}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    started = time.monotonic()
    cluster.kubectl("apply", "-f", "-", input=json.dumps(body))
    _until(lambda: cluster.get("pod", name, "-n", NAMESPACE)["status"].get("phase") == "Running")
    seconds = time.monotonic() - started
    cluster.kubectl("delete", "pod", name, "-n", NAMESPACE, "--wait=false")
    return seconds


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {_WAIT_SECONDS} s in vain")
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main()
