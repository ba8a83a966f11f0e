"""Where a workload's pods may run, and on which devices."""

from collections.abc import Mapping
from typing import Any, Final

from conch.api.gpu import Gpu
from conch.api.scheduling import Scheduling, TopologySpread, WhenUnsatisfiable

_OVER_NODES: Final = TopologySpread(
    topology_key="kubernetes.io/hostname", when_unsatisfiable=WhenUnsatisfiable.SCHEDULE_ANYWAY
)
_LOST_NODE_SECONDS: Final = 30


def placement(scheduling: Scheduling, gpu: Gpu, selector: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a pod's spec that say so; `selector` is of the pods that are spread."""
    return {
        "topologySpreadConstraints": [
            {**spread.to_wire(), "labelSelector": {"matchLabels": dict(selector)}}
            for spread in scheduling.topology_spread or (_OVER_NODES,)
        ],
        **_device_claims(gpu),
        **_scheduling(scheduling, gpu),
    }


def devices_env(gpu: Gpu) -> list[dict[str, Any]]:
    """CUDA's images ask for all of the node's GPUs; a container runtime that listens to that gives them uncounted.

    What a claim gives, the runtime is told by other ways.
    """
    return [] if gpu.counted else [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]


def _device_claims(gpu: Gpu) -> dict[str, Any]:
    return {"resourceClaims": [claim.to_wire() for claim in gpu.claims]} if gpu.claims else {}


def _scheduling(scheduling: Scheduling, gpu: Gpu) -> dict[str, Any]:
    tolerations: list[dict[str, Any]] = [
        # Without what is empty, as the API server keeps it.
        {key: value for key, value in toleration.to_wire().items() if value != ""}
        for toleration in scheduling.tolerations
    ]
    if gpu.wanted:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    # The default is five minutes: too long for a replica that a lost node took along.
    tolerations += [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_NODE_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
    fields: dict[str, Any] = {"tolerations": tolerations}
    if scheduling.node_selector:
        fields["nodeSelector"] = dict(scheduling.node_selector)
    if scheduling.priority_class_name:
        fields["priorityClassName"] = scheduling.priority_class_name
    if scheduling.runtime_class_name:
        fields["runtimeClassName"] = scheduling.runtime_class_name
    if scheduling.scheduler_name:
        fields["schedulerName"] = scheduling.scheduler_name
    if gpu.products:
        product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(gpu.products)}
        terms = [{"matchExpressions": [product]}]
        fields["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        }
    return fields
