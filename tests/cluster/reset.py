"""Deletes everything that users made, without restarting a part: much quicker than `down` and `up`.

What is not theirs was written down at the end of `up`: every object that was there before anybody could make one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from tests.cluster import waiting
from tests.cluster.client import Cluster
from tests.cluster.constants import NODES, STATE, Node

_SNAPSHOT = STATE / "snapshot.json"
_CONTROL_PLANE_KINDS = frozenset(
    {
        # Made and removed by the control plane for other objects, or continuously.
        "bindings",
        "componentstatuses",
        "controllerrevisions.apps",
        "csinodes.storage.k8s.io",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "events",
        "events.events.k8s.io",
        "apiservices.apiregistration.k8s.io",
        "ipaddresses.networking.k8s.io",
        "leases.coordination.k8s.io",
        "nodes",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    }
)
_ADMISSION = "admissionregistration.k8s.io"
_POD_GRACE_SECONDS = 1
_TOUCH = "conch.dev/reset"
_ROUNDS_A_TOUCH = 10


class Object(NamedTuple):
    """An object's identity."""

    kind: str
    namespace: str
    name: str


def snapshot(cluster: Cluster) -> None:
    """Writes down what is there; called when nobody but the cluster itself has made anything."""
    _SNAPSHOT.write_text(json.dumps(sorted(_everything(cluster))))


def reset(cluster: Cluster) -> None:
    """Deletes what is not in the snapshot, waits until it is gone, and puts the nodes back as they were."""
    kept = {Object(*each) for each in json.loads(_SNAPSHOT.read_text())}
    for node in NODES:
        cluster.start_node(node.name)
        _restore_node(cluster, node)
    found = _everything(cluster) - kept
    # Admission first: a webhook whose pod is gone, or a policy, could refuse the other deletions.
    _delete(cluster, [each for each in found if each.kind.endswith(_ADMISSION)])
    _strip_finalizers(cluster, found)
    _delete(cluster, [each for each in found if not each.namespace])
    # A namespace that is being deleted lets no controller make pods anew; only then a short grace ends them for good.
    namespaces = {each.name for each in found if each.kind == "namespaces"}
    _delete(cluster, [each for each in found if each.kind != "pods" and each.namespace not in {"", *namespaces}])
    pods = [each for each in _everything(cluster) - kept if each.kind == "pods"]
    _delete(cluster, pods, f"--grace-period={_POD_GRACE_SECONDS}")

    rounds = count()

    def gone() -> bool:
        left = _everything(cluster) - kept
        names = [each.name for each in left if each.kind == "namespaces"]
        if names and (round_ := next(rounds)) % _ROUNDS_A_TOUCH == 0:
            # One whose pods had a long grace is looked at again after half of that; one that changes, within seconds.
            cluster.kubectl("annotate", "namespaces", *names, f"{_TOUCH}={round_}", "--overwrite", check=False)
        return not left

    waiting.until(
        gone,
        what="The deletion of what users made",
        timeout_seconds=90,
        todo="See what `kubectl get ns,crd,pods -A` still shows (a finalizer without its controller?).",
        every_seconds=0.3,
    )


def _everything(cluster: Cluster) -> set[Object]:
    """Every object that nobody makes continuously, of every kind that can be deleted."""
    found: list[set[Object]] = []

    def listed() -> bool:
        # A kind that is being deleted is gone for some and not yet for others.
        if (objects := _listed(cluster)) is not None:
            found.append(objects)
        return bool(found)

    waiting.until(listed, what="A list of all objects", timeout_seconds=60, todo="Run `status`.")
    return found[0]


def _listed(cluster: Cluster) -> set[Object] | None:
    """The same, by one look; None where the API server's kinds changed meanwhile."""
    resources = _resources(cluster)
    columns = "API:.apiVersion,KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
    # One call for all kinds: one for each takes ten times as long.
    listed = cluster.kubectl(
        "get", ",".join(resources.values()), "-A", "--no-headers", "-o", f"custom-columns={columns}", check=False
    )
    if listed.returncode != 0 and not listed.stdout:
        return None
    found: set[Object] = set()
    for line in listed.stdout.splitlines():
        version, kind, namespace, name = line.split()
        each = Object(resources[version, kind], "" if namespace == "<none>" else namespace, name)
        if not _of_control_plane(each):
            found.add(each)
    return found


def _resources(cluster: Cluster) -> dict[tuple[str, str], str]:
    """(apiVersion, kind) -> the resource's full name, as kubectl takes it."""
    found = {}
    listed = cluster.kubectl("api-resources", "--verbs=list,delete", "--no-headers", "--cached=false").stdout
    for line in listed.splitlines():
        # Plural, short names (perhaps none), version, whether in a namespace, kind.
        words = line.split()
        plural, version, kind = words[0], words[-3], words[-1]
        group = version.rpartition("/")[0]
        name = f"{plural}.{group}" if group else plural
        if name not in _CONTROL_PLANE_KINDS:
            found[version, kind] = name
    return found


def _of_control_plane(each: Object) -> bool:
    """Made by controllers at any time: their own accounts, and what each namespace gets."""
    match each.kind:
        case "serviceaccounts":
            return each.name == "default" or each.namespace == "kube-system"
        case "configmaps":
            return each.name == "kube-root-ca.crt" or each.name.startswith("kube-apiserver-legacy")
        case _:
            return False


def _strip_finalizers(cluster: Cluster, found: set[Object]) -> None:
    """A custom object's controller may be deleted before it: nobody would take its finalizer off."""
    custom = {each.name for each in found if each.kind == "customresourcedefinitions.apiextensions.k8s.io"}
    patch = json.dumps({"metadata": {"finalizers": None}})
    for each in found:
        if each.kind in custom:
            place = ["-n", each.namespace] if each.namespace else []
            cluster.kubectl("patch", each.kind, each.name, *place, "--type=merge", "-p", patch, check=False)


def _delete(cluster: Cluster, objects: Iterable[Object], *options: str) -> None:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in objects:
        groups[each.kind, each.namespace].append(each.name)
    for (kind, namespace), names in groups.items():
        place = ["-n", namespace] if namespace else []
        cluster.kubectl("delete", kind, *names, *place, "--wait=false", "--ignore-not-found", *options, check=False)


def _restore_node(cluster: Cluster, node: Node) -> None:
    """Undoes cordons, taints and changed GPU counts."""
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}] if node.gpus else None
    patch = json.dumps({"spec": {"unschedulable": None, "taints": taints}})
    cluster.kubectl("patch", "node", node.name, "--type=merge", "-p", patch)
    cluster.set_gpus(node)
