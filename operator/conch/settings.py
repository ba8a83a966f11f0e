"""Settings of the operator role: read from one YAML file (the chart's ConfigMap), every value with its meaning."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from conch.api import gateway_pod
from conch.api.network_peer import NetworkPeer
from conch.api.source_policy import SourcePolicy
from conch.api.types import ApiModel, DnsName, Quantity

Text = Annotated[str, Field(min_length=1, max_length=512)]


class SettingsError(ValueError):
    """The settings cannot be used; the message names the file and the field."""


class ImageSettings(ApiModel):
    """Images of model pods."""

    triton: Text
    agent: Text
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class ModelPodSettings(ApiModel):
    """Sizes and times of model pods that users do not choose."""

    volume_limit: Quantity = "20Gi"
    volume_request: Quantity = "1Gi"
    agent_cpu: Quantity = "100m"
    agent_memory: Quantity = "256Mi"
    endpoint_propagation_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    drain_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    surge_patience_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    stable_lost_patience_seconds: Annotated[int, Field(ge=1, le=86_400)] = 120
    cold_start_prior_seconds: Annotated[int, Field(ge=1, le=3600)] = 60


class ModelCacheSettings(ApiModel):
    """A cache of models that the pods of a namespace share; without a claim's name there is none."""

    claim_name: Annotated[DnsName | Literal[""], Field(description="Of a claim in every namespace with models.")] = ""
    limit: Quantity = "100Gi"


ModelPort = Annotated[int, Field(ge=1024, le=32767, description="Below what kernels give to clients.")]


class GatewaySettings(ApiModel):
    """What the operator knows of the gateways."""

    ports_first: ModelPort = gateway_pod.PORTS_FIRST
    ports_last: Annotated[ModelPort, Field(description="Models get a port each; both ends belong to the range.")] = (
        gateway_pod.PORTS_LAST
    )
    tls: Annotated[bool, Field(description="Whether models' ports on the gateways speak TLS.")] = False

    @model_validator(mode="after")
    def _leaves_the_gateways_their_own(self) -> Self:
        if self.ports_first > self.ports_last:
            raise ValueError(f"portsFirst {self.ports_first} is above portsLast {self.ports_last}")
        for port in (gateway_pod.REPORT_PORT, gateway_pod.ADMIN_PORT, gateway_pod.HOLD_PORT):
            if self.ports_first <= port <= self.ports_last:
                raise ValueError(f"ports {self.ports_first}-{self.ports_last} hold {port}, which gateways use")
        return self


class NetworkPolicySettings(ApiModel):
    """The NetworkPolicies of model pods; those of operator and gateways are the chart's."""

    enabled: bool = True
    metrics_from: Annotated[
        tuple[NetworkPeer, ...], Field(max_length=32, description="Who may read Triton's metrics.")
    ] = ()
    gateway_api_from: Annotated[
        tuple[NetworkPeer, ...],
        Field(
            max_length=32,
            description="The pods of the platform's Gateways: who may call models of gateway.mode GatewayAPI. "
            "None: everyone.",
        ),
    ] = ()


class OperatorSettings(ApiModel):
    """Everything the operator process is told."""

    images: ImageSettings
    model_pods: ModelPodSettings = ModelPodSettings()
    model_cache: ModelCacheSettings = ModelCacheSettings()
    source_policy: SourcePolicy = SourcePolicy()
    network_policy: NetworkPolicySettings = NetworkPolicySettings()
    gateway: GatewaySettings = GatewaySettings()
    workers: Annotated[int, Field(ge=1, le=64, description="Objects reconciled at the same time.")] = 8
    resync_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    health_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the settings file; raises SettingsError."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()) or {})
        except OSError as error:
            raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise SettingsError(f"settings file {path}: {error}") from error

    @property
    def resync_interval(self) -> timedelta:
        """How often every object is looked at without a cause."""
        return timedelta(minutes=self.resync_minutes)
