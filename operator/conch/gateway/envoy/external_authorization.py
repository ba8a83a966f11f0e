"""An authorisation service of the installation, which is asked about every request (Envoy's ext_authz over gRPC).

The hold is an ext_authz filter too, and Envoy marks the refusals of both alike. So a header that is set between the two
tells whose a refusal is; it is there for those of the hold only.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conch.gateway.envoy import naming
from conch.gateway.envoy.hold_refusals import UNAVAILABLE_STATUS, status_is

FILTER: Final = "external-authorization"
"""Of the filter and of the cluster that it asks."""
STAT_PREFIX: Final = "external"
NO_ANSWER: Final = "the authorisation service does not answer; try again later"
MACHINE_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""In Envoy's image: whom everybody trusts."""

_TYPE: Final = "type.googleapis.com/envoy.extensions."
_CONNECT_TIMEOUT: Final = "1s"
_UNLIMITED: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAuthorization:
    """The service, and how long it may take."""

    host: str
    port: int
    timeout_milliseconds: int
    tls: bool = False
    ca_file: Path | None = None
    """In Envoy's container: certificates (PEM) of the authorities to trust; None: those of its image."""


def authorization_filters(service: ExternalAuthorization) -> list[dict[str, Any]]:
    """Whoever gets past it has the header `naming.AUTHORIZED_HEADER`. No answer is a refusal."""
    ask = {
        "@type": _TYPE + "filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "stat_prefix": STAT_PREFIX,
        "grpc_service": {
            "envoy_grpc": {"cluster_name": FILTER, "authority": f"{service.host}:{service.port}"},
            "timeout": f"{service.timeout_milliseconds / 1000:g}s",
        },
        "failure_mode_allow": False,
        # Envoy tells clients nothing else of an error, so by this one it is known; they get 503.
        "status_on_error": {"code": UNAVAILABLE_STATUS},
        # Which object a request is for is not the service's to say.
        "decoder_header_mutation_rules": {"disallow_expression": {"regex": "x-conch-.*"}},
    }
    mark = {
        "@type": _TYPE + "filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {
            "request_mutations": [
                {
                    "append": {
                        "header": {"key": naming.AUTHORIZED_HEADER, "value": "yes"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                }
            ]
        },
    }
    return [
        {"name": FILTER, "typed_config": ask},
        {"name": "envoy.filters.http.header_mutation", "typed_config": mark},
    ]


def is_refusal() -> dict[str, Any]:
    """A filter of replies by which the service, and not the hold, ended a request."""
    unmarked = {"header": {"name": naming.AUTHORIZED_HEADER, "present_match": True, "invert_match": True}}
    filters = [{"response_flag_filter": {"flags": ["UAEX"]}}, {"header_filter": unmarked}]
    return {"and_filter": {"filters": filters}}


def is_no_answer() -> dict[str, Any]:
    """A filter of those replies for want of an answer."""
    return {"and_filter": {"filters": [is_refusal(), status_is(UNAVAILABLE_STATUS)]}}


def authorization_cluster(service: ExternalAuthorization) -> dict[str, Any]:
    """Where it is asked; its name is looked up anew as DNS says."""
    no_limit = {"max_connections": _UNLIMITED, "max_pending_requests": _UNLIMITED, "max_requests": _UNLIMITED}
    address = {"socket_address": {"address": service.host, "port_value": service.port}}
    cluster = {
        "name": FILTER,
        "type": "STRICT_DNS",
        "respect_dns_ttl": True,
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [no_limit]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    # A service that went away without a word is noticed.
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
                },
            }
        },
        "load_assignment": {
            "cluster_name": FILTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return cluster | (_transport_socket(service) if service.tls else {})


def _transport_socket(service: ExternalAuthorization) -> dict[str, Any]:
    """Envoy verifies nothing that it is not told to verify: who issued the certificate, and whom it names."""
    is_address = _is_address(service.host)
    named = {"san_type": "IP_ADDRESS" if is_address else "DNS", "matcher": {"exact": service.host}}
    context = {
        "@type": _TYPE + "transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "validation_context": {
                "trusted_ca": {"filename": str(service.ca_file or MACHINE_AUTHORITIES)},
                "match_typed_subject_alt_names": [named],
            },
        },
    }
    if not is_address:
        context["sni"] = service.host
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
