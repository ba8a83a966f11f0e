"""How long a model takes from `kubectl apply` to Ready on a warm node, what takes it, and what its agent costs.

Reference in the same run: a bare pod of the same Triton image with the same arguments, which loads nothing.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from conch.api.runtime import LogLevel
from conch.api.triton_arguments import triton_arguments
from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE, Namespace
from tests.perf.timeline import Fact, Timeline
from tests.support.installation import install
from tests.support.model_store import ModelStore

NAMESPACE = "perf"
ROUNDS = 3
RUNTIME = yaml.safe_load((SAMPLE.parent / "model-deployment.yaml").read_text())["spec"]["runtime"]


def _condition(live: dict[str, Any], type_: str) -> bool:
    conditions = live.get("status", {}).get("conditions", ())
    return any(item["type"] == type_ and item["status"] == "True" for item in conditions)


def _started(live: dict[str, Any], container: str) -> bool:
    status = live.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return any(item["name"] == container and "running" in item["state"] for item in statuses)


def _conch(cluster: Cluster, store: ModelStore, round_: int) -> dict[str, float]:
    namespace = Namespace(cluster, NAMESPACE)
    pods: dict[str, Fact] = {
        "pod created": bool,
        "pod scheduled": lambda live: _condition(live, "PodScheduled"),
        "agent runs": lambda live: _started(live, "agent"),
        "Triton runs": lambda live: _started(live, "triton"),
        "pod ready (model loaded)": lambda live: _condition(live, "Ready"),
    }
    with (
        Timeline(cluster, NAMESPACE, "pods", pods) as pod,
        Timeline(cluster, NAMESPACE, "mdep", {"ModelDeployment Ready": lambda live: _condition(live, "Ready")}) as mdep,
    ):
        pod.start()
        mdep.start()
        namespace.deploy(f"digits-{round_}", store.uri("/digits.onnx"), runtime=RUNTIME)
        ready = mdep.wait("ModelDeployment Ready")
        times = {**pod.seconds, "ModelDeployment Ready": ready}
    (live,) = namespace.pods(f"digits-{round_}")
    pid = cluster.container_pid(live["metadata"]["name"], "agent", NAMESPACE)
    times |= _agent_steps(cluster, live["metadata"]["name"])
    times["agent MiB"] = _resident_mib(pid)
    cluster.kubectl("delete", "mdep", f"digits-{round_}", "-n", NAMESPACE)
    cluster.kubectl("wait", "--for=delete", "pod", "--all", "-n", NAMESPACE, "--timeout=60s")
    return times


def _bare(cluster: Cluster, round_: int) -> float:
    arguments = triton_arguments(repository="/tmp", admin_key="x", exit_timeout_seconds=1, log_level=LogLevel())
    container = {
        "name": "triton",
        "image": "localhost/triton:dev",
        "args": ["tritonserver", *arguments],
        "readinessProbe": {"httpGet": {"path": "/v2/health/live", "port": 8000}, "periodSeconds": 1},
        "resources": {"limits": RUNTIME["resources"]},
    }
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"bare-{round_}", "namespace": NAMESPACE},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsUser": 1000},
        },
    }
    with Timeline(cluster, NAMESPACE, "pods", {"ready": lambda live: _condition(live, "Ready")}) as pod:
        pod.start()
        cluster.kubectl("apply", "-f", "-", input=json.dumps(body))
        seconds = pod.wait("ready")
    cluster.kubectl("delete", "pod", f"bare-{round_}", "-n", NAMESPACE, "--timeout=60s")
    return seconds


def _agent_steps(cluster: Cluster, pod: str) -> dict[str, float]:
    """How long the agent's own steps took, from its log."""
    steps = {}
    for line in cluster.kubectl("logs", pod, "-c", "agent", "-n", NAMESPACE).stdout.splitlines():
        entry = json.loads(line)
        if entry["event"] == "step":
            steps[f"  of that, {entry['step']} took"] = float(entry["seconds"])
    return steps


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")


def main() -> None:
    """Measure, print the table, write model_pod.json into .cluster/."""
    cluster = Cluster.current()
    install(cluster)
    store = ModelStore(cluster)
    store.put("/digits.onnx", SAMPLE.read_bytes())
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    runs, bare = [], []
    for round_ in range(ROUNDS):
        bare.append(_bare(cluster, round_))
        runs.append(_conch(cluster, store, round_))
    store.close()
    cluster.kubectl("delete", "namespace", NAMESPACE)
    reference = sorted(bare)[ROUNDS // 2]
    table = Table(title=f"apply -> Ready on a warm node, median of {ROUNDS}")
    for column in ("until", "seconds", "x of a bare Triton pod"):
        table.add_column(column, justify="left" if column == "until" else "right")
    result: dict[str, float] = {"bare Triton pod ready": reference}
    for fact in runs[0]:
        value = sorted(run[fact] for run in runs)[ROUNDS // 2]
        result[fact] = value
        if fact != "agent MiB":
            table.add_row(fact, f"{value:.1f}", f"{value / reference:.2f}")
    table.add_row("a bare Triton pod is ready", f"{reference:.1f}", "1.00")
    console = Console()
    console.print(table)
    console.print(f"agent resident: {result['agent MiB']:.0f} MiB (goal: 100)")
    Path(".cluster/model_pod.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
