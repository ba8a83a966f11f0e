"""Turns the operator's settings into what the planner must know."""

from datetime import timedelta

from conch.core.policy import InstallationPolicy, ModelCache, NetworkAccess
from conch.settings import OperatorSettings


def installation_policy(settings: OperatorSettings, *, namespace: str) -> InstallationPolicy:
    """The planner's view of the settings; `namespace` is the operator's own."""
    pods, cache, network = settings.model_pods, settings.model_cache, settings.network_policy
    access = NetworkAccess(
        namespace=namespace, metrics_from=network.metrics_from, gateway_api_from=network.gateway_api_from
    )
    return InstallationPolicy(
        triton_image=settings.images.triton,
        agent_image=settings.images.agent,
        image_pull_policy=settings.images.pull_policy,
        source_policy=settings.source_policy,
        model_volume_limit=str(pods.volume_limit),
        model_volume_request=str(pods.volume_request),
        model_cache=ModelCache(claim=cache.claim_name, limit=str(cache.limit)) if cache.claim_name else None,
        network_access=access if network.enabled else None,
        agent_cpu=str(pods.agent_cpu),
        agent_memory=str(pods.agent_memory),
        endpoint_propagation=timedelta(seconds=pods.endpoint_propagation_seconds),
        drain_timeout=timedelta(seconds=pods.drain_timeout_seconds),
        surge_patience=timedelta(seconds=pods.surge_patience_seconds),
        stable_lost_patience=timedelta(seconds=pods.stable_lost_patience_seconds),
        gateway_ports=range(settings.gateway.ports_first, settings.gateway.ports_last + 1),
        gateway_tls=settings.gateway.tls,
    )
