"""Cluster DNS: CoreDNS as a process on the bridge's address, behind a Service with a fixed address."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import waiting
from tests.cluster.constants import BRIDGE_ADDRESS, DNS_HEALTH_PORT, DNS_READY_PORT, DNS_SERVICE_ADDRESS

USER = "conch:coredns"

_COREFILE = """\
.:53 {{
    bind {address}
    errors
    health 127.0.0.1:{health_port}
    ready 127.0.0.1:{ready_port}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig} conch
        pods insecure
        ttl 5
    }}
    # Short: a test that asks for a name before its Service exists must not wait for a remembered "no".
    cache 2 {{
        disable denial
    }}
}}
"""


def argv(binaries: Path, state: Path, kubeconfig: Path) -> list[str]:
    """Writes the Corefile and returns the command line."""
    corefile = state / "Corefile"
    corefile.write_text(
        _COREFILE.format(
            address=BRIDGE_ADDRESS, health_port=DNS_HEALTH_PORT, ready_port=DNS_READY_PORT, kubeconfig=kubeconfig
        )
    )
    return [str(binaries / "coredns"), "-conf", str(corefile)]


def ready() -> bool:
    """Whether CoreDNS has seen every Service."""
    return waiting.answers(f"http://127.0.0.1:{DNS_READY_PORT}/ready")


def objects() -> list[dict[str, object]]:
    """The Service, its hand-written endpoints, and what CoreDNS may read."""
    ports = [{"name": f"dns-{name}", "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS_SERVICE_ADDRESS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-host",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "conch-cluster",
                },
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [BRIDGE_ADDRESS], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": USER},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces", "endpoints"],
                    "verbs": ["list", "watch"],
                },
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": USER},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        },
    ]
