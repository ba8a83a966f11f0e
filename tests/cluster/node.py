"""One node: a containerd and a kubelet of its own, with all of their files below two folders that bear its name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import pki, waiting
from tests.cluster.constants import (
    BRIDGE,
    BRIDGE_ADDRESS,
    BRIDGE_NETWORK,
    CGROUP_PREFIX,
    CNI_PREFIX,
    DNS_SERVICE_ADDRESS,
    KUBELET_PORT,
    PAUSE_IMAGE,
    REGISTRY_PORT,
    RUN,
    STATE,
    Node,
)

_CGROUPS = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = ("cpu", "cpuacct", "memory")
_PODS_WEIGH_PROCESSES = 8

_CONTAINERD = """\
version = 2
root = "{state}/containerd"
state = "{run}/containerd"
oom_score = 0
imports = []
# Not needed, and some of them log errors on machines where they cannot work.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  # A machine without CAP_SYS_RESOURCE: else runc fails with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # Below `state`, so that the next run recognises the network namespaces of a killed one as ours.
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{state}/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{run}/runc"
"""

_REGISTRIES = f"""\
# No pull leaves the machine: whatever the registry's name, it is asked for at this port of loopback.
server = "http://127.0.0.1:{REGISTRY_PORT}"
[host."http://127.0.0.1:{REGISTRY_PORT}"]
  capabilities = ["pull", "resolve"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """The files and command lines of one node."""

    node: Node
    binaries: Path
    authority: pki.KeyPair

    @property
    def state(self) -> Path:
        """Images, volumes, logs of pods."""
        return STATE / self.node.name

    @property
    def run(self) -> Path:
        """Sockets and mounts of running containers."""
        return RUN / self.node.name

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.run / "containerd.sock"

    @property
    def containerd_name(self) -> str:
        """Under which the process is recorded."""
        return f"containerd-{self.node.name}"

    @property
    def kubelet_name(self) -> str:
        """Under which the process is recorded."""
        return f"kubelet-{self.node.name}"

    def write_runtime_files(self) -> None:
        """All that containerd reads."""
        for folder in (self.state / "cni", self.state / "registries" / "_default", self.run):
            folder.mkdir(parents=True, exist_ok=True)
        self._make_cgroup()
        (self.state / "containerd.toml").write_text(
            _CONTAINERD.format(state=self.state, run=self.run, socket=self.socket, pause=PAUSE_IMAGE)
        )
        (self.state / "registries" / "_default" / "hosts.toml").write_text(_REGISTRIES)
        (self.state / "cni" / "10-conch.conflist").write_text(json.dumps(self._cni(), indent=2))

    def write_kubelet_files(self, *, kubeconfig: str, serving: pki.KeyPair) -> None:
        """All that the kubelet reads."""
        (self.state / "kubelet").mkdir(parents=True, exist_ok=True)
        (self.state / "resolv.conf").write_text(f"nameserver {BRIDGE_ADDRESS}\n")
        pki.write_kubeconfig(self.state / "kubelet.kubeconfig", kubeconfig)
        (self.state / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet(serving), sort_keys=False))

    def containerd_argv(self) -> list[str]:
        """Starts this node's runtime."""
        return ["containerd", "--config", str(self.state / "containerd.toml")]

    def kubelet_argv(self) -> list[str]:
        """Starts this node's kubelet."""
        labels = {"conch.local/node": self.node.name}
        if self.node.gpus:
            labels |= {"nvidia.com/gpu.product": self.node.gpu_product, "nvidia.com/gpu.present": "true"}
        return [
            str(self.binaries / "kubelet"),
            f"--config={self.state / 'kubelet.yaml'}",
            f"--kubeconfig={self.state / 'kubelet.kubeconfig'}",
            f"--root-dir={self.state / 'kubelet'}",
            f"--cert-dir={self.state / 'kubelet' / 'pki'}",
            f"--hostname-override={self.node.name}",
            f"--node-ip={self.node.address}",
            "--node-labels=" + ",".join(f"{key}={value}" for key, value in labels.items()),
        ]

    def containerd_ready(self) -> bool:
        """containerd makes its socket when it serves."""
        return self.socket.exists()

    def kubelet_ready(self) -> bool:
        """Whether the kubelet calls itself healthy."""
        return waiting.answers(f"http://127.0.0.1:{self.node.health_port}/healthz")

    def _make_cgroup(self) -> None:
        """Makes the node's cgroup before a first pod would: the kubelet logs errors every 10 s while it is missing.

        Not in the cpuset hierarchy of v1, where a new cgroup has no processors until runc gives it some.
        """
        unified = (_CGROUPS / "cgroup.controllers").exists()
        for hierarchy in [_CGROUPS] if unified else [_CGROUPS / name for name in _V1_CONTROLLERS]:
            if hierarchy.exists():
                (hierarchy / f"{CGROUP_PREFIX}{self.node.name}").mkdir(exist_ok=True)
        _weigh_pods(unified=unified)

    def _cni(self) -> object:
        first, last = self.node.pod_range
        return {
            "cniVersion": "1.0.0",
            "name": f"{CNI_PREFIX}{self.node.name}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    # A pod that reaches itself through a Service leaves and enters by the same port of the bridge.
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.state / "addresses"),
                        "ranges": [
                            [
                                {
                                    "subnet": BRIDGE_NETWORK,
                                    "rangeStart": first,
                                    "rangeEnd": last,
                                    "gateway": BRIDGE_ADDRESS,
                                }
                            ]
                        ],
                        "routes": [{"dst": "0.0.0.0/0", "gw": BRIDGE_ADDRESS}],
                    },
                }
            ],
        }

    def _kubelet(self, serving: pki.KeyPair) -> dict[str, object]:
        configuration: dict[str, object] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.node.address,
            "port": KUBELET_PORT,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self.node.health_port,
            "readOnlyPort": 0,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_SERVICE_ADDRESS],
            "resolvConf": str(self.state / "resolv.conf"),
            "podLogsDir": str(self.state / "pod-logs"),
            "volumePluginDir": str(self.state / "volume-plugins"),
            "cgroupDriver": "cgroupfs",
            # For the kubelet's own accounts; containers do not lie in it, see cleanup.py.
            "cgroupRoot": f"/{CGROUP_PREFIX}{self.node.name}",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            # Limits of CPU count for the scheduler alone: enforced, a start of a second takes ten of an idle machine.
            "cpuCFSQuota": False,
            "failSwapOn": False,
            "failCgroupV1": False,
            "makeIPTablesUtilChains": False,
            # Lowering it needs CAP_SYS_RESOURCE.
            "oomScoreAdj": 0,
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            # Images were loaded by hand and cannot be pulled again.
            "imageGCHighThresholdPercent": 100,
            "imageMaximumGCAge": "0s",
            "serializeImagePulls": False,
            "containerLogMaxSize": "50Mi",
            # How full volumes are; by default a pod that fills one goes on for one to two minutes.
            "volumeStatsAggPeriod": "10s",
        }
        if self.node.gpus:
            configuration["registerWithTaints"] = [
                {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
            ]
        return configuration


def _weigh_pods(*, unified: bool) -> None:
    """Gives the pods of all nodes together the processor time of several processes of the machine, not of one.

    Their containers lie in the one cgroup of containerd's namespace, see cleanup.py.
    """
    folder = (_CGROUPS if unified else _CGROUPS / "cpu") / "k8s.io"
    file, one_process = ("cpu.weight", 100) if unified else ("cpu.shares", 1024)
    if folder.parent.exists():
        folder.mkdir(exist_ok=True)
    if (folder / file).exists():
        (folder / file).write_text(str(_PODS_WEIGH_PROCESSES * one_process))
