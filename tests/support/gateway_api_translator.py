"""A controller of the Gateway API, as small as a test needs one: it drives one real Envoy.

It reads HTTPRoutes, GRPCRoutes and EndpointSlices from the API server, has Envoy split requests by the routes' weights,
and says in the routes' status that it does so only once Envoy does. Which filters, hostnames and listeners a Gateway
has is not looked at: everything that names the Gateway is served at one port.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from conch.gateway.envoy.bootstrap import ROUTES_FILE, TYPE_PREFIX, config_source
from conch.gateway.envoy.files import Kind, ResourceFiles
from conch.gateway.envoy.naming import ROUTE_CONFIGURATION
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError
from tests.support.async_waiting import until
from tests.support.envoy import Envoy

CONTROLLER: Final = "example.com/translator"
_LOOK_SECONDS: Final = 0.1
_GRPC_PORT: Final = 8001
_ROUTES: Final = (resources.HTTP_ROUTES, resources.GRPC_ROUTES)

Cluster = tuple[str, int]
"""A Service and the port of it."""


class Translator:
    """Serves a namespace's routes at `port` of loopback.

    `dialled` says where an endpoint's address is to be dialled: pods that a test plays have addresses of loopback.
    """

    def __init__(
        self, client: KubeClient, envoy: Envoy, *, namespace: str, port: int, dialled: Callable[[str], str]
    ) -> None:
        self._client = client
        self._envoy = envoy
        self._files = ResourceFiles(envoy.folder)
        self._namespace = namespace
        self._port = port
        self._dialled = dialled
        self._written: dict[Kind, tuple[int, dict[str, str]]] = {}
        self._before: frozenset[Cluster] = frozenset()
        self.weights: list[dict[str, int]] = []
        """Every split of HTTP requests that Envoy has done, in order."""

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        await self._write(Kind.LISTENERS, {"gateway": _listener(self._envoy, self._port)})
        while True:
            routes = [route for kind in _ROUTES for route in await self._list(kind)]
            endpoints = await self._endpoints()
            clusters = frozenset(cluster for route in routes for cluster in _clusters(route))
            # Those of before stay until no route of Envoy's names them any more.
            for named in (clusters | self._before, clusters):
                texts = {
                    _name(each): _cluster(each, map(self._dialled, endpoints.get(each[0], ())))
                    for each in sorted(named)
                }
                await self._write(Kind.CLUSTERS, texts)
                await self._write(Kind.ROUTES, {"gateway": _virtual_host(routes)} if routes else {})
            self._before = clusters
            for route in routes:
                await self._accept(route)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _list(self, resource: resources.Resource) -> list[Json]:
        pages = self._client.pages(resource, namespace=self._namespace)
        return [{"kind": resource.kind, **item} async for page in pages for item in page.get("items") or ()]

    async def _endpoints(self) -> dict[str, tuple[str, ...]]:
        """The addresses that get new connections, by Service."""
        found: dict[str, set[str]] = {}
        for each in await self._list(resources.ENDPOINT_SLICES):
            ready = found.setdefault(each["metadata"]["labels"]["kubernetes.io/service-name"], set())
            for endpoint in each.get("endpoints") or ():
                if endpoint.get("conditions", {}).get("ready", True):
                    ready.update(endpoint["addresses"])
        return {service: tuple(sorted(addresses)) for service, addresses in found.items()}

    async def _write(self, kind: Kind, texts: dict[str, str]) -> None:
        """Write a file if it changes, and wait until Envoy does what is in it."""
        version, before = self._written.get(kind, (0, {}))
        if before == texts and version:
            return
        self._written[kind] = (version + 1, texts)
        self._files.write(kind, str(version + 1), texts)
        await until(f"Envoy to do {kind} {version + 1}", lambda: self._does(kind, str(version + 1)))

    async def _does(self, kind: Kind, version: str) -> bool:
        manager = {
            Kind.CLUSTERS: "cluster_manager.cds",
            Kind.LISTENERS: "listener_manager.lds",
            Kind.ROUTES: f"http.gateway.rds.{ROUTE_CONFIGURATION}",
        }[kind]
        stats = await self._envoy.stats(f"^({manager}.version_text|cluster_manager.warming_clusters)$")
        return stats.get(f"{manager}.version_text") in (version, int(version)) and not stats.get(
            "cluster_manager.warming_clusters"
        )

    async def _accept(self, route: Json) -> None:
        """Say that the Gateway does what this generation of the route asks for."""
        generation = route["metadata"]["generation"]
        said = [
            condition.get("observedGeneration")
            for parent in route.get("status", {}).get("parents") or ()
            for condition in parent["conditions"]
        ]
        if route["kind"] == "HTTPRoute" and (not self.weights or self.weights[-1] != _weights(route)):
            self.weights.append(_weights(route))
        if said and set(said) == {generation}:
            return
        common = {"status": "True", "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        conditions = [
            {"type": type_, "reason": type_, "message": "", **common} for type_ in ("Accepted", "ResolvedRefs")
        ]
        parents = [
            {"parentRef": ref, "controllerName": CONTROLLER, "conditions": conditions}
            for ref in route["spec"]["parentRefs"]
        ]
        metadata = {key: route["metadata"][key] for key in ("namespace", "name", "uid")}
        resource = next(each for each in _ROUTES if each.kind == route["kind"])
        body = {
            "apiVersion": f"{resource.group}/{resource.version}",
            "kind": resource.kind,
            "metadata": metadata,
            "status": {"parents": parents},
        }
        try:
            await self._client.apply(resource, body, field_manager="translator", subresource="status")
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise


def _weights(route: Json) -> dict[str, int]:
    return {ref["name"]: ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]}


def _clusters(route: Json) -> Iterable[Cluster]:
    return [(ref["name"], ref["port"]) for rule in route["spec"]["rules"] for ref in rule["backendRefs"]]


def _name(cluster: Cluster) -> str:
    return f"{cluster[0]}/{cluster[1]}"


def _virtual_host(routes: list[Json]) -> str:
    listed = [
        {"match": _match(match), **_action(rule["backendRefs"])}
        for route in routes
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]
    return json.dumps({"virtual_hosts": [{"name": "gateway", "domains": ["*"], "routes": listed}]}, sort_keys=True)


def _match(match: Mapping[str, Any]) -> dict[str, Any]:
    if "path" in match:
        assert match["path"]["type"] == "Exact"
        return {"path": match["path"]["value"]}
    assert match["method"]["type"] == "Exact"
    return {"path": f"/{match['method']['service']}/{match['method']['method']}"}


def _action(backends: list[Mapping[str, Any]]) -> dict[str, Any]:
    weighted = [
        {"name": _name((ref["name"], ref["port"])), "weight": ref["weight"]} for ref in backends if ref["weight"] > 0
    ]
    if not weighted:
        return {"direct_response": {"status": 500}}
    return {"route": {"weighted_clusters": {"clusters": weighted}, "timeout": "30s"}}


def _cluster(cluster: Cluster, addresses: Iterable[str]) -> str:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": cluster[1]}}}}
        for address in addresses
    ]
    http2 = {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE_PREFIX + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    }
    return json.dumps(
        {
            "@type": TYPE_PREFIX + "envoy.config.cluster.v3.Cluster",
            "name": _name(cluster),
            "connect_timeout": "2s",
            "type": "STATIC",
            "load_assignment": {"cluster_name": _name(cluster), "endpoints": [{"lb_endpoints": endpoints}]},
            **(http2 if cluster[1] == _GRPC_PORT else {}),
        },
        sort_keys=True,
    )


def _listener(envoy: Envoy, port: int) -> str:
    filters = TYPE_PREFIX + "envoy.extensions.filters."
    manager = {
        "@type": filters + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {
            "route_config_name": ROUTE_CONFIGURATION,
            "config_source": config_source(envoy.folder, ROUTES_FILE),
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": filters + "http.router.v3.Router"}}
        ],
    }
    return json.dumps(
        {
            "@type": TYPE_PREFIX + "envoy.config.listener.v3.Listener",
            "name": "gateway",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
            ],
        },
        sort_keys=True,
    )
