"""What Envoy is started with: everything that never changes while it runs."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conch.api import gateway_pod
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS
from conch.gateway.envoy import admission, failure_counters, naming, tls
from conch.gateway.envoy.external_authorization import ExternalAuthorization, authorization_cluster
from conch.gateway.envoy.shadow import shadow_cluster

TYPE_PREFIX: Final = "type.googleapis.com/"

LISTENERS_FILE: Final = "listeners/lds.pb"
CLUSTERS_FILE: Final = "clusters/cds.pb"
ROUTES_FILE: Final = "routes/rds.pb"
"""A folder for each: whatever moves in a folder that Envoy watches makes it read its file again."""

DRAIN_SECONDS: Final = 60
"""How long a listener that left goes on for the clients that are connected to it."""
CONNECTIONS_MOST: Final = 50_000
"""Of clients, in all; a bound is wanted by Envoy, and this one is below what a container may have open."""
CONNECTIONS_MOST_OF_ONE: Final = CONNECTIONS_MOST // 5
"""Of one object's clients: whoever opens connections without end leaves the others theirs."""
BUFFER_BYTES: Final = 1024 * 1024
"""What Envoy keeps of a connection's or stream's bytes before it stops to read; a held body has as much in Envoy."""
HEAP_SHARE: Final = 0.9
"""Of the container's memory: the heap may have it, the rest is for threads, code and what the allocator rounds up."""
SHRINK_AT: Final = 0.85
RESET_FROM: Final = 0.90
"""Parts of the heap; the streams with most bytes go first, and ever smaller ones as it fills up."""
REFUSE_AT: Final = 0.95
UNLIMITED: Final = 1_000_000_000
"""Where Envoy's default limit would refuse what Conch limits itself."""

_MONITORS: Final = TYPE_PREFIX + "envoy.extensions.resource_monitors."
_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_CLUSTER_STATS: Final = (
    *("upstream_rq_total", "upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_time"),
    *("upstream_rq_pending_failure_eject", "upstream_rq_pending_overflow", "upstream_rq_retry"),
    # Not read here: Envoy tells by it whether a cluster has traffic, and checks its servers' health every second if so.
    "upstream_cx_total",
    # For people who look into a gateway.
    *("membership_total", "membership_healthy", "upstream_cx_connect_fail"),
)
_LISTENER_STATS: Final = (*admission.STATS, "downstream_rq_active")
_OWN_STATS: Final = (
    *("cluster_manager.warming_clusters", "cluster_manager.active_clusters"),
    *("listener_manager.total_listeners_warming", "listener_manager.total_listeners_active"),
    *("listener_manager.total_listeners_draining", "listener_manager.listener_create_failure"),
    *(tls.SECRETS_TAKEN, tls.DAYS_LEFT),
)
_UPDATE_STATS: Final = ("version_text", "update_rejected", "update_attempt", "update_success", "update_failure")
_SUBSCRIPTIONS: Final = ("cluster_manager.cds", "listener_manager.lds")
_ROUTES_SUBSCRIPTION: Final = f".rds.{naming.ROUTE_CONFIGURATION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapOptions:
    """Where things are on this machine; the defaults are those of a gateway pod."""

    gateway: str
    """Name of the pod."""
    dynamic_folder: Path = Path(gateway_pod.CONFIG_FOLDER, gateway_pod.DYNAMIC_FOLDER)
    admin_port: int = gateway_pod.ADMIN_PORT
    hold_port: int = gateway_pod.HOLD_PORT
    memory_bytes: int | None = None
    """What the kernel lets Envoy have; None without a limit."""
    authorization: ExternalAuthorization | None = None
    """Who is asked about every request; None for nobody."""


def arguments(bootstrap_file: Path) -> tuple[str, ...]:
    """Envoy's command line.

    Without hot restart, because nothing here would be handed over. A listener that leaves says so with every answer at
    once, and not to ever more clients as time goes by.
    """
    return (
        *("-c", str(bootstrap_file), "--disable-hot-restart", "--log-level", "warning"),
        *("--drain-time-s", str(DRAIN_SECONDS), "--drain-strategy", "immediate"),
    )


def config_source(folder: Path, file: str) -> dict[str, Any]:
    """A file of resources that Envoy follows; without `watched_directory` it would never see an update."""
    path = folder / file
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }


def loopback(port: int) -> dict[str, Any]:
    """An address that nobody outside of the pod reaches."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def render_bootstrap(options: BootstrapOptions) -> str:
    """The bootstrap file."""
    clusters = [_hold_cluster(options.hold_port), shadow_cluster(options.hold_port)]
    if options.authorization:
        clusters.append(authorization_cluster(options.authorization))
    bootstrap = {
        "node": {"id": options.gateway, "cluster": "conch"},
        # The sidecar must get through when clients have taken every connection.
        "admin": {"address": loopback(options.admin_port), "ignore_global_conn_limit": True},
        # Histograms move only with a flush; the operator asks every second.
        "stats_flush_interval": "1s",
        "stats_config": _stats_config(),
        "static_resources": {"clusters": clusters},
        "dynamic_resources": {
            "lds_config": config_source(options.dynamic_folder, LISTENERS_FILE),
            "cds_config": config_source(options.dynamic_folder, CLUSTERS_FILE),
        },
        "overload_manager": _overload_manager(options.memory_bytes),
    }
    return json.dumps(bootstrap, indent=1) + "\n"


def _overload_manager(memory_bytes: int | None) -> dict[str, Any]:
    """Some requests are refused or cut off before the kernel ends Envoy, and every object's requests with it."""
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_MONITORS}downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": CONNECTIONS_MOST,
        },
    }
    if memory_bytes is None:
        return {"resource_monitors": [connections]}
    heap = {
        "name": _HEAP,
        "typed_config": {
            "@type": f"{_MONITORS}fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": int(memory_bytes * HEAP_SHARE),
        },
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [connections, heap],
        # Streams are told apart by eight sizes, from 2^14 bytes to 2^21, which is more than BUFFER_BYTES and a window.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 14},
        "actions": [
            _action("shrink_heap", {"threshold": {"value": SHRINK_AT}}),
            _action(
                "reset_high_memory_stream",
                {"scaled": {"scaling_threshold": RESET_FROM, "saturation_threshold": 1.0}},
            ),
            _action("stop_accepting_requests", {"threshold": {"value": REFUSE_AT}}),
        ],
    }


def _action(name: str, trigger: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP} | trigger]}


def _stats_config() -> dict[str, Any]:
    """Only what the sidecar reads: with everything, 2,000 clusters make a page of 45 MB."""
    exact = (*_OWN_STATS, *(f"{each}.{stat}" for each in _SUBSCRIPTIONS for stat in _UPDATE_STATS))
    suffixes = (
        *(f".{stat}" for stat in _CLUSTER_STATS),
        *(f"{_ROUTES_SUBSCRIPTION}.{stat}" for stat in _UPDATE_STATS),
    )
    patterns = [
        *({"exact": stat} for stat in exact),
        *({"suffix": suffix} for suffix in suffixes),
        # Anchored, for each listener repeats them under its address.
        {"safe_regex": {"regex": rf"http\.[^.]+\.[^.]+\.({'|'.join(map(re.escape, _LISTENER_STATS))})"}},
        {"prefix": f"{failure_counters.STAT_PREFIX}."},
    ]
    # Envoy keeps numbers of two digits, and counts one as big as a bound below it: with 100 told, up to 109 ms are.
    bounds = [round(bound - 0.1, 1) for bound in LATENCY_BOUNDS_MILLISECONDS]
    buckets = {"match": {"suffix": ".upstream_rq_time"}, "buckets": bounds}
    return {
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        "histogram_bucket_settings": [buckets],
    }


def _hold_cluster(port: int) -> dict[str, Any]:
    """The sidecar; each held request is one here, and the sidecar itself bounds them."""
    no_limit = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
    }
    endpoint = {"endpoint": {"address": loopback(port)}}
    return {
        "name": naming.HOLD,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [no_limit]},
        "load_assignment": {"cluster_name": naming.HOLD, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
