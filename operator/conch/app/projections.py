"""From live objects to what the planner is told of them. Run once per event, so that nothing else is kept in memory."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from conch.api import names, pod
from conch.api.instances import INSTANCES_MOST
from conch.app.route_projection import parent_verdicts, route_weights
from conch.core.desired.model_cache import cache_claim
from conch.core.desired.object import owned_fields_hash
from conch.core.desired.workload_record import read_record
from conch.core.observed import ObservedGateway
from conch.core.observed_child import (
    ChildId,
    ChildKind,
    Controller,
    ObservedAssignment,
    ObservedChild,
    ObservedDeployment,
    ObservedRecord,
    ObservedRoute,
    ObservedService,
    ObservedSlice,
)
from conch.core.observed_pod import ObservedContainer, ObservedPod
from conch.kube import resources
from conch.kube.managed_fields import owned_fields
from conch.kube.resources import Resource

CHILD_RESOURCES: Final[Mapping[ChildKind, Resource]] = {
    ChildKind.CONFIG_MAP: resources.CONFIG_MAPS,
    ChildKind.CONTROLLER_REVISION: resources.CONTROLLER_REVISIONS,
    ChildKind.DEPLOYMENT: resources.DEPLOYMENTS,
    ChildKind.ENDPOINT_SLICE: resources.ENDPOINT_SLICES,
    ChildKind.GRPC_ROUTE: resources.GRPC_ROUTES,
    ChildKind.HTTP_ROUTE: resources.HTTP_ROUTES,
    ChildKind.NETWORK_POLICY: resources.NETWORK_POLICIES,
    ChildKind.POD_DISRUPTION_BUDGET: resources.POD_DISRUPTION_BUDGETS,
    ChildKind.SECRET: resources.SECRETS,
    ChildKind.SERVICE: resources.SERVICES,
}

_EXIT_MESSAGE_LIMIT: Final = 300
_LEAVING_TAINTS: Final = frozenset({"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"})
"""How Kubernetes' cluster autoscaler and Karpenter mark nodes that they are about to drain."""
_TAINT_MANAGER: Final = "DeletionByTaintManager"
"""What ends pods whose node does not answer for longer than they tolerate."""

_GATED: Final = "SchedulingGated"
_NO_NODE: Final = ("Unschedulable", _GATED)


def project_child(kind: ChildKind, live: Mapping[str, Any]) -> ObservedChild:
    """A child of any watched kind."""
    metadata = live["metadata"]
    common: dict[str, Any] = {
        "id": ChildId(kind=kind, name=metadata["name"]),
        "uid": metadata["uid"],
        "resource_version": metadata["resourceVersion"],
        "controller": controller_of(metadata),
        "owned_hash": _owned_hash(live),
        "deleting": "deletionTimestamp" in metadata,
    }
    match kind:
        case ChildKind.CONFIG_MAP:
            return ObservedAssignment(**common, instances=_instances(live))
        case ChildKind.DEPLOYMENT:
            return ObservedDeployment(
                **common,
                workload=metadata.get("labels", {}).get(names.LABEL_WORKLOAD, ""),
                replicas=live.get("spec", {}).get("replicas", 1),
                mounts_cache=cache_claim(live.get("spec", {}).get("template", {})) is not None,
                creation_error=_creation_error(live.get("status", {})),
            )
        case ChildKind.CONTROLLER_REVISION:
            try:
                return ObservedRecord(**common, record=read_record(live["data"]))
            except (KeyError, TypeError, ValueError):
                # A stranger's; its controller says so.
                return ObservedChild(**common)
        case ChildKind.SERVICE:
            return ObservedService(**common, selects=bool(live.get("spec", {}).get("selector")))
        case ChildKind.HTTP_ROUTE | ChildKind.GRPC_ROUTE:
            return ObservedRoute(
                **common,
                generation=metadata.get("generation", 0),
                weights=route_weights(live),
                verdicts=parent_verdicts(live),
            )
        case ChildKind.ENDPOINT_SLICE:
            labels = metadata.get("labels", {})
            return ObservedSlice(
                **common,
                service=labels.get(names.LABEL_SERVICE, ""),
                managed_by=labels.get(names.LABEL_SLICE_MANAGED_BY, ""),
                ready=frozenset(
                    address
                    for endpoint in live.get("endpoints") or ()
                    # Absent means ready.
                    if endpoint.get("conditions", {}).get("ready", True)
                    for address in endpoint["addresses"]
                ),
            )
        case _:
            return ObservedChild(**common)


def _instances(live: Mapping[str, Any]) -> int | None:
    try:
        asked = json.loads(live["data"][pod.ASSIGNMENT_FILE])["instances"]
    except (KeyError, TypeError, ValueError):
        # A stranger's, edited by hand, or nothing is asked for.
        return None
    return asked if type(asked) is int and 1 <= asked <= INSTANCES_MOST else None


def controller_of(metadata: Mapping[str, Any]) -> Controller | None:
    """The controlling owner of an object."""
    for owner in metadata.get("ownerReferences", ()):
        if owner.get("controller"):
            return Controller(kind=owner["kind"], name=owner["name"], uid=owner["uid"])
    return None


def _owned_hash(live: Mapping[str, Any]) -> str:
    owned = owned_fields(live, names.FIELD_MANAGER)
    return owned_fields_hash({"metadata": {}, **owned})


def _creation_error(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return ""


def project_pod(live: Mapping[str, Any]) -> ObservedPod:
    """A pod of a workload."""
    metadata, status = live["metadata"], live.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    return ObservedPod(
        name=metadata["name"],
        uid=metadata["uid"],
        workload=metadata.get("labels", {}).get(names.LABEL_WORKLOAD, ""),
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        failure=_failure(status),
        node=live.get("spec", {}).get("nodeName", ""),
        node_lost=conditions.get("DisruptionTarget", {}).get("reason") == _TAINT_MANAGER,
        scheduled=scheduled.get("status") == "True",
        unschedulable_message=scheduled.get("message", "") if scheduled.get("reason") in _NO_NODE else "",
        gated=scheduled.get("reason") == _GATED,
        waits_for_scheduler="" if scheduled else _scheduler(live),
        missing_claims=_missing_claims(live),
        ip=status.get("podIP", ""),
        created=metadata.get("creationTimestamp", ""),
        marked_for_removal=_is_marked(metadata),
        shown_change=metadata.get("annotations", {}).get(names.ANNOTATION_CHANGE, ""),
        containers=tuple(
            _container(container)
            for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
        ),
    )


def _scheduler(live: Mapping[str, Any]) -> str:
    spec = live.get("spec", {})
    return "" if spec.get("nodeName") else str(spec.get("schedulerName", "default-scheduler"))


def _missing_claims(live: Mapping[str, Any]) -> tuple[str, ...]:
    made = {claim["name"] for claim in live.get("status", {}).get("resourceClaimStatuses") or ()}
    wanted = live.get("spec", {}).get("resourceClaims") or ()
    return tuple(
        claim["resourceClaimTemplateName"]
        for claim in wanted
        if "resourceClaimTemplateName" in claim and claim["name"] not in made
    )


def _is_marked(metadata: Mapping[str, Any]) -> bool:
    return bool(metadata.get("annotations", {}).get(names.ANNOTATION_DELETION_COST) == names.DELETION_COST_LEAVING)


def project_gateway_pod(live: Mapping[str, Any]) -> ObservedGateway:
    """A pod of the gateway fleet, before it was asked anything."""
    metadata, status = live["metadata"], live.get("status", {})
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    return ObservedGateway(
        name=metadata["name"],
        # What has ended keeps its address, which may be somebody else's by now.
        address="" if status.get("phase") in ("Failed", "Succeeded") else status.get("podIP", ""),
        ready=conditions.get("Ready") == "True",
        leaving="deletionTimestamp" in metadata,
    )


def project_node(live: Mapping[str, Any]) -> bool:
    """Whether somebody is about to drain the node: by hand (cordoned), or an autoscaler."""
    spec = live.get("spec", {})
    return bool(spec.get("unschedulable")) or any(
        taint.get("key") in _LEAVING_TAINTS for taint in spec.get("taints") or ()
    )


def _failure(status: Mapping[str, Any]) -> str:
    if status.get("phase") != "Failed":
        return ""
    return ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key)) or "it failed"


def _container(status: Mapping[str, Any]) -> ObservedContainer:
    waiting = status.get("state", {}).get("waiting", {})
    ended = status.get("lastState", {}).get("terminated") or status.get("state", {}).get("terminated") or {}
    return ObservedContainer(
        name=status["name"],
        ready=bool(status.get("ready")),
        restarts=status.get("restartCount", 0),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        last_exit=_exit(ended),
        last_exit_at=datetime.fromisoformat(ended["finishedAt"]) if ended.get("finishedAt") else None,
    )


def _exit(ended: Mapping[str, Any]) -> str:
    """How a container ended, in one line: reason, exit code and the end of what it said."""
    if not ended:
        return ""
    said = " ".join(str(ended.get("message", "")).split())[-_EXIT_MESSAGE_LIMIT:]
    code = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
    return f"{code}: {said}" if said else code
