"""What of the cluster runs, and how it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import bringup, dns, machine, proxy
from tests.cluster.constants import NODES
from tests.cluster.node import NodeParts
from tests.cluster.pki import KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One part; `health` is "ok" or what is wrong."""

    part: str
    pid: int | None
    resident_mib: int | None
    health: str


def rows() -> list[Row]:
    """Every recorded part; empty when there is no cluster."""
    record = machine.read()
    if record is None:
        return []
    found = []
    checks = dict(_checks())
    for each in machine.processes(record).all():
        check = checks.pop(each.name, None)
        alive = each.alive
        health = "ended" if not alive else "ok" if check is None or check() else "does not answer"
        pid = each.pid if alive else None
        found.append(Row(part=each.name, pid=pid, resident_mib=_resident_mib(pid), health=health))
    return found + [Row(part=name, pid=None, resident_mib=None, health="not started") for name in checks]


def _checks() -> Iterator[tuple[str, Callable[[], bool]]]:
    plane = bringup.control_plane(Path())
    yield "etcd", plane.etcd_ready
    yield "kube-apiserver", plane.ready
    yield "kube-controller-manager", plane.controller_manager_ready
    yield "kube-scheduler", plane.scheduler_ready
    yield "kube-proxy", proxy.ready
    yield "coredns", dns.ready
    nothing = KeyPair(certificate=Path(), key=Path())
    for node in NODES:
        parts = NodeParts(node=node, binaries=Path(), authority=nothing)
        yield parts.containerd_name, partial(NodeParts.containerd_ready, parts)
        yield parts.kubelet_name, partial(NodeParts.kubelet_ready, parts)


def _resident_mib(pid: int | None) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), None)
