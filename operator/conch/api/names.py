"""Every name that Conch gives to something in the cluster: group, labels, field manager, children."""

import hashlib
import hmac
from typing import Final

GROUP: Final = "conch.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
PLURAL: Final = "modeldeployments"

FIELD_MANAGER: Final = "conch-operator"
STATUS_FIELD_MANAGER: Final = "conch-operator-status"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "conch"
LABEL_MODEL_DEPLOYMENT: Final = f"{GROUP}/model-deployment"
LABEL_WORKLOAD: Final = f"{GROUP}/workload"

LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's: its webhooks read it from the Deployment, and hold the pods until the queue admits them."""

ADMIN_KEY_SECRET_KEY: Final = "admin-key"  # noqa: S105 - the name of an entry, not a secret

LEASE: Final = "conch-operator"

ANNOTATION_COMMAND: Final = f"{GROUP}/command"
ANNOTATION_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
DELETION_COST_LEAVING: Final = "-1000"
"""Of the ready pods of a ReplicaSet, those of the lowest cost are removed first."""

ANNOTATION_CHANGE: Final = f"{GROUP}/change"
"""Of a pod, the in-place change that its assignment brings. Its kubelet looks at a pod that changes, and brings mounted
ConfigMaps up to date; otherwise that takes up to a minute and a half."""

LABEL_SERVICE: Final = "kubernetes.io/service-name"
LABEL_SLICE_MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
SLICE_MANAGED_BY: Final = f"{FIELD_MANAGER}.{GROUP}"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
GATEWAY_LABELS: Final = {"app.kubernetes.io/name": "conch", LABEL_COMPONENT: "gateway"}
"""What the chart's gateway pods bear."""
OPERATOR_LABELS: Final = {"app.kubernetes.io/name": "conch", LABEL_COMPONENT: "operator"}
"""What the chart's operator pods bear."""
LABEL_NAMESPACE: Final = "kubernetes.io/metadata.name"
"""Every namespace bears it, with its own name; the API server sees to that."""


def object_labels(name: str) -> dict[str, str]:
    """Labels of every child of the ModelDeployment `name`."""
    return {LABEL_MANAGED_BY: MANAGED_BY, "app.kubernetes.io/instance": name, LABEL_MODEL_DEPLOYMENT: name}


def workload_labels(name: str, workload: str) -> dict[str, str]:
    """Labels of a workload's Deployment and pods."""
    return object_labels(name) | {LABEL_WORKLOAD: workload}


def queue_labels(queue: str | None) -> dict[str, str]:
    """What makes Kueue admit a workload's pods through a queue."""
    return {LABEL_QUEUE: queue} if queue else {}


def workload_selector(name: str, workload: str) -> dict[str, str]:
    """What selects the pods of one workload."""
    return {LABEL_MODEL_DEPLOYMENT: name, LABEL_WORKLOAD: workload}


def pods_selector(name: str) -> dict[str, str]:
    """What selects the pods of all workloads of one object."""
    return {LABEL_MODEL_DEPLOYMENT: name}


def workload_id(uid: str, number: int) -> str:
    """The id of the `number`-th workload of an object; a name made from it is never used twice, also by a namesake."""
    return hashlib.sha256(f"{uid}/{number}".encode()).hexdigest()[:8]


def workload_number(uid: str, workload: str, created: int) -> int:
    """Which of the workloads that an object has `created` bears this id; 0 if none does."""
    return next((number for number in range(created, 0, -1) if workload_id(uid, number) == workload), 0)


def workload_object(name: str, workload: str) -> str:
    """Name of a workload's Deployment, assignment ConfigMap and ControllerRevision."""
    return f"{name}-{workload}"


def service(name: str) -> str:
    """Name of the Service that clients call."""
    return name


def route(namespace: str, name: str) -> str:
    """What a gateway knows the object by; two objects never share one, for a namespace has no dot in it."""
    return f"{namespace}.{name}"


def gateway_slice(name: str) -> str:
    """Name of the EndpointSlice with which the Service sends to the gateways."""
    return f"{name}-gateways"


def gateway_api_route(name: str) -> str:
    """Name of the HTTPRoute and of the GRPCRoute in gateway.mode GatewayAPI."""
    return name


def workload_service(name: str, workload: str) -> str:
    """Name of a workload's own Service: the gateways read its endpoints, and routes of the Gateway API name it."""
    return workload_object(name, workload)


def disruption_budget(name: str) -> str:
    """Name of the PodDisruptionBudget."""
    return name


def network_policy(name: str) -> str:
    """Name of the NetworkPolicy.

    Not the object's own: people call policies that they write for a model after it.
    """
    return f"{name}-model-pods"


def admin_key_secret(name: str, uid: str) -> str:
    """Name of the Secret with the key of Triton's restricted APIs.

    Made from the uid too: the Secret of an earlier object of the same name holds another key, and pods that start
    before garbage collection took it must not get that.
    """
    return f"{name}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}-admin-key"


def admin_key(installation_key: bytes, uid: str) -> str:
    """The object's admin key: derived, so that a Secret that was deleted comes back equal."""
    return hmac.new(installation_key, f"{GROUP}/admin-key/{uid}".encode(), hashlib.sha256).hexdigest()


def status_key(admin_key: str) -> str:
    """The key with which the operator asks an agent.

    It goes over the pods' network in clear, so it opens nothing but the agent's status: who sees it, or gets a pod's
    address after that pod, must not be able to use Triton's model control with it.
    """
    return hmac.new(admin_key.encode(), f"{GROUP}/agent-status".encode(), hashlib.sha256).hexdigest()


def pin_code(admin_key: str, revision: str, digest: str, resolved: str) -> str:
    """What proves to an agent that a pin is the operator's: who saw the status key cannot make one."""
    words = "\0".join((f"{GROUP}/pin", revision, digest, resolved))
    return hmac.new(admin_key.encode(), words.encode(), hashlib.sha256).hexdigest()


def turn_code(admin_key: str, pod: str, change: str, turn: int, revision: str) -> str:
    """What proves to an agent that an order to serve one of a change's two revisions is the operator's, and for it."""
    words = "\0".join((f"{GROUP}/turn", pod, change, str(turn), revision))
    return hmac.new(admin_key.encode(), words.encode(), hashlib.sha256).hexdigest()
