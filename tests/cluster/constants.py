"""Every name, address, port and measured time of the local cluster; the other modules hold no literal of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout that this file belongs to; also the only thing that differs between two checkouts' clusters."""

STATE = Path("/var/lib/conch-cluster")
"""Machine-wide: what must be found again by the next run, also by one from another checkout."""
RUN = Path("/run/conch-cluster")
"""Machine-wide: sockets and process records. Short, because a unix socket's path has at most 107 characters."""
CHECKOUT_STATE = REPOSITORY / ".cluster"
"""What a person looks at: kubeconfig and logs."""
LOCK = Path("/run/lock/conch-cluster.lock")

BRIDGE = "conch0"
NFT_TABLE = "conch-cluster"
CGROUP_PREFIX = "conch-cluster-"
CNI_PREFIX = "conch-"

BRIDGE_ADDRESS = "10.87.0.1"
BRIDGE_NETWORK = "10.87.0.0/16"
SERVICE_NETWORK = "10.88.0.0/16"
DNS_SERVICE_ADDRESS = "10.88.0.10"
API_SERVICE_ADDRESS = "10.88.0.1"
API_PORT = 6443
ETCD_CLIENT_PORT = 23790
ETCD_PEER_PORT = 23800
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
PROXY_HEALTH_PORT = 10256
PROXY_METRICS_PORT = 10249
DNS_HEALTH_PORT = 10280
DNS_READY_PORT = 10281
KUBELET_PORT = 10250
REGISTRY_PORT = 5000
"""Every image pull goes to this port of loopback, where a test may start a registry: nothing leaves the machine."""

KUBERNETES_VERSION = "v1.34.4"
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "libpython3.11", "python3", "python3-venv")
PAUSE_IMAGE = "localhost/conch-pause:1"
BASE_IMAGE = "localhost/conch-base:bookworm"
PRODUCT_IMAGE = "localhost/conch:dev"
TRITON_IMAGE = "localhost/triton:dev"

DISK_NEEDED_GB = 15
"""Go's module and build caches 6, binaries 0.6, images in three containerds 6."""

DEBIAN_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "git": "git",
}
"""A command, or a file, and the package that brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One kubelet with a containerd of its own."""

    name: str
    address: str
    pod_range: tuple[str, str]
    health_port: int
    gpus: int = 0
    gpu_product: str = ""


NODES = (
    Node(
        name="gpu-1",
        address="10.87.0.11",
        pod_range=("10.87.1.1", "10.87.1.254"),
        health_port=10261,
        gpus=4,
        gpu_product="NVIDIA-H100-80GB-HBM3",
    ),
    Node(
        name="gpu-2",
        address="10.87.0.12",
        pod_range=("10.87.2.1", "10.87.2.254"),
        health_port=10262,
        gpus=4,
        gpu_product="NVIDIA-A100-SXM4-40GB",
    ),
    Node(name="system", address="10.87.0.13", pod_range=("10.87.3.1", "10.87.3.254"), health_port=10263),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """A binary of the cluster: the module folder it is built in, its main package and how long that took.

    `build_seconds` was measured on 2 idle cores, in the order of `GO_PROGRAMS`, with an empty build cache.
    """

    name: str
    module: str
    package: str
    build_seconds: int
    ldflags: str = "-s -w"
    tags: str = ""
    optional: bool = False
    """Not a part of the cluster: built only when it is named."""


_KUBERNETES_LDFLAGS = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    f" -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}"
)


def _kubernetes(name: str, build_seconds: int) -> GoProgram:
    return GoProgram(
        name=name,
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        build_seconds=build_seconds,
        ldflags=_KUBERNETES_LDFLAGS,
    )


def _prometheus(name: str, build_seconds: int) -> GoProgram:
    return GoProgram(
        name=name,
        module="prometheus",
        package=f"github.com/prometheus/prometheus/cmd/{name}",
        build_seconds=build_seconds,
        # Without the clients of twenty clouds.
        tags="remove_all_sd",
        optional=True,
    )


GO_PROGRAMS = (
    GoProgram(
        name="etcd",
        module="kubernetes",
        package="go.etcd.io/etcd/server/v3",
        build_seconds=66,
        ldflags=_KUBERNETES_LDFLAGS,
    ),
    _kubernetes("kube-apiserver", 199),
    _kubernetes("kubectl", 23),
    _kubernetes("kubelet", 43),
    _kubernetes("kube-controller-manager", 25),
    _kubernetes("kube-scheduler", 5),
    _kubernetes("kube-proxy", 6),
    GoProgram(name="coredns", module="coredns", package=".", build_seconds=58),
    GoProgram(name="pause", module="pause", package=".", build_seconds=2),
    GoProgram(name="helm", module="helm", package="helm.sh/helm/v4/cmd/helm", build_seconds=64),
    GoProgram(name="kwok", module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", build_seconds=100, optional=True),
    GoProgram(
        name="versitygw",
        module="versitygw",
        package="github.com/versity/versitygw/cmd/versitygw",
        build_seconds=110,
        optional=True,
    ),
    GoProgram(
        name="fake-gcs-server",
        module="fake-gcs-server",
        package="github.com/fsouza/fake-gcs-server",
        build_seconds=61,
        optional=True,
    ),
    GoProgram(name="s5cmd", module="s5cmd", package="github.com/peak/s5cmd/v2", build_seconds=11, optional=True),
    _prometheus("prometheus", 95),
    _prometheus("promtool", 50),
)
GO_PROGRAM_BY_NAME = {program.name: program for program in GO_PROGRAMS}
