"""How fast a child that was deleted or edited by hand is back. Goal: 2 s.

Reference in the same run: the Deployment controller (Go) with a ReplicaSet that was deleted.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.integration.test_children import EDITS, KINDS
from tests.support.installation import install
from tests.support.model_store import ModelStore
from tests.support.waiting import until

NAMESPACE = "perf"
ROUNDS = 5
SELECTOR = ("-l", "conch.dev/model-deployment=digits")


def _child(cluster: Cluster, kind: str) -> dict[str, Any]:
    (child,) = cluster.get(kind, "-n", NAMESPACE, *SELECTOR)["items"]
    return dict(child)


def _timed(act: Callable[[], object], done: Callable[[], bool]) -> float:
    act()
    started = time.monotonic()
    until(done, "the repair")
    return time.monotonic() - started


def _delete(cluster: Cluster, kind: str) -> float:
    before = _child(cluster, kind)["metadata"]
    return _timed(
        lambda: cluster.kubectl("delete", kind, before["name"], "-n", NAMESPACE, "--wait=false"),
        lambda: _child(cluster, kind)["metadata"]["uid"] != before["uid"],
    )


def _edit(cluster: Cluster, kind: str) -> float:
    before = _child(cluster, kind)
    (field,) = EDITS[kind]
    patch = json.dumps(EDITS[kind])
    name = before["metadata"]["name"]
    return _timed(
        lambda: cluster.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", patch),
        lambda: _child(cluster, kind)[field] == before[field],
    )


def _replica_set(cluster: Cluster) -> float:
    before = _child(cluster, "replicaset")["metadata"]
    return _timed(
        lambda: cluster.kubectl("delete", "replicaset", before["name"], "-n", NAMESPACE, "--cascade=orphan"),
        lambda: _child(cluster, "replicaset")["metadata"]["uid"] != before["uid"],
    )


def main() -> None:
    """Measure, print the table, write drift.json into .cluster/. A look costs about 0.1 s, which every row includes."""
    cluster = Cluster.current()
    install(cluster)
    store = ModelStore(cluster)
    uri = store.put("/digits.onnx", SAMPLE.read_bytes())
    store.close()
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    namespace = Namespace(cluster, NAMESPACE)
    namespace.deploy("digits", uri, gpu={"count": 0}, replicas=2)
    namespace.wait_ready("digits", replicas=2)
    reference = max(_replica_set(cluster) for _ in range(ROUNDS))
    table = Table(title=f"child restored, worst of {ROUNDS} (reference: deleted ReplicaSet, {reference:.2f} s)")
    for column in ("child", "deleted s", "x", "edited s", "x"):
        table.add_column(column, justify="left" if column == "child" else "right")
    result: dict[str, float] = {"reference": reference}
    for kind in KINDS:
        if kind == "deployment":
            # A deleted Deployment is back before its old pods are gone; only the object counts here.
            namespace.wait_ready("digits", replicas=2)
        deleted = max(_delete(cluster, kind) for _ in range(ROUNDS))
        edited = max(_edit(cluster, kind) for _ in range(ROUNDS))
        result |= {f"{kind} deleted": deleted, f"{kind} edited": edited}
        table.add_row(
            kind, f"{deleted:.2f}", f"{deleted / reference:.1f}", f"{edited:.2f}", f"{edited / reference:.1f}"
        )
    Console().print(table)
    cluster.kubectl("delete", "namespace", NAMESPACE)
    Path(".cluster/drift.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
