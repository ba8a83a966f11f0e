"""`spec` of a ModelDeployment: what the user asks for."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from conch.api.autoscaling import AUTOSCALING_RULES, Autoscaling
from conch.api.gateway import GATEWAY_RULES, Gateway
from conch.api.gpu import Gpu
from conch.api.model import FURTHER_MODELS_MOST, FurtherModel, Model, ModelSource, SecretReference
from conch.api.rollout import Rollout
from conch.api.runtime import Runtime
from conch.api.scheduling import Scheduling
from conch.api.types import ApiModel, DnsName

TWO_OF_A_NAME: Final = "two models of a pod have the same name; give each its own"


class ModelDeploymentSpec(ApiModel):
    """One model, served by a fleet of Triton servers."""

    model: Model
    models: Annotated[
        tuple[FurtherModel, ...],
        Field(
            max_length=FURTHER_MODELS_MOST,
            description="Further models in the same pods, each from a source of its own: steps of the ensemble that "
            "`model` is, or models that share its GPU. `model` is the entry point: the object is ready when it is, "
            "which is after all of these.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
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
            description="Secrets for Triton's image and the agent's. Naming one needs the right to it.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    suspend: Annotated[bool, Field(description="Remove the pods; keep the object, its history and its address.")] = (
        False
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [self.model.name, *(model.name for model in self.models)]
        if twice := sorted(name for name, count in Counter(names).items() if name and count > 1):
            raise ValueError(f"{TWO_OF_A_NAME}: {twice[0]!r}")
        return self

    @property
    def sources(self) -> Mapping[str, ModelSource]:
        """Of every model of a pod, by the field that names it."""
        further = {f"models[{index}].source": model.source for index, model in enumerate(self.models)}
        return {"model.source": self.model.source, **further}

    @property
    def declared_digest(self) -> str | None:
        """Of all files of a pod, where that is given; of several sources together nobody gives it."""
        return None if self.models else self.model.source.digest

    @property
    def desired_replicas(self) -> int:
        """How many pods are wanted now."""
        if self.suspend:
            return 0
        return 1 if self.replicas is None else self.replicas
