"""Who may ask a model: what Envoy checks before anything else looks at a request, so before one is held or wakes it.

First the client's API key, then whatever an authorisation service of the installation says. Clients' keys come with the
routes, which may change, while a listener may not: a listener that has no keys yet lets nobody in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.gateway.clients import Client
from conch.gateway.envoy import naming
from conch.gateway.envoy.external_authorization import STAT_PREFIX, ExternalAuthorization, authorization_filters
from conch.gateway.envoy.hold_refusals import status_is

KEY_HEADERS: Final = ("x-api-key", "authorization")
"""Where a key is looked for, and whence it is removed; the first that is there counts."""
NO_KEY: Final = (
    "an API key is needed, and none that is known was sent: send it as 'authorization: Bearer KEY' or as 'x-api-key: "
    "KEY', over gRPC as metadata"
)
NOT_THIS_NAMESPACE: Final = "the client with this API key may not call models of this namespace"

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters.http."
_KEYS: Final = "envoy.filters.http.api_key_auth"
_LIMITS: Final = "envoy.filters.http.rbac"
_EVERYTHING: Final = "downstream_rq_total"
_AUTHORIZATION_STATS: Final = f"ext_authz.{STAT_PREFIX}"

REFUSED_STATS: Final = (
    *("api_key_auth.unauthorized", "rbac.denied"),
    *(f"{_AUTHORIZATION_STATS}.denied", f"{_AUTHORIZATION_STATS}.error"),
)
"""Of a listener: requests that were not let in. A service that does not answer is among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What an installation wants to be checked; by default nothing."""

    api_keys: bool = False
    authorization: ExternalAuthorization | None = None

    @property
    def filters(self) -> list[dict[str, Any]]:
        """Of a listener, before all others."""
        keys = _key_filters() if self.api_keys else []
        return [*keys, *(authorization_filters(self.authorization) if self.authorization else [])]

    @property
    def admitted_stat(self) -> str:
        """The statistic of a listener that counts the requests that were let in."""
        if self.authorization:
            return f"{_AUTHORIZATION_STATS}.ok"
        return "rbac.allowed" if self.api_keys else _EVERYTHING


NOTHING_CHECKED: Final = Admission()

STATS: Final = (_EVERYTHING, "rbac.allowed", f"{_AUTHORIZATION_STATS}.ok", *REFUSED_STATS)
"""Everything of the above that is ever asked for."""


_HOW: Final = {
    "key_sources": [{"header": header} for header in KEY_HEADERS],
    "forwarding": {"header": naming.CLIENT_HEADER, "hide_credentials": True},
}
"""Said wherever keys are: keys of a route without it would go on to the model server (tried on Envoy 1.40)."""


def _key_filters() -> list[dict[str, Any]]:
    keys = {"@type": _FILTERS + "api_key_auth.v3.ApiKeyAuth", **_HOW}
    limits = {"@type": _FILTERS + "rbac.v3.RBAC", "rules": _limits(())}
    return [{"name": _KEYS, "typed_config": keys}, {"name": _LIMITS, "typed_config": limits}]


def clients_part(clients: Sequence[Client]) -> dict[str, Any]:
    """The part of the route configuration by which these clients, and no others, are let in at every listener."""
    credentials = [{"key": client.key, "client": client.name} for client in clients]
    keys = {"@type": _FILTERS + "api_key_auth.v3.ApiKeyAuthPerRoute", **_HOW, "credentials": credentials}
    limits = {"@type": _FILTERS + "rbac.v3.RBACPerRoute", "rbac": {"rules": _limits(clients)}}
    return {"typed_per_filter_config": {_KEYS: keys, _LIMITS: limits}}


def _limits(clients: Sequence[Client]) -> dict[str, Any]:
    """Refuses a client at models of other namespaces than its own. The object's route begins with its namespace."""
    return {
        "action": "DENY",
        "policies": {
            client.name: {
                "principals": [{"header": {"name": naming.CLIENT_HEADER, "string_match": {"exact": client.name}}}],
                "permissions": [{"not_rule": {"or_rules": {"rules": [_in(each) for each in client.namespaces]}}}],
            }
            for client in clients
            if client.namespaces is not None
        },
    }


def is_of_another_namespace() -> dict[str, Any]:
    """A filter of local replies by which the limits ended a request: only one whose key is known names its client."""
    names_client = {"header_filter": {"header": {"name": naming.CLIENT_HEADER, "present_match": True}}}
    return {"and_filter": {"filters": [status_is(403), names_client]}}


def _in(namespace: str) -> dict[str, Any]:
    return {"header": {"name": naming.ROUTE_HEADER, "string_match": {"prefix": f"{namespace}."}}}
