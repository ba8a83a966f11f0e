"""Copies of requests: Envoy sends them to the sidecar, and neither waits for an answer nor passes one on.

Envoy throws away what a copy is answered, so the sidecar compares (gateway/shadow.py). Copies are requests of
Envoy's own: they count as no arrivals of the object, are not held, and are never tried again.
"""

from typing import Any, Final

from conch.gateway.envoy import naming

GRPC_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
HTTP_INFER: Final = "/infer"
COPIES_MOST: Final = 32
"""On their way to the sidecar at a time; those beyond are not made."""
COPY_BUFFER_BYTES: Final = 256 * 1024
"""What Envoy keeps of a copy that the sidecar does not read."""

HTTP_INFER_MATCH: Final[dict[str, Any]] = {
    "prefix": "/v2/models/",
    "headers": [
        {"name": ":path", "string_match": {"suffix": HTTP_INFER}},
        {"name": ":method", "string_match": {"exact": "POST"}},
    ],
}


def shadow_cluster(port: int) -> dict[str, Any]:
    """The sidecar, over HTTP/1.1 whatever the copied request speaks."""
    limits = {
        "max_connections": COPIES_MOST,
        # Those that wait for a connection, of which the sidecar takes as many as come.
        "max_pending_requests": COPIES_MOST // 4,
        "max_requests": COPIES_MOST,
        "max_retries": 0,
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": naming.SHADOW,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": COPY_BUFFER_BYTES,
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": naming.SHADOW,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def mirror_policies(route: str, percent: int) -> list[dict[str, Any]]:
    """For a route of the object that gateways know as `route`."""
    name = {
        "append": {
            "header": {"key": naming.ROUTE_HEADER, "value": route},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return [
        {
            "cluster": naming.SHADOW,
            "runtime_fraction": {"default_value": {"numerator": percent, "denominator": "HUNDRED"}},
            "trace_sampled": False,
            "request_headers_mutations": [name],
        }
    ]
