"""A handle on a running cluster, for tests and commands: kubectl, single nodes, single containers."""

from __future__ import annotations

import json
import os
import shutil
import signal as signals
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.cluster import binaries, cleanup, machine, pki, waiting
from tests.cluster.constants import CHECKOUT_STATE, NODES, RUN, STATE, Node
from tests.cluster.errors import ClusterError
from tests.cluster.node import NodeParts


def existing() -> bool:
    """Whether the environment asks for a cluster that is there instead of the local one."""
    return os.environ.get("CLUSTER") == "existing"


class Cluster:
    """`Cluster.current().kubectl("get", "pods")`; fault helpers work on the local cluster only."""

    def __init__(self, *, kubeconfig: Path, bin: Path) -> None:
        self.kubeconfig = kubeconfig
        self.bin = bin

    @classmethod
    def local(cls) -> Self:
        """The local cluster of this checkout."""
        return cls(kubeconfig=CHECKOUT_STATE / "kubeconfig", bin=binaries.ensure("kubectl"))

    @classmethod
    def current(cls) -> Self:
        """The cluster that the environment chooses; raises when it does not answer."""
        if not existing():
            cluster = cls.local()
            todo = "Run `python -m tests.cluster up`."
        else:
            path = os.environ.get("KUBECONFIG", "").split(":")[0] or str(Path.home() / ".kube" / "config")
            found = shutil.which("kubectl")
            cluster = cls(kubeconfig=Path(path), bin=Path(found).parent if found else binaries.ensure("kubectl"))
            todo = "Set KUBECONFIG to the file of a cluster that answers."
        result = cluster.kubectl("get", "--raw", "/readyz", "--request-timeout=10s", check=False)
        if result.returncode != 0:
            raise ClusterError(f"No cluster answers at {cluster.kubeconfig}: {result.stderr.strip()[-300:]}", todo=todo)
        return cluster

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl; with `check`, raises with what it printed when it fails."""
        result = subprocess.run(
            [str(self.bin / "kubectl"), f"--kubeconfig={self.kubeconfig}", *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode != 0:
            raise ClusterError(
                f"kubectl {' '.join(args)} failed: {result.stderr.strip()}", todo="Is the cluster up? Run `status`."
            )
        return result

    def get(self, *args: str) -> Any:
        """What `kubectl get ... -o json` prints, parsed."""
        return json.loads(self.kubectl("get", *args, "-o", "json").stdout)

    def apply(self, objects: list[dict[str, object]]) -> None:
        """Server-side apply of objects."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=listed)

    def node_ready(self, name: str) -> bool:
        """Whether the node is there and Ready."""
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "node", name, "-o", path, check=False).stdout == "True"

    def set_gpus(self, node: Node) -> None:
        """Gives the node its fake GPUs. The kubelet keeps resources that it does not know, until it registers anew."""
        if node.gpus:
            amount = {"nvidia.com/gpu": str(node.gpus)}
            patch = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
            self.kubectl("patch", "node", node.name, "--subresource=status", "--type=merge", "-p", patch)

    def container_pid(self, pod: str, container: str, namespace: str = "default") -> int:
        """The process id, on this machine, of a running container's first process."""
        status = self.get("pod", pod, "-n", namespace)
        listed = status["status"].get("containerStatuses", []) + status["status"].get("initContainerStatuses", [])
        found = next((each for each in listed if each["name"] == container), None)
        if found is None or "running" not in found["state"]:
            raise ClusterError(
                f"Container {container} of pod {namespace}/{pod} does not run.", todo="Wait until it does."
            )
        identifier = found["containerID"].removeprefix("containerd://")
        node = status["spec"]["nodeName"]
        bundle = RUN / node / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io" / identifier
        return int((bundle / "init.pid").read_text())

    def kill_container(
        self, pod: str, container: str, namespace: str = "default", signal: int = signals.SIGKILL
    ) -> None:
        """Sends a signal to a container's first process, from outside the container."""
        os.kill(self.container_pid(pod, container, namespace), signal)

    def stop_node(self, name: str) -> None:
        """Pulls the node's plug: its kubelet, its runtime and every container end at once, without a goodbye."""
        node = _node(name)
        machine.processes(machine.read()).stop(f"kubelet-{node.name}", f"containerd-{node.name}", grace_seconds=0)
        cleanup.end_containers(node.name)

    def start_node(self, name: str) -> None:
        """Starts what does not run of a node, and returns when it is Ready with its GPUs; quick when it runs."""
        node = _node(name)
        daemons = machine.processes(machine.read())
        authority = pki.KeyPair(certificate=STATE / "pki" / "ca.crt", key=STATE / "pki" / "ca.key")
        parts = NodeParts(node=node, binaries=binaries.ensure("kubelet"), authority=authority)
        alive = {each.name for each in daemons.all() if each.alive}
        if alive.issuperset({parts.containerd_name, parts.kubelet_name}) and self.node_ready(name):
            return
        if parts.containerd_name not in alive:
            parts.socket.unlink(missing_ok=True)
            daemons.start(parts.containerd_name, parts.containerd_argv())
            waiting.until(parts.containerd_ready, what=f"The start of containerd of {name}", timeout_seconds=60)
        if parts.kubelet_name not in alive:
            daemons.start(parts.kubelet_name, parts.kubelet_argv())
            waiting.until(parts.kubelet_ready, what=f"The start of the kubelet of {name}", timeout_seconds=60)
        waiting.until(lambda: self.node_ready(name), what=f"Node {name} being Ready", timeout_seconds=120)
        self.set_gpus(node)


def _node(name: str) -> Node:
    for node in NODES:
        if node.name == name:
            return node
    raise ClusterError(f"There is no node {name}.", todo=f"Use one of {', '.join(node.name for node in NODES)}.")
