"""`spec.gpu`: the accelerators of a replica."""

from typing import Annotated, Final

from pydantic import Field

from conch.api.model import GPUS_MOST
from conch.api.types import ApiModel, DnsLabel, DnsName, LabelValue

COUNT_DEFAULT: Final = 1
CLAIMS_MOST: Final = 4
"""The chart's policy conch-references asks for each, and the API server bounds what it may ask."""


class DeviceClaim(ApiModel):
    """Devices that dynamic resource allocation gives to each replica."""

    name: Annotated[DnsLabel, Field(description="Of the claim within the pod.")]
    resource_claim_template_name: Annotated[
        DnsName,
        Field(
            description="ResourceClaimTemplate (resource.k8s.io) of the object's namespace; each pod gets a claim of "
            "its own. Naming one needs the right to use it."
        ),
    ]


class Gpu(ApiModel):
    """The accelerators of one replica."""

    count: Annotated[
        int | None,
        Field(
            ge=0,
            le=GPUS_MOST,
            description="GPUs of one replica, counted as `resource`; 0 without claims runs on the CPU. 1 when neither "
            "this nor claims are given, 0 with claims; given beside claims, the pod gets both.",
        ),
    ] = None
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
    claims: Annotated[
        tuple[DeviceClaim, ...],
        Field(
            max_length=CLAIMS_MOST,
            description="GPUs by dynamic resource allocation (Kubernetes 1.34 or newer, with a driver on the nodes).",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()

    @property
    def counted(self) -> int:
        """How many of `resource` one replica asks for."""
        if self.count is None:
            return 0 if self.claims else COUNT_DEFAULT
        return self.count

    @property
    def wanted(self) -> bool:
        """Whether replicas run on GPUs at all, however they get them."""
        return self.counted > 0 or bool(self.claims)
