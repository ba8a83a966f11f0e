"""kube-proxy: one for the whole machine, since all nodes share its network namespace."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster import waiting
from tests.cluster.constants import BRIDGE_NETWORK, NODES, PROXY_HEALTH_PORT, PROXY_METRICS_PORT

USER = "system:kube-proxy"


def argv(binaries: Path, state: Path, kubeconfig: Path) -> list[str]:
    """Writes the configuration and returns the command line."""
    node = NODES[-1]
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "bindAddress": node.address,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": BRIDGE_NETWORK,
        "detectLocalMode": "ClusterCIDR",
        "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"127.0.0.1:{PROXY_METRICS_PORT}",
        # The machine's own limits stay: these sysctls are not ours, and not writable in every virtual machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        # Lowering it needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        "nftables": {"minSyncPeriod": "100ms"},
    }
    path = state / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return [str(binaries / "kube-proxy"), f"--config={path}"]


def ready() -> bool:
    """Whether the rules follow the Services."""
    return waiting.answers(f"http://127.0.0.1:{PROXY_HEALTH_PORT}/healthz")
