"""What the platform team decides for the whole installation and the planner must know."""

from dataclasses import dataclass, field
from datetime import timedelta

from conch.api import gateway_pod
from conch.api.network_peer import NetworkPeer
from conch.api.source_policy import SourcePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCache:
    """The model cache of an installation: every model pod mounts the claim of this name in its own namespace."""

    claim: str
    limit: str
    """What models may take of it, as a quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAccess:
    """Who may reach model pods, for the NetworkPolicies of an installation."""

    namespace: str
    """The installation's own, in which operator and gateways run."""
    metrics_from: tuple[NetworkPeer, ...] = ()
    """Who may read Triton's metrics."""
    gateway_api_from: tuple[NetworkPeer, ...] = ()
    """Who may call models of gateway.mode GatewayAPI; nobody named: everyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationPolicy:
    """Defaults and limits of one installation; set by the chart, read by `conch.settings`."""

    triton_image: str
    agent_image: str
    image_pull_policy: str = "IfNotPresent"
    source_policy: SourcePolicy = field(default_factory=SourcePolicy)
    model_volume_limit: str = "20Gi"
    model_volume_request: str = "1Gi"
    model_cache: ModelCache | None = None
    network_access: NetworkAccess | None = None
    """None: no NetworkPolicies are kept."""
    agent_cpu: str = "100m"
    agent_memory: str = "256Mi"
    endpoint_propagation: timedelta = timedelta(seconds=5)
    """How long a pod that leaves goes on answering, so that no proxy sends it anything any more."""
    drain_timeout: timedelta = timedelta(seconds=60)
    """How long requests in flight may take after that."""
    acknowledgement_timeout: timedelta = timedelta(seconds=30)
    """How long a gateway that does not answer may hold up what has to be known at every gateway."""
    gateway_ports: range = range(gateway_pod.PORTS_FIRST, gateway_pod.PORTS_LAST + 1)
    """From which every object gets its own, on every gateway."""
    gateway_tls: bool = False
    """Whether these ports speak TLS."""
    surge_patience: timedelta = timedelta(seconds=60)
    """How long an automatic rollout waits for room for pods beside the old ones."""
    stable_lost_patience: timedelta = timedelta(minutes=2)
    """How long a stable revision may be without a ready pod until a candidate that runs takes over."""
    recheck_after: timedelta = timedelta(seconds=5)
    """When to look again at what cannot be watched: a stranger's object, a refusal of the API server."""
