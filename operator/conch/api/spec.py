"""`spec` of a ModelDeployment: what the user asks for."""

import re
from typing import Annotated, Final

from pydantic import Field, field_validator

from conch.api.autoscaling import AUTOSCALING_RULES, Autoscaling
from conch.api.canonical import quantity
from conch.api.cel import Rule, rules
from conch.api.gateway import GATEWAY_RULES, Gateway
from conch.api.instances import InstanceCount
from conch.api.model import Model, SecretReference
from conch.api.rollout import Rollout
from conch.api.types import ApiModel, DnsName, LabelValue, QualifiedName, Quantity

RESERVED_ENV: Final = (
    r"^((LD|NVIDIA|TRITON|AWS|CONCH|BASH|GCONV|GLIBC|OPENSSL|NVTX|OV|OCL|OPENCL|NCCL|UCX|GDK)_.*"
    r"|(CUDA_INJECTION|INTEL_|OMP_TOOL|PYTHON).*|.*(_VISIBLE_DEVICES|_PRELOAD|_PLUGIN|_PLUGINS|_LIBRARY|_LIBRARIES)"
    r"|PATH|ENV|IFS|PS4|SHELLOPTS)$"
)
"""Variables that change what code runs in the pod, what it may reach or how Conch talks to it.

BASH_ENV and its like too: the entrypoint of NVIDIA's image is a shell script, and bash runs what BASH_ENV names. CUDA,
NVTX, oneAPI's and OpenVINO's loaders take a library's path from the environment; a device plugin's runtime the devices.
"""


class EnvVar(ApiModel):
    """An environment variable of the Triton container."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=1024)] = ""

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if re.match(RESERVED_ENV, name):
            raise ValueError(f"{name} changes what runs in the pod and is reserved; remove it")
        return name


class Resources(ApiModel):
    """CPU and memory of the Triton container, requested and limited at the same figure: no neighbour can take them."""

    cpu: Quantity = "1"
    memory: Annotated[Quantity, Field(description="Includes sharedMemory.")] = "4Gi"

    @field_validator("cpu", "memory")
    @classmethod
    def _limits_something(cls, amount: str) -> str:
        if quantity(amount) <= 0:
            raise ValueError("0 would be no limit at all; give more than 0")
        return amount


class LogLevel(ApiModel):
    """Triton's log switches."""

    verbose: Annotated[int, Field(ge=0, le=3)] = 0
    info: bool = True


class Runtime(ApiModel):
    """The Triton server that runs the model."""

    image: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
            description="Triton image by tag or digest. Default: the installation's.",
        ),
    ] = None
    resources: Annotated[
        Resources,
        Field(
            json_schema_extra=rules(
                Rule(
                    # The schema's own default is looked at before the fields' defaults have filled it in.
                    rule="(!has(self.cpu) || quantity(string(self.cpu)).isGreaterThan(quantity('0')))"
                    " && (!has(self.memory) || quantity(string(self.memory)).isGreaterThan(quantity('0')))",
                    message="cpu and memory must be more than 0: to the kubelet, 0 is no limit at all",
                )
            )
        ),
    ] = Resources()
    shared_memory: Annotated[Quantity, Field(description="Size of /dev/shm.")] = "1Gi"
    env: Annotated[
        tuple[EnvVar, ...],
        Field(
            max_length=64,
            json_schema_extra={
                **rules(
                    Rule(
                        rule=f"self.all(e, !e.name.matches('{RESERVED_ENV}'))",
                        message="names that change what runs in the pod (LD_*, PYTHON*, NVIDIA_*, TRITON_*, AWS_*, "
                        "CONCH_*, *_VISIBLE_DEVICES, PATH, ...) are reserved; remove them from runtime.env",
                    )
                ),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    log_level: LogLevel = LogLevel()
    instances: Annotated[
        InstanceCount | None,
        Field(
            description="How many batches each server executes at the same time: the count of the model's instance "
            "groups. As the model says if not given. Auto: another one is tried where the GPU's memory has room, and "
            "kept if it does more. Changed while the model serves, without loading it again.",
        ),
    ] = None


class Gpu(ApiModel):
    """The accelerators of one replica."""

    count: Annotated[int, Field(ge=0, le=16, description="GPUs of one replica; 0 runs on the CPU.")] = 1
    resource: Annotated[
        str,
        Field(
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            description="Extended resource of the GPU or MIG profile, such as nvidia.com/mig-1g.10gb.",
        ),
    ] = "nvidia.com/gpu"
    products: Annotated[
        tuple[LabelValue, ...],
        Field(max_length=16, description="GPU models to run on: values of the node label nvidia.com/gpu.product."),
    ] = ()


class Toleration(ApiModel):
    """A taint that the pods may live with (as in a pod's spec)."""

    key: Annotated[str | None, Field(max_length=317)] = None
    operator: Annotated[str, Field(max_length=8, pattern="^(Exists|Equal)$")] = "Equal"
    value: LabelValue | None = None
    effect: Annotated[str | None, Field(max_length=16, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] = None
    toleration_seconds: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None


class Scheduling(ApiModel):
    """Where the pods may run."""

    node_selector: Annotated[dict[QualifiedName, LabelValue], Field(max_length=32, default_factory=dict)]
    tolerations: Annotated[
        tuple[Toleration, ...],
        Field(
            max_length=32,
            json_schema_extra=rules(
                Rule(
                    rule="self.all(t, t.operator == 'Exists' ? !has(t.value) || t.value == ''"
                    " : has(t.key) && t.key != '')",
                    message="a toleration with operator Exists has no value, and one with Equal needs a key",
                ),
                Rule(
                    rule="self.all(t, !has(t.tolerationSeconds) || (has(t.effect) && t.effect == 'NoExecute'))",
                    message="tolerationSeconds needs the effect NoExecute",
                ),
            ),
        ),
    ] = ()
    priority_class_name: DnsName | None = None
    runtime_class_name: DnsName | None = None


class ModelDeploymentSpec(ApiModel):
    """One model, served by a fleet of Triton servers."""

    model: Model
    runtime: Runtime = Runtime()
    gpu: Gpu = Gpu()
    scheduling: Scheduling = Scheduling()
    replicas: Annotated[
        int | None,
        Field(ge=0, le=1000, description="How many servers; 1 when neither this nor autoscaling is given."),
    ] = None
    autoscaling: Annotated[Autoscaling | None, Field(json_schema_extra=AUTOSCALING_RULES)] = None
    rollout: Rollout = Rollout()
    gateway: Annotated[Gateway, Field(json_schema_extra=GATEWAY_RULES)] = Gateway()
    service_account_name: Annotated[
        DnsName | None,
        Field(description="Identity of the pods; no token is mounted. Naming one needs the right to use it."),
    ] = None
    image_pull_secrets: Annotated[
        tuple[SecretReference, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    suspend: Annotated[bool, Field(description="Remove the pods; keep the object, its history and its address.")] = (
        False
    )

    @property
    def desired_replicas(self) -> int:
        """How many pods are wanted now."""
        if self.suspend:
            return 0
        return 1 if self.replicas is None else self.replicas
