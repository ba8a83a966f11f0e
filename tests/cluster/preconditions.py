"""Checks what the cluster needs from the machine before anything is changed, and installs missing packages."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import cache, network
from tests.cluster.constants import DEBIAN_PACKAGES, DISK_NEEDED_GB, STATE
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say, step

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = (
    "#!/bin/sh\n# Made by Conch's local cluster while it installs packages: no service is started.\nexit 101\n"
)


def check() -> None:
    """Raises the first thing that is missing and that no command of ours can repair."""
    for each in (_linux, _root, _cgroups, _disk, _go):
        each()


def check_can_change() -> None:
    """Raises when this user could not remove a cluster either."""
    _linux()
    _root()


def check_network() -> None:
    """Raises when something of another cluster or network is in the way. Call it when ours is removed."""
    if routes := network.overlapping_routes():
        raise ClusterError(
            f"The cluster's address ranges are in use on this machine: {', '.join(routes)}.",
            todo="Take that network down, or change BRIDGE_NETWORK and SERVICE_NETWORK in tests/cluster/constants.py.",
        )
    foreign = [name for _, name in network.nft_tables() if name == "kube-proxy"]
    if foreign:
        raise ClusterError(
            "Another Kubernetes runs on this machine: it has an nftables table 'kube-proxy' that is not ours.",
            todo="Stop it, or use it with CLUSTER=existing and KUBECONFIG.",
        )


def install_packages() -> None:
    """Installs what is missing of the Debian packages; says which."""
    missing = sorted({package for probe, package in DEBIAN_PACKAGES.items() if not _present(probe)})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"These programs are missing, and this is no Debian where they can be installed: {', '.join(missing)}.",
            todo="Install them with your system's package manager.",
        )
    with step(f"installing {', '.join(missing)}", expected_seconds=20), _no_services():
        if not _apt("install", *missing):
            # The lists are stale or absent; mirrors fail now and then, so it is tried twice.
            if not _apt("update") and not _apt("update"):
                say("apt-get update failed; trying with the lists that are there")
            if not _apt("install", *missing):
                raise ClusterError(
                    f"apt-get could not install {', '.join(missing)}.",
                    todo=f"Run `apt-get update && apt-get install {' '.join(missing)}` and see what it says.",
                )
    if still := [probe for probe in DEBIAN_PACKAGES if not _present(probe)]:
        raise ClusterError(f"Installed, but still not found: {', '.join(still)}.", todo="Is /usr/sbin on PATH?")


def _present(probe: str) -> bool:
    return Path(probe).exists() if probe.startswith("/") else shutil.which(probe) is not None


def _apt(command: str, *packages: str) -> bool:
    arguments = ["-y", "--no-install-recommends", *packages] if command == "install" else []
    result = subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", command, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode == 0


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Debian starts a service that it installs (containerd); a policy that is there already is left alone."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text(_POLICY_TEXT)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _linux() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ClusterError(
            f"The local cluster needs Linux on x86_64; this is {platform.system()} on {platform.machine()}.",
            todo="Run it in a virtual machine, or use a cluster that is there with CLUSTER=existing and KUBECONFIG.",
        )


def _root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "The local cluster makes a network bridge, mounts and cgroups, and you are not root.",
            todo="Run it as root, or use a cluster that is there with CLUSTER=existing and KUBECONFIG.",
        )


def _cgroups() -> None:
    text = Path("/proc/self/mountinfo").read_text()
    if " - cgroup2 " not in text and "memory" not in text:
        raise ClusterError(
            "No cgroup hierarchy is mounted, so containers can have no limits.", todo="Mount /sys/fs/cgroup."
        )


def _disk() -> None:
    already = _size_gb(cache.root()) if cache.root().exists() else 0
    for path in (STATE, cache.root()):
        existing = next(parent for parent in [path, *path.parents] if parent.exists())
        free_gb = shutil.disk_usage(existing).free // 1_000_000_000
        if free_gb + already < DISK_NEEDED_GB:
            raise ClusterError(
                f"{existing} has {free_gb} GB free; the local cluster needs {DISK_NEEDED_GB} GB.",
                todo="Free some space, or set CONCH_CACHE to a folder on a larger disk.",
            )


def _size_gb(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file()) // 1_000_000_000


def _go() -> None:
    if shutil.which("go") is None:
        raise ClusterError(
            "The program 'go' is missing, and the cluster's parts are built with it.",
            todo="Install Go 1.26 or newer and put it on PATH.",
        )
