"""The listener of one object.

It depends on the object's identity and port and on what the installation chose, and on nothing that ever changes:
Envoy disconnects the clients of a listener that changes.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from conch.api import gateway_pod
from conch.api.gateway import HOLD_SECONDS_MOST
from conch.gateway.envoy import naming, tls
from conch.gateway.envoy.admission import (
    NOTHING_CHECKED,
    Admission,
)
from conch.gateway.envoy.bootstrap import (
    BUFFER_BYTES,
    CONNECTIONS_MOST_OF_ONE,
    ROUTES_FILE,
    TYPE_PREFIX,
    config_source,
)
from conch.gateway.envoy.failure_counters import failure_loggers
from conch.gateway.envoy.local_replies import local_replies
from conch.gateway.envoy.restricted_apis import restricted_apis_filter

HEADER_KIB_DEFAULT: Final = 60
IDLE_SECONDS: Final = HOLD_SECONDS_MOST + 600
"""A stream on which nothing moves ends after this; a request that is held is such a stream."""
HOLD_RETRIES: Final = 9
"""How often Envoy asks a sidecar that is away, at random moments within 0.1 s, 0.2 s, 0.4 s ...: half a minute."""
_HOLD_TIMEOUT: Final = f"{HOLD_SECONDS_MOST + 60}s"
STREAMS_MOST: Final = 1000
"""Of one HTTP/2 connection; clients wait by themselves before they begin more."""
STREAM_WINDOW_BYTES: Final = 256 * 1024
"""What a client may send on a stream that Envoy does not read from. The connection has room for as much of every
stream, or the bodies of held requests would keep those from being sent that are let go before them."""
_FILTERS: Final = TYPE_PREFIX + "envoy.extensions.filters."
_NOT_FOR_CLIENTS: Final = (naming.CLUSTER_HEADER, naming.CLIENT_HEADER, naming.AUTHORIZED_HEADER)
_NOBODY: Final = {"address_prefix": "255.255.255.255", "prefix_len": 32}


class AccessLog(StrEnum):
    """Whether requests are logged."""

    OFF = "off"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """What is the same for all listeners of an installation."""

    dynamic_folder: Path = Path(gateway_pod.CONFIG_FOLDER, gateway_pod.DYNAMIC_FOLDER)
    bind_address: str = "0.0.0.0"  # noqa: S104 - clients come from the whole cluster
    access_log: AccessLog = AccessLog.OFF
    header_kib_most: int = HEADER_KIB_DEFAULT
    """All headers of a request together; beyond it clients get 431."""
    tls: bool = False
    """Whether models' ports speak TLS, and nothing else."""
    admission: Admission = NOTHING_CHECKED
    """Whom they let in."""


def listener(*, route: str, port: int, options: ListenerOptions) -> dict[str, Any]:
    """The listener of the object that gateways know as `route`."""
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": _connection_manager(route, options),
    }
    chain: dict[str, Any] = {"filters": [_connection_limit(route), manager]}
    if options.tls:
        chain |= tls.transport_socket(config_source(options.dynamic_folder, tls.SDS_FILE))
    return {
        "@type": TYPE_PREFIX + "envoy.config.listener.v3.Listener",
        "name": route,
        "address": {"socket_address": {"address": options.bind_address, "port_value": port}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _connection_limit(route: str) -> dict[str, Any]:
    """Closes at once what is beyond."""
    return {
        "name": "envoy.filters.network.connection_limit",
        "typed_config": {
            "@type": _FILTERS + "network.connection_limit.v3.ConnectionLimit",
            "stat_prefix": route,
            "max_connections": CONNECTIONS_MOST_OF_ONE,
        },
    }


def _connection_manager(route: str, options: ListenerOptions) -> dict[str, Any]:
    return {
        "@type": _FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": route,
        # HTTP/1.1 and HTTP/2 on one port: told apart by ALPN, or without TLS by the first bytes.
        "codec_type": "AUTO",
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_MOST,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": STREAMS_MOST * STREAM_WINDOW_BYTES,
        },
        "use_remote_address": True,
        # With nobody internal, clients' own x-envoy-* headers are taken off; an empty list would be ignored.
        "internal_address_config": {"cidr_ranges": [_NOBODY]},
        "early_header_mutation_extensions": [_own_headers(route)],
        "rds": {
            "route_config_name": naming.ROUTE_CONFIGURATION,
            "config_source": config_source(options.dynamic_folder, ROUTES_FILE),
        },
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        # Names of models and versions are Triton's to read.
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": options.header_kib_most,
        "request_headers_timeout": "30s",
        "stream_idle_timeout": f"{IDLE_SECONDS}s",
        "local_reply_config": local_replies(options.admission),
        "access_log": [*failure_loggers(), *_access_log(route, options.access_log)],
        "http_filters": [*options.admission.filters, restricted_apis_filter(), _hold_filter(), _router()],
    }


def _own_headers(route: str) -> dict[str, Any]:
    """Before anything else looks at the request: whatever a client says, this listener's object is what it gets."""
    name = "envoy.http.early_header_mutation.header_mutation"
    set_route = {
        "append": {
            "header": {"key": naming.ROUTE_HEADER, "value": route},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return {
        "name": name,
        "typed_config": {
            "@type": TYPE_PREFIX + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [set_route, *({"remove": name} for name in _NOT_FOR_CLIENTS)],
        },
    }


def _hold_filter() -> dict[str, Any]:
    """Asks the sidecar whether a request may go on; off for objects with ready servers (see routes.py)."""
    return {
        "name": naming.HOLD,
        "typed_config": {
            "@type": _FILTERS + "http.ext_authz.v3.ExtAuthz",
            "status_on_error": {"code": "ServiceUnavailable"},
            # The permission names a cluster, and the route is chosen again by that.
            "clear_route_cache": True,
            "allowed_headers": {"patterns": _exactly(naming.ROUTE_HEADER, "content-type")},
            "disallowed_headers": {"patterns": _exactly("authorization")},
            "http_service": {
                "server_uri": {
                    "uri": f"http://{naming.HOLD}",
                    "cluster": naming.HOLD,
                    # The sidecar knows the object's own deadline.
                    "timeout": _HOLD_TIMEOUT,
                },
                # A sidecar that restarts forgets whom it holds; they come again as soon as it is back.
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,reset",
                    "num_retries": HOLD_RETRIES,
                    # Envoy gives up each question after `max_interval` as well (tried on 1.40).
                    "retry_back_off": {"base_interval": "0.1s", "max_interval": _HOLD_TIMEOUT},
                },
                "path_prefix": f"/{naming.HOLD}",
                "authorization_response": {
                    "allowed_upstream_headers": {"patterns": _exactly(naming.CLUSTER_HEADER)},
                    "allowed_client_headers": {
                        "patterns": _exactly("retry-after", "grpc-status", "grpc-message", "content-type")
                    },
                },
            },
        },
    }


def _router() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _FILTERS + "http.router.v3.Router", "suppress_envoy_headers": True},
    }


def _exactly(*texts: str) -> list[dict[str, str]]:
    return [{"exact": text} for text in texts]


def _access_log(route: str, wanted: AccessLog) -> list[dict[str, Any]]:
    """One line of JSON per request on stdout, without what may be secret: queries, credentials, bodies."""
    if wanted is AccessLog.OFF:
        return []
    line = {
        "time": "%START_TIME%",
        "route": route,
        "client_name": f"%REQ({naming.CLIENT_HEADER.upper()})%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "protocol": "%PROTOCOL%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "duration_ms": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "cluster": "%UPSTREAM_CLUSTER_RAW%",
        "server": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }
    return [
        {
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": TYPE_PREFIX + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": {"json_format": line},
            },
        }
    ]


def to_json(resource: dict[str, Any]) -> str:
    """The one text of a resource: equal resources are equal texts."""
    return json.dumps(resource, sort_keys=True, separators=(",", ":"))
