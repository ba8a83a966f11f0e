"""The virtual host of one object: which workload gets a request, for how long, and how often it is tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.gateway import Gateway, Retries
from conch.gateway.envoy import naming
from conch.gateway.envoy.bootstrap import TYPE_PREFIX
from conch.gateway.envoy.listener import IDLE_SECONDS
from conch.gateway.envoy.naming import ClusterId, Protocol
from conch.gateway.envoy.shadow import GRPC_INFER, HTTP_INFER_MATCH, mirror_policies
from conch.gateway.routed import RoutedShare

GRPC_STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
HTTP_STREAM: Final = "/generate_stream"
REPLAYED_BYTES_MOST: Final = 4 * 1024 * 1024
"""A longer request is not tried again, because Envoy would have to keep it until then."""

_SAFE_RETRIES: Final = (
    *("connect-failure", "refused-stream", "reset-before-request"),
    # Triton answers 503 and UNAVAILABLE before it executes anything: its queue is full, or it is about to end.
    *("unavailable", "retriable-status-codes"),
)
_NO_TIMEOUT: Final = "0s"
_HTTP_STREAM_MATCH: Final[dict[str, Any]] = {
    # Not a regular expression: Envoy compiles each anew with every change of any object.
    "prefix": "/v2/models/",
    "headers": [{"name": ":path", "string_match": {"contains": HTTP_STREAM}}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Which workloads an object's requests go to."""

    weights: tuple[tuple[str, int], ...]
    """Workload and weight, all above 0; the sum may be anything. None if requests are held."""
    held: bool
    """Whether none of them has a server, so that requests ask the sidecar first."""
    waits_for: str = ""
    """What keeps this from being what `status.traffic` says."""


def sending(shares: Sequence[tuple[RoutedShare, int]]) -> Sending:
    """From the shares and the number of servers of each.

    A workload without servers never gets a weight beside one that has some: Envoy would answer 503, and no retry helps.
    A version that only finishes (weight 0) goes on as long as it is the only one with servers. One that gets copies has
    not proven itself, so it never stands in for others.
    """
    weighted = [(share, servers) for share, servers in shares if share.weight > 0]
    ready = [share for share, servers in weighted if servers]
    missing = [share.workload for share, servers in weighted if not servers]
    waits_for = f"no server of workload {', '.join(missing)} is ready" if missing else ""
    if ready:
        return Sending(weights=tuple((s.workload, s.weight) for s in ready), held=False, waits_for=waits_for)
    finishing = [share for share, servers in shares if servers and share.shadow is None]
    if finishing:
        waits_for = waits_for or "no workload is to get requests, and one still has servers"
        return Sending(weights=tuple((s.workload, 1) for s in finishing), held=False, waits_for=waits_for)
    return Sending(weights=(), held=True)


def virtual_host(
    *, route: str, namespace: str, gateway: Gateway, sending: Sending, copied_percent: int = 0
) -> dict[str, Any]:
    """The virtual host of the object that gateways know as `route`; of its inferences, so many percent are copied."""
    mirrors = mirror_policies(route, copied_percent) if copied_percent and not sending.held else []
    host: dict[str, Any] = {
        "name": route,
        "domains": [route],
        "request_headers_to_remove": [naming.ROUTE_HEADER, naming.CLUSTER_HEADER, naming.AUTHORIZED_HEADER],
        "request_body_buffer_limit": REPLAYED_BYTES_MOST,
        "routes": [
            each
            for protocol in (Protocol.GRPC, Protocol.HTTP)
            for each in _routes(protocol, gateway, _target(namespace, sending, protocol), mirrors, held=sending.held)
        ],
    }
    host |= _retry_policy(gateway.effective_retries)
    if sending.held:
        return host
    off = {"@type": TYPE_PREFIX + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    return host | {"typed_per_filter_config": {naming.HOLD: off}}


def _target(namespace: str, sending: Sending, protocol: Protocol) -> dict[str, Any]:
    """By weight; a held request goes where the sidecar says, which may be a workload that is not yet known now."""
    if sending.held:
        return {"cluster_header": naming.CLUSTER_HEADER}

    def name(workload: str) -> str:
        return str(ClusterId(namespace=namespace, workload=workload, protocol=protocol))

    return {
        "weighted_clusters": {
            "clusters": [{"name": name(workload), "weight": weight} for workload, weight in sending.weights]
        }
    }


def _routes(
    protocol: Protocol, gateway: Gateway, target: dict[str, Any], mirrors: list[dict[str, Any]], *, held: bool
) -> list[dict[str, Any]]:
    """Streams first, then what is copied, then everything else of the protocol."""
    is_grpc = protocol is Protocol.GRPC
    only: dict[str, Any] = {"grpc": {}} if is_grpc else {}
    stream = {"path": GRPC_STREAM} if is_grpc else _HTTP_STREAM_MATCH
    infer = {"path": GRPC_INFER} if is_grpc else HTTP_INFER_MATCH
    unary = target | _times(gateway, is_grpc=is_grpc, held=held)
    copied = [{"match": infer | only, "route": unary | {"request_mirror_policies": mirrors}}] if mirrors else []
    return [
        {"match": stream | only, "route": target | _stream_times(is_grpc=is_grpc)},
        *copied,
        {"match": {"prefix": "/"} | only, "route": unary},
    ]


def _times(gateway: Gateway, *, is_grpc: bool, held: bool) -> dict[str, Any]:
    """Limits of everything but streams.

    Over HTTP the time begins when the request is complete, after a hold. Where Envoy is to heed gRPC clients' deadlines
    it knows only one time for the whole request, so there a hold is added to it.
    """
    timeout_seconds = gateway.effective_timeout_seconds
    times = {"timeout": f"{timeout_seconds}s", "idle_timeout": f"{IDLE_SECONDS + timeout_seconds}s"}
    if not is_grpc:
        return times
    most = timeout_seconds + (gateway.effective_hold.seconds if held else 0)
    return times | {"max_stream_duration": {"max_stream_duration": f"{most}s", "grpc_timeout_header_max": f"{most}s"}}


def _stream_times(*, is_grpc: bool) -> dict[str, Any]:
    """None, but for the deadline that a gRPC client gives itself."""
    times = {"timeout": _NO_TIMEOUT, "idle_timeout": _NO_TIMEOUT}
    if not is_grpc:
        return times
    return times | {"max_stream_duration": {"max_stream_duration": _NO_TIMEOUT, "grpc_timeout_header_max": _NO_TIMEOUT}}


def _retry_policy(retries: Retries) -> dict[str, Any]:
    if retries.attempts == 0:
        return {}
    retry_on = (*_SAFE_RETRIES, "reset") if retries.replay else _SAFE_RETRIES
    return {
        "retry_policy": {
            "retry_on": ",".join(retry_on),
            "retriable_status_codes": [503],
            "num_retries": retries.attempts,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": TYPE_PREFIX + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 20,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
        }
    }
