"""What the chart sets reaches the planner."""

from datetime import timedelta
from typing import Any, Final

from conch.app.policy import installation_policy
from conch.core.policy import InstallationPolicy, ModelCache, NetworkAccess
from conch.settings import OperatorSettings

IMAGES: Final = {"triton": "t:1", "agent": "c:1"}


def _policy(**settings: Any) -> InstallationPolicy:
    return installation_policy(OperatorSettings.model_validate({"images": IMAGES, **settings}), namespace="conch")


def test_the_times_of_model_pods_are_those_of_the_settings() -> None:
    times = {
        "endpointPropagationSeconds": 7,
        "drainTimeoutSeconds": 70,
        "surgePatienceSeconds": 80,
        "stableLostPatienceSeconds": 130,
    }
    policy = _policy(modelPods=times)
    told = (policy.endpoint_propagation, policy.drain_timeout, policy.surge_patience, policy.stable_lost_patience)
    assert told == tuple(timedelta(seconds=seconds) for seconds in times.values())


def test_the_cache_is_that_of_the_settings_and_without_a_name_there_is_none() -> None:
    assert _policy().model_cache is None
    policy = _policy(modelCache={"claimName": "models", "limit": "2Ti"})
    assert policy.model_cache == ModelCache(claim="models", limit="2Ti")


def test_network_policies_are_about_the_operators_namespace_and_can_be_switched_off() -> None:
    assert _policy().network_access == NetworkAccess(namespace="conch")
    assert _policy(networkPolicy={"enabled": False}).network_access is None
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    access = _policy(networkPolicy={"metricsFrom": [peer]}).network_access
    assert access is not None
    assert [each.to_wire() for each in access.metrics_from] == [peer]
    access = _policy(networkPolicy={"gatewayApiFrom": [peer]}).network_access
    assert access is not None
    assert [each.to_wire() for each in access.gateway_api_from] == [peer]


def test_gateways_speak_tls_where_the_settings_say_so() -> None:
    for tls in (False, True):
        assert _policy(gateway={"tls": tls}).gateway_tls is tls
