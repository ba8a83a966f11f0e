"""The pod of a workload: stock Triton that starts empty, and the agent that gives it its model.

Holds nothing of the model's version or config, and of its source only the claim that a pod has to mount: the rest is in
the assignment, so that it can change without other pods. The model's name is in the readiness probe. The facts behind
the probes, /dev/shm and the way of stopping are in the design's list of Triton facts.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from conch.api import names, pod
from conch.api.canonical import quantity
from conch.api.model import ModelStorage
from conch.api.model_deployment import ModelDeployment
from conch.api.runtime import EnvVar
from conch.api.spec import ModelDeploymentSpec
from conch.api.triton_arguments import triton_arguments
from conch.core.desired.model_cache import cache_env, cache_group, cache_mounts, cache_volumes
from conch.core.desired.placement import devices_env, placement
from conch.core.desired.source_volumes import (
    claim_mounts,
    claim_volumes,
    claims,
    credentials_mounts,
    credentials_volumes,
)
from conch.core.policy import InstallationPolicy

_MODEL_VOLUME: Final = "model"
_ASSIGNMENT_VOLUME: Final = "assignment"
_SHARED_MEMORY_VOLUME: Final = "shared-memory"
_SCRATCH_VOLUME: Final = "tmp"

_AZURE_IDENTITY: Final = "azure.workload.identity/use"

_FILE_SYSTEM_SHARE: Final = Decimal("0.95")
"""Of a volume's size: the rest is the file system's own."""

_STOP_MARGIN_SECONDS: Final = 10

_RESTRICTED: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def pod_template(
    owner: ModelDeployment, spec: ModelDeploymentSpec, workload: str, policy: InstallationPolicy
) -> dict[str, Any]:
    """The pod template of a workload, as an apply configuration; passes PodSecurity `restricted`."""
    model_name = spec.model.named(owner.name).name
    if claims(spec):
        # What lies on a claim is not cached, nor what is served beside it.
        policy = replace(policy, model_cache=None)
    return {
        "metadata": {
            "labels": names.workload_labels(owner.name, workload)
            | names.queue_labels(spec.scheduling.queue_name)
            | _identity_labels(spec),
            "annotations": {"kubectl.kubernetes.io/default-container": pod.TRITON_CONTAINER},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _grace_seconds(policy),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": pod.USER_ID,
                "runAsGroup": pod.USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
                # A fresh volume belongs to root, an emptyDir to everybody.
                **({"fsGroup": pod.USER_ID} if spec.model.storage else {}),
                **cache_group(policy),
            },
            "initContainers": [_agent(owner, spec, policy)],
            "containers": [_triton(owner, spec, policy, str(model_name))],
            "volumes": _volumes(owner, spec, workload, policy),
            **placement(spec.scheduling, spec.gpu, names.workload_selector(owner.name, workload)),
            **({"serviceAccountName": spec.service_account_name} if spec.service_account_name else {}),
            **(
                {"imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets]}
                if spec.image_pull_secrets
                else {}
            ),
        },
    }


def _identity_labels(spec: ModelDeploymentSpec) -> dict[str, str]:
    """Azure gives a service account's identity only to pods that ask for it."""
    wanted = spec.service_account_name and any(source.place.scheme == "az" for source in spec.sources.values())
    return {_AZURE_IDENTITY: "true"} if wanted else {}


def _model_bytes(spec: ModelDeploymentSpec, policy: InstallationPolicy) -> int:
    """How much of the model volume files may take: what is beyond an emptyDir's limit gets the pod evicted."""
    if spec.model.storage is None:
        return int(quantity(policy.model_volume_limit))
    return int(quantity(spec.model.storage.size) * _FILE_SYSTEM_SHARE)


def _cpus_env(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """Where models compute on the CPU, the agent divides it among them; beside a GPU that is the author's to say."""
    cpus = format(quantity(spec.runtime.resources.cpu).normalize(), "f")
    return [] if spec.gpu.wanted else [{"name": pod.TRITON_CPUS_ENV, "value": cpus}]


def _grace_seconds(policy: InstallationPolicy) -> int:
    """What the agent waits for, then what Triton itself may take for what came on idle connections, then the rest."""
    return int((policy.endpoint_propagation + 2 * policy.drain_timeout).total_seconds()) + _STOP_MARGIN_SECONDS


def _agent(owner: ModelDeployment, spec: ModelDeploymentSpec, policy: InstallationPolicy) -> dict[str, Any]:
    """The native sidecar. Its startup probe holds Triton back until the repository folder is there."""
    mounts = [
        {"name": _ASSIGNMENT_VOLUME, "mountPath": pod.ASSIGNMENT_FOLDER, "readOnly": True},
        {"name": _MODEL_VOLUME, "mountPath": pod.MODEL_FOLDER},
        {"name": _SCRATCH_VOLUME, "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        *claim_mounts(spec),
        *cache_mounts(policy, read_only=False),
        *credentials_mounts(spec),
    ]
    disk = {} if spec.model.storage else {"ephemeral-storage": policy.model_volume_request}
    return {
        "name": pod.AGENT_CONTAINER,
        "image": policy.agent_image,
        "imagePullPolicy": policy.image_pull_policy,
        "restartPolicy": "Always",
        "args": ["agent"],
        "env": [
            _pod_name_env(),
            {"name": pod.MODEL_BYTES_ENV, "value": str(_model_bytes(spec, policy))},
            {"name": pod.TRITON_IMAGE_ENV, "value": _triton_image(spec, policy)},
            *cache_env(policy),
            {"name": pod.PROPAGATION_ENV, "value": str(int(policy.endpoint_propagation.total_seconds()))},
            {"name": pod.DRAIN_ENV, "value": str(int(policy.drain_timeout.total_seconds()))},
            *_cpus_env(spec),
            _admin_key_env(owner),
        ],
        "ports": [{"name": "agent", "containerPort": pod.AGENT_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": policy.agent_cpu, "memory": policy.agent_memory, **disk},
            "limits": {"memory": policy.agent_memory},
        },
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": pod.AGENT_PORT},
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": pod.AGENT_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": _RESTRICTED | {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _triton_image(spec: ModelDeploymentSpec, policy: InstallationPolicy) -> str:
    return spec.runtime.image or policy.triton_image


def _triton(
    owner: ModelDeployment, spec: ModelDeploymentSpec, policy: InstallationPolicy, model_name: str
) -> dict[str, Any]:
    runtime = spec.runtime
    gpus = {spec.gpu.resource: str(spec.gpu.counted)} if spec.gpu.counted else {}
    resources = {"cpu": runtime.resources.cpu, "memory": runtime.resources.memory, **gpus}
    claims = {"claims": [{"name": claim.name} for claim in spec.gpu.claims]} if spec.gpu.claims else {}
    return {
        "name": pod.TRITON_CONTAINER,
        "image": _triton_image(spec, policy),
        "imagePullPolicy": policy.image_pull_policy,
        "args": [
            "tritonserver",
            *triton_arguments(
                repository=pod.REPOSITORY_FOLDER,
                admin_key=f"$({pod.ADMIN_KEY_ENV})",
                exit_timeout_seconds=int(policy.drain_timeout.total_seconds()),
                log_level=runtime.log_level,
            ),
        ],
        # The key last: a variable may name only those that stand before it.
        "env": [*devices_env(spec.gpu), *(_plain_env(env) for env in runtime.env), _admin_key_env(owner)],
        "ports": [
            {"name": "http", "containerPort": pod.HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": pod.GRPC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": pod.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": {"requests": resources, "limits": resources, **claims},
        # An empty server is up in seconds; what takes minutes is the image's start on a cold disk and CUDA.
        "startupProbe": {
            "httpGet": {"path": "/v2/health/live", "port": pod.HTTP_PORT},
            "periodSeconds": 1,
            "failureThreshold": 600,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": pod.HTTP_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # Not /v2/health/ready: an empty server is "ready", and one that loads beside is not.
        "readinessProbe": {
            "httpGet": {"path": f"/v2/models/{model_name}/ready", "port": pod.HTTP_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # Triton drops what is open at SIGTERM: the agent answers once every proxy has learned that this pod leaves and
        # what they had sent is over.
        "lifecycle": {"preStop": {"httpGet": {"path": pod.LEAVE_PATH, "port": pod.AGENT_PORT}}},
        "securityContext": _RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _MODEL_VOLUME, "mountPath": pod.MODEL_FOLDER, "readOnly": True},
            {"name": _SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
            *claim_mounts(spec),
            *cache_mounts(policy, read_only=True),
        ],
    }


def _plain_env(env: EnvVar) -> dict[str, Any]:
    """Without a value that is empty: the API server leaves it out, which would look like an edit for ever."""
    return {"name": env.name, **({"value": env.value} if env.value else {})}


def _pod_name_env() -> dict[str, Any]:
    """With the version, although it is the default: the API server writes it, and all of the reference is one field."""
    return {"name": pod.POD_NAME_ENV, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def _admin_key_env(owner: ModelDeployment) -> dict[str, Any]:
    reference = {"name": names.admin_key_secret(owner.name, owner.uid), "key": names.ADMIN_KEY_SECRET_KEY}
    return {"name": pod.ADMIN_KEY_ENV, "valueFrom": {"secretKeyRef": reference}}


def _volumes(
    owner: ModelDeployment, spec: ModelDeploymentSpec, workload: str, policy: InstallationPolicy
) -> list[dict[str, Any]]:
    return [
        {"name": _ASSIGNMENT_VOLUME, "configMap": {"name": names.workload_object(owner.name, workload)}},
        _model_volume(owner, spec.model.storage, workload, policy),
        {"name": _SHARED_MEMORY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": spec.runtime.shared_memory}},
        {"name": _SCRATCH_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}},
        *claim_volumes(spec),
        *cache_volumes(policy),
        *credentials_volumes(spec),
    ]


def _model_volume(
    owner: ModelDeployment, storage: ModelStorage | None, workload: str, policy: InstallationPolicy
) -> dict[str, Any]:
    if storage is None:
        return {"name": _MODEL_VOLUME, "emptyDir": {"sizeLimit": policy.model_volume_limit}}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
        **({"storageClassName": storage.storage_class_name} if storage.storage_class_name else {}),
    }
    template = {"metadata": {"labels": names.workload_labels(owner.name, workload)}, "spec": claim}
    return {"name": _MODEL_VOLUME, "ephemeral": {"volumeClaimTemplate": template}}
