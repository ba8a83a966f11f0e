"""`spec.runtime`: the Triton server that runs the model."""

import re
from typing import Annotated, Final

from pydantic import Field, field_validator

from conch.api.canonical import quantity
from conch.api.cel import Rule, rules
from conch.api.instances import InstanceCount
from conch.api.types import ApiModel, Quantity

RESERVED_ENV: Final = (
    r"^((LD|NVIDIA|TRITON|AWS|CONCH|BASH|GCONV|GLIBC|OPENSSL|NVTX|OV|OCL|OPENCL|NCCL|UCX|GDK"
    r"|VLLM|TLLM|TRTLLM|RAY|HF|TORCHINDUCTOR)_.*"
    r"|(CUDA_INJECTION|INTEL_|OMP_TOOL|PYTHON).*|.*(_VISIBLE_DEVICES|_PRELOAD|_PLUGIN|_PLUGINS|_LIBRARY|_LIBRARIES)"
    r"|PATH|ENV|IFS|PS4|SHELLOPTS)$"
)
"""Variables that change what code runs in the pod, what it may reach or how Conch talks to it.

BASH_ENV and its like too: the entrypoint of NVIDIA's image is a shell script, and bash runs what BASH_ENV names. CUDA,
NVTX, oneAPI's and OpenVINO's loaders take a library's path from the environment; a device plugin's runtime the devices;
vLLM a file of settings (VLLM_LOGGING_CONFIG_PATH) in which any importable function can be named to be called.
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

    cpu: Annotated[Quantity, Field(description="Without a GPU, models get as many threads.")] = "1"
    memory: Annotated[Quantity, Field(description="Includes sharedMemory.")] = "4Gi"

    @field_validator("cpu", "memory")
    @classmethod
    def _limits_something(cls, amount: str) -> str:
        if quantity(amount) <= 0:
            raise ValueError("0 would be no limit at all; give more than 0")
        return amount


class LogLevel(ApiModel):
    """Triton's log switches."""

    verbose: Annotated[int, Field(ge=0, le=3, description="Triton's --log-verbose.")] = 0
    info: Annotated[bool, Field(description="Whether informational lines are logged.")] = True


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
            description="Variables of the Triton container; names that change what runs are refused.",
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
