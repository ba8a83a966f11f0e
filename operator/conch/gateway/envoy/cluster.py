"""The two clusters of a workload: its servers over HTTP/1.1, and the same over HTTP/2 for gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.pod import GRPC_PORT, HTTP_PORT
from conch.gateway.envoy.bootstrap import BUFFER_BYTES, TYPE_PREFIX, UNLIMITED
from conch.gateway.envoy.naming import ClusterId, Protocol
from conch.gateway.routed import Endpoint

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_SPEAKS_HTTP2: Final = {
    _HTTP_OPTIONS: {
        "@type": TYPE_PREFIX + _HTTP_OPTIONS,
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}

_LEAST_REQUEST: Final = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
# Of a few servers that execute one request at a time, the idle one must be found; random picks sometimes miss it.
_LEAST_OF_ALL: Final = {
    "policies": [
        {
            "typed_extension_config": {
                "name": "least_request",
                "typed_config": {"@type": TYPE_PREFIX + _LEAST_REQUEST, "selection_method": "FULL_SCAN"},
            }
        }
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Where servers listen; the same for all."""

    http: int = HTTP_PORT
    grpc: int = GRPC_PORT

    def of(self, protocol: Protocol) -> int:
        """The port of a protocol."""
        return self.http if protocol is Protocol.HTTP else self.grpc


def requests_most(max_in_flight: int | None, gateways: int) -> int:
    """What one of the gateways lets through at a time; they share the object's limit evenly.

    >>> requests_most(10, 3)
    4
    >>> requests_most(1, 2)
    1
    """
    return UNLIMITED if max_in_flight is None else -(-max_in_flight // max(gateways, 1))


def cluster(
    id_: ClusterId, servers: Sequence[Endpoint], *, ports: ServerPorts, max_requests: int = UNLIMITED
) -> dict[str, Any]:
    """A cluster with its servers inside: a file for the servers of each would cost Envoy an inotify instance each."""
    name = str(id_)
    is_grpc = id_.protocol is Protocol.GRPC
    endpoints = [_endpoint(server, ports.of(id_.protocol), ports.http) for server in servers]
    speaks = {"typed_extension_protocol_options": _SPEAKS_HTTP2} if is_grpc else {}
    return speaks | {
        "@type": TYPE_PREFIX + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "load_balancing_policy": _LEAST_OF_ALL,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        # A server that left the list is gone at once, even if it still answers.
        "ignore_health_on_host_removal": True,
        "health_checks": [_health_check()],
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": {"thresholds": [_limits(max_requests)]},
        "upstream_connection_options": {
            # No pings over HTTP/2: gRPC servers hang up on whoever sends many of them.
            "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 10, "keepalive_interval": 5},
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        },
    }


def _endpoint(server: Endpoint, port: int, health_port: int) -> dict[str, Any]:
    return {
        "endpoint": {
            "address": {"socket_address": {"address": server.address, "port_value": port}},
            "health_check_config": {"port_value": health_port},
        }
    }


def _health_check() -> dict[str, Any]:
    """Over HTTP for both: Triton has one life, and gRPC has no path for it.

    Only for servers that hang or vanish with their machine; whether a model is ready is Kubernetes' word.
    """
    return {
        "timeout": "2s",
        "interval": "1s",
        # Envoy's default of 60 s would leave dead servers in idle clusters.
        "no_traffic_interval": "5s",
        "interval_jitter_percent": 10,
        # So at most six seconds until a server that hangs gets nothing new, where requests come.
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/v2/health/live"},
    }


def _outlier_detection() -> dict[str, Any]:
    """Off with a server that no longer takes connections, or answers nothing but errors, for a short while.

    Not on a few 503s: a full queue says so with that status, and fewer servers would make it no shorter. A health
    check does not bring it back, because a server whose model errs is alive.
    """
    return {
        "interval": "1s",
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "consecutive_5xx": 10,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "base_ejection_time": "5s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 50,
        "successful_active_health_check_uneject_host": False,
    }


def _limits(max_requests: int) -> dict[str, Any]:
    return {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": max_requests,
        # The default of 3 retries at a time fails requests when one of three servers vanishes.
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 10},
    }
