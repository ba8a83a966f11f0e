"""`up`: from whatever is on the machine to three Ready nodes with working Services and names."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.cluster import (
    binaries,
    cache,
    cleanup,
    dns,
    machine,
    network,
    pause,
    pki,
    preconditions,
    proxy,
    reset,
    waiting,
)
from tests.cluster.client import Cluster
from tests.cluster.constants import (
    API_PORT,
    API_SERVICE_ADDRESS,
    BRIDGE_ADDRESS,
    CHECKOUT_STATE,
    CONTROLLER_MANAGER_PORT,
    ETCD_CLIENT_PORT,
    ETCD_PEER_PORT,
    LOCK,
    NODES,
    PAUSE_IMAGE,
    REPOSITORY,
    SCHEDULER_PORT,
    SERVICE_NETWORK,
    STATE,
)
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import import_archive
from tests.cluster.node import NodeParts
from tests.cluster.processes import Processes
from tests.cluster.progress import duration, say

_CORE_PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns")
_SHAPING = ("constants.py", "control_plane.py", "dns.py", "network.py", "node.py", "proxy.py")
"""The modules that the running parts' configuration comes from."""


def up() -> Cluster:
    """Makes the cluster, or finds it healthy, and returns its handle."""
    preconditions.check()
    started = time.monotonic()
    with cache.locked(LOCK, what="changes this machine's cluster"):
        preconditions.install_packages()
        programs = binaries.ensure()
        wanted = configuration(programs)
        if _running(wanted):
            cluster = Cluster.local()
            for node in NODES:
                cluster.start_node(node.name)
            say(f"The cluster is up already ({duration(time.monotonic() - started)}).")
            return cluster
        cleanup.remove()
        preconditions.check_network()
        archive = pause.archive()
        started = time.monotonic()
        _start(programs, archive, wanted)
        say(f"The cluster is up ({duration(time.monotonic() - started)}).")
        return Cluster.local()


def configuration(programs: Path) -> str:
    """A hash of everything that decides what runs; a cluster with another one is replaced."""
    # Their syntax trees: a reworded comment must not tear down a cluster that others are using.
    sources = [(REPOSITORY / "tests" / "cluster" / name).read_text() for name in _SHAPING]
    texts = [ast.dump(ast.parse(source)) for source in sources]
    return cache.digest(str(programs), str(CHECKOUT_STATE), *texts)


def control_plane(programs: Path) -> ControlPlane:
    """The machine's control plane, as seen from this checkout."""
    return ControlPlane(
        binaries=programs,
        state=STATE,
        logs=CHECKOUT_STATE / "logs",
        address=BRIDGE_ADDRESS,
        api_port=API_PORT,
        etcd_client_port=ETCD_CLIENT_PORT,
        etcd_peer_port=ETCD_PEER_PORT,
        controller_manager_port=CONTROLLER_MANAGER_PORT,
        scheduler_port=SCHEDULER_PORT,
        service_network=SERVICE_NETWORK,
    )


def _running(wanted: str) -> bool:
    """Whether what was started once with this configuration still serves; single nodes are repaired by the caller."""
    record = machine.read()
    if record is None or record.configuration != wanted:
        return False
    alive = {each.name for each in machine.processes(record).all() if each.alive}
    if not alive.issuperset(_CORE_PARTS) or not control_plane(Path()).ready():
        return False
    _publish_kubeconfig()
    return True


def _publish_kubeconfig() -> None:
    CHECKOUT_STATE.mkdir(exist_ok=True)
    pki.write_kubeconfig(CHECKOUT_STATE / "kubeconfig", (STATE / "admin.kubeconfig").read_text())


def _start(programs: Path, pause_archive: Path, wanted: str) -> None:
    record = machine.new_record()
    record.sysctls = network.sysctls_to_change()
    record.write()
    daemons = machine.processes(record)
    for old in daemons.logs.glob("*.log*"):
        old.unlink()
    network.up()
    plane = control_plane(programs)
    daemons.start("etcd", plane.etcd())
    credentials, authority = plane.prepare(extra_hosts=(API_SERVICE_ADDRESS,))
    daemons.start("kube-apiserver", plane.api_server(credentials))
    _publish_kubeconfig()
    nodes = [NodeParts(node=node, binaries=programs, authority=authority.pair) for node in NODES]
    for parts in nodes:
        name = parts.node.name
        parts.write_runtime_files()
        client = authority.issue(f"kubelet-{name}", f"system:node:{name}", groups=["system:nodes"])
        serving = authority.issue(f"kubelet-{name}-serving", f"system:node:{name}", hosts=[name, parts.node.address])
        text = pki.kubeconfig(server=plane.server, authority=authority.pair, client=client)
        parts.write_kubelet_files(kubeconfig=text, serving=serving)
        daemons.start(parts.containerd_name, parts.containerd_argv())
    with ThreadPoolExecutor() as pool:
        loaded = [pool.submit(_load_pause, parts, pause_archive, daemons) for parts in nodes]
        _wait(daemons, "kube-apiserver", plane.ready, seconds=120)
        daemons.start("kube-controller-manager", plane.controller_manager(credentials))
        daemons.start("kube-scheduler", plane.scheduler(credentials))
        for each in loaded:
            each.result()
    proxy_config = plane.kubeconfig(authority, "kube-proxy", proxy.USER)
    daemons.start("kube-proxy", proxy.argv(programs, STATE, proxy_config))
    dns_config = plane.kubeconfig(authority, "coredns", dns.USER)
    cluster = Cluster(kubeconfig=STATE / "admin.kubeconfig", bin=programs)
    cluster.apply(dns.objects())
    daemons.start("coredns", dns.argv(programs, STATE, dns_config))
    _start_nodes(cluster, plane, nodes, daemons)
    reset.snapshot(cluster)
    record.configuration = wanted
    record.write()


def _load_pause(parts: NodeParts, archive: Path, daemons: Processes) -> None:
    _wait(daemons, parts.containerd_name, parts.containerd_ready, seconds=30)
    import_archive(parts.socket, PAUSE_IMAGE, archive)


def _start_nodes(cluster: Cluster, plane: ControlPlane, nodes: list[NodeParts], daemons: Processes) -> None:
    """Start the kubelets, and return when everything is ready."""
    _wait(daemons, "kube-controller-manager", plane.controller_manager_ready, seconds=120)
    _wait(daemons, "kube-scheduler", plane.scheduler_ready, seconds=120)
    for parts in nodes:
        # One after the other: Kubernetes fixes the path of the device plugins' socket, so all kubelets of this machine
        # share it, and each removes and binds it when it starts.
        daemons.start(parts.kubelet_name, parts.kubelet_argv())
        _wait(daemons, parts.kubelet_name, partial(cluster.node_ready, parts.node.name), seconds=120)
        cluster.set_gpus(parts.node)
    _wait(daemons, "kube-proxy", proxy.ready, seconds=120)
    _wait(daemons, "coredns", dns.ready, seconds=120)
    # Pods are refused before their namespace has one.
    waiting.until(
        lambda: cluster.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
        what="The default service account",
        timeout_seconds=120,
    )


def _wait(daemons: Processes, name: str, condition: Callable[[], bool], *, seconds: float) -> None:
    waiting.until(
        condition, what=f"{name} being ready", timeout_seconds=seconds, alive=lambda: daemons.require_alive(name)
    )
