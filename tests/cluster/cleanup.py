"""Removes a cluster from the machine, whole or half-made: only what has our names, paths, cgroups or pids."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import machine, network, processes
from tests.cluster.constants import CGROUP_PREFIX, CNI_PREFIX, GO_PROGRAMS, NODES, RUN, STATE
from tests.cluster.errors import ClusterError

_MNT_DETACH = 2
_PASSES = 5
_CGROUPS = Path("/sys/fs/cgroup")
_DAEMONS = frozenset({program.name for program in GO_PROGRAMS} | {"containerd"})
_SHARED_CONTAINERD = Path("/run/containerd")


def remove() -> None:
    """Ends everything and deletes everything of the machine's cluster, of whichever checkout; keeps the caches."""
    record = machine.read()
    daemons = machine.processes(record)
    # Kubelets first, else they start the containers again that are ended next.
    daemons.stop(*[f"kubelet-{node.name}" for node in NODES], grace_seconds=2)
    end_containers()
    daemons.stop(grace_seconds=0)
    processes.end(list(_unrecorded()), grace_seconds=0)
    # A shim started between the two looks, or by a containerd that was about to.
    end_containers()
    _unmount_below(STATE, RUN)
    _remove_cgroups()
    same_boot = record is not None and record.boot == processes.boot_id()
    network.down(sysctls=record.sysctls if record and same_boot else {}, own_kube_proxy=same_boot)
    _remove_files(record)


def leftovers() -> list[str]:
    """What of a cluster is still on this machine, for a person; empty after `down`."""
    found = [f"process {pid}" for pid in [*_shims(), *_contained()]]
    found += [f"process {record.pid} ({record.name})" for record in machine.processes().all() if record.alive]
    found += [f"process {pid} (unrecorded)" for pid in _unrecorded()]
    found += [f"mount {mount}" for mount in _mounts_below(STATE, RUN)]
    found += [f"cgroup {folder}" for folder in _cgroup_folders()]
    found += [str(path) for path in (STATE, RUN) if path.exists()]
    return found


def end_containers(node: str = "*") -> None:
    """Ends every container of one node, or of all, at once: one that ignores SIGTERM would take its grace period."""
    # Shims first, and again: one that dies while it starts a container leaves that to run.
    for _ in range(_PASSES):
        running = [*_shims(node), *_contained(node)]
        processes.end(running, grace_seconds=0)
        if not running:
            break
    else:
        raise ClusterError(
            f"These processes of containers do not end: {', '.join(map(str, running))}.",
            todo="See with `ps` what they wait for, then run `down` again.",
        )
    # Shims make their sockets in a folder that all containerds of the machine share; ours are named in their bundles,
    # which a restarted containerd deletes without the sockets.
    for address in RUN.glob(f"{node}/containerd/io.containerd.runtime.v2.task/*/*/address"):
        _unlink_socket(address.read_text())


def _unrecorded() -> Iterator[int]:
    """Daemons whose starter was killed before it wrote the pid down: each has a path of our state in its arguments."""
    for pid, argv in _command_lines():
        if Path(argv[0]).name in _DAEMONS and any(f"{STATE}/" in part for part in argv[1:]):
            yield pid


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes().decode(errors="replace").split("\0")


def _shims(node: str = "*") -> Iterator[int]:
    """Shims of our containerds, told by the `-address` of their containerd's socket."""
    prefix = f"{RUN}/" if node == "*" else f"{RUN}/{node}/"
    for pid, argv in _command_lines():
        if argv[0].endswith("/containerd-shim-runc-v2") and any(part.startswith(prefix) for part in argv[1:]):
            yield pid


def _cgroup_folders(node: str = "*") -> list[Path]:
    """The cgroups of our nodes and of their containers, in the one hierarchy (v2) or in each (v1).

    A kubelet without cgroups per quality of service names no parent for its pods, so their containers lie where
    containerd puts them: at `/NAMESPACE/ID`, both of which are also the names of the container's bundle.
    """
    roots = [_CGROUPS, *(each for each in _CGROUPS.iterdir() if each.is_dir())] if _CGROUPS.exists() else []
    bundles = RUN.glob(f"{node}/containerd/io.containerd.runtime.v2.task/*/*")
    containers = [Path(bundle.parent.name, bundle.name) for bundle in bundles]
    found = [folder for root in roots for folder in root.glob(f"{CGROUP_PREFIX}{node}")]
    return found + [root / each for root in roots for each in containers if (root / each).is_dir()]


def _contained(node: str = "*") -> Iterator[int]:
    """Every process in those cgroups: the containers of our pods, and nothing else."""
    seen: set[int] = set()
    for folder in _cgroup_folders(node):
        for below in _with_all_below(folder):
            with contextlib.suppress(OSError):
                seen.update(int(pid) for pid in (below / "cgroup.procs").read_text().split())
    yield from seen


def _with_all_below(folder: Path) -> list[Path]:
    """A folder and those in it, the outer ones first; they may vanish meanwhile, which os.walk takes as it is."""
    return [Path(name) for name, _, _ in os.walk(folder)]


def _remove_cgroups() -> None:
    for folder in _cgroup_folders():
        for path in reversed(_with_all_below(folder)):
            with contextlib.suppress(OSError):
                path.rmdir()


def _mounts_below(*folders: Path) -> list[str]:
    """Mount points in our folders, the last mounted first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    prefixes = tuple(f"{folder}/" for folder in folders)
    return [mount for mount in reversed(mounts) if mount.startswith(prefixes)]


def _unmount_below(*folders: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for mount in _mounts_below(*folders):
        libc.umount2(os.fsencode(mount), _MNT_DETACH)


def _remove_files(record: machine.MachineRecord | None) -> None:
    for path in Path("/var/lib/cni/results").glob(f"{CNI_PREFIX}*"):
        path.unlink(missing_ok=True)
    for path in Path("/var/log/containers").glob("*.log"):
        if path.is_symlink() and str(path.readlink()).startswith(f"{STATE}/"):
            path.unlink()
    # Only when empty: a containerd of the machine's own may use it too.
    for folder in (_SHARED_CONTAINERD / "s", _SHARED_CONTAINERD):
        with contextlib.suppress(OSError):
            folder.rmdir()
    if record is not None:
        for made in record.made:
            if Path(made) in machine.FIXED_PATHS:
                shutil.rmtree(made, ignore_errors=True)
        (Path(record.checkout_state) / "kubeconfig").unlink(missing_ok=True)
    # The state goes last and the record with it: a run killed before this line is cleaned up after by the next one.
    for folder in (RUN, STATE):
        for _ in range(2):
            shutil.rmtree(folder, ignore_errors=True)


def _unlink_socket(address: str) -> None:
    path = Path(address.strip().removeprefix("unix://"))
    if path.is_relative_to(_SHARED_CONTAINERD / "s"):
        path.unlink(missing_ok=True)
