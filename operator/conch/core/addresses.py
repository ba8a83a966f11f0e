"""What `status.url` and `status.grpcUrl` say: by which address clients reach the object."""

from typing import Final

from conch.api import names, pod
from conch.api.gateway import Gateway, GatewayMode
from conch.api.gateway_api import RouteProtocol
from conch.api.spec import ModelDeploymentSpec
from conch.core.situation import Situation

_HTTP_PORT: Final = 80
_HTTPS_PORT: Final = 443


def addresses(situation: Situation) -> tuple[str, str]:
    """Of HTTP and of gRPC: a name that the spec gives to clients of the platform's Gateways, else the Service's."""
    owner, spec, exposure = situation.owner, situation.spec, situation.routing.exposure
    # The pods' own ports, which a Service that selects them leads to, have no certificate.
    is_tls = situation.policy.gateway_tls and not exposure.selects_pods
    host = f"{names.service(owner.name)}.{owner.namespace}.svc"
    http = f"{'https' if is_tls else 'http'}://{host}:{pod.HTTP_PORT}"
    grpc = f"{'grpcs://' if is_tls else ''}{host}:{pod.GRPC_PORT}"
    if isinstance(spec, ModelDeploymentSpec) and exposure.mode is GatewayMode.GATEWAY_API:
        return _http(spec.gateway) or http, _grpc(spec.gateway) or grpc
    return http, grpc


# What a listener speaks only its Gateway says, which Conch may not read: TLS where port 443 is named, else not.


def _http(gateway: Gateway) -> str:
    host, port = _published(gateway, RouteProtocol.HTTP)
    named = f":{port}" if port not in (_HTTP_PORT, _HTTPS_PORT) else ""
    return f"{'https' if port == _HTTPS_PORT else 'http'}://{host}{named}" if host else ""


def _grpc(gateway: Gateway) -> str:
    host, port = _published(gateway, RouteProtocol.GRPC)
    return f"{'grpcs://' if port == _HTTPS_PORT else ''}{host}:{port}" if host else ""


def _published(gateway: Gateway, protocol: RouteProtocol) -> tuple[str, int]:
    """The first name that is no wildcard, and the port of the first Gateway that carries the protocol."""
    parents = gateway.parents_of(protocol)
    host = next((name for name in gateway.hostnames_of(protocol) if not name.startswith("*")), "")
    return (host, parents[0].port or _HTTP_PORT) if parents else ("", _HTTP_PORT)
