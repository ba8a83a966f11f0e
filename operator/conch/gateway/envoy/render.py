"""From a snapshot to what Envoy is to do: pure, and the same bytes for the same snapshot."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from conch.gateway.envoy import naming
from conch.gateway.envoy.admission import clients_part
from conch.gateway.envoy.cluster import ServerPorts, cluster, requests_most
from conch.gateway.envoy.listener import ListenerOptions, listener, to_json
from conch.gateway.envoy.naming import ClusterId, Protocol
from conch.gateway.envoy.routes import sending, virtual_host
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """What is the same for all objects."""

    listener: ListenerOptions = field(default_factory=ListenerOptions)
    ports: ServerPorts = field(default_factory=ServerPorts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectConfig:
    """What Envoy is to do for one object; every resource is its text."""

    key: ObjectKey
    route: str
    """Name of listener and virtual host."""
    generation: str
    listener: str
    routes: str
    """Its part of the route configuration: its virtual host."""
    clusters: Mapping[str, str]
    empty: frozenset[str]
    """Names of the clusters without servers."""
    servers: tuple[tuple[str, int], ...]
    """Workloads that get requests, with their weights; none if requests are held."""
    endpoints: int
    """Servers of these workloads."""
    waits_for: str
    """Why this is not all of what the generation stands for; empty if it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyConfig:
    """Everything that Envoy is to do."""

    objects: Mapping[ObjectKey, ObjectConfig] = field(default_factory=lambda: MappingProxyType({}))
    problems: Mapping[ObjectKey, str] = field(default_factory=lambda: MappingProxyType({}))
    """Objects that cannot be routed, and why."""
    shared_routes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Parts of the route configuration that belong to no object."""

    @property
    def listeners(self) -> dict[str, str]:
        """By name."""
        return {each.route: each.listener for each in self.objects.values()}

    @property
    def routes(self) -> dict[str, str]:
        """All parts of the route configuration, by name: that of a virtual host, or of what is shared."""
        return {each.route: each.routes for each in self.objects.values()} | dict(self.shared_routes)

    @property
    def clusters(self) -> dict[str, str]:
        """By name."""
        return {name: text for each in self.objects.values() for name, text in each.clusters.items()}


_Inputs = tuple[RoutedObject, tuple[tuple[Endpoint, ...], ...], int]


class Renderer:
    """Renders, and remembers what it made of each object: of hundreds, one changes."""

    def __init__(self, options: RenderOptions) -> None:
        """With the installation's options."""
        self._options = options
        self._made: dict[ObjectKey, tuple[_Inputs, ObjectConfig]] = {}

    def render(self, snapshot: Snapshot) -> EnvoyConfig:
        """What Envoy is to do for the snapshot."""
        problems: dict[ObjectKey, str] = {}
        objects: dict[ObjectKey, ObjectConfig] = {}
        made: dict[ObjectKey, tuple[_Inputs, ObjectConfig]] = {}
        ports: dict[int, RoutedObject] = {}
        workloads: dict[tuple[str, str], RoutedObject] = {}
        for object_ in _oldest_first(snapshot.objects.values()):
            if problem := _problem(object_, ports, workloads):
                problems[object_.key] = problem
                continue
            ports[object_.port] = object_
            workloads |= {
                (object_.namespace, workload): object_
                for share in object_.shares
                for workload in (share.workload, share.home)
            }
            servers = tuple(snapshot.servers(object_, share) for share in object_.shares)
            inputs = (object_, servers, snapshot.gateways.get(object_.key, 1))
            before = self._made.get(object_.key)
            config = before[1] if before and before[0] == inputs else _object_config(*inputs, options=self._options)
            made[object_.key] = (inputs, config)
            objects[object_.key] = config
        self._made = made
        shared = {} if snapshot.clients is None else {naming.CLIENTS: to_json(clients_part(snapshot.clients))}
        return EnvoyConfig(objects=dict(sorted(objects.items())), problems=problems, shared_routes=shared)


def render(snapshot: Snapshot, options: RenderOptions) -> EnvoyConfig:
    """What Envoy is to do for the snapshot."""
    return Renderer(options).render(snapshot)


def _oldest_first(objects: Iterable[RoutedObject]) -> list[RoutedObject]:
    return sorted(objects, key=lambda object_: (object_.created, object_.uid))


def _problem(
    object_: RoutedObject, ports: Mapping[int, RoutedObject], workloads: Mapping[tuple[str, str], RoutedObject]
) -> str | None:
    """Why the object cannot be routed, given those that are older."""
    if (name := naming.unfit_name(object_)) is not None:
        return f"{name[:80]!r} cannot be part of a name in Envoy"
    if other := ports.get(object_.port):
        return f"port {object_.port} belongs to {other.namespace}/{other.name}, which is older"
    for workload in dict.fromkeys(each for share in object_.shares for each in (share.workload, share.home)):
        if other := workloads.get((object_.namespace, workload)):
            return f"workload {workload} belongs to {other.namespace}/{other.name}, which is older"
    return None


def _object_config(
    object_: RoutedObject, servers: tuple[tuple[Endpoint, ...], ...], gateways: int, *, options: RenderOptions
) -> ObjectConfig:
    shares = tuple(zip(object_.shares, servers, strict=True))
    to = sending([(share, len(each)) for share, each in shares])
    most = requests_most(object_.gateway.max_in_flight, gateways)
    clusters: dict[str, str] = {}
    empty: set[str] = set()
    for share, each in shares:
        for protocol in Protocol:
            id_ = ClusterId(namespace=object_.namespace, workload=share.workload, protocol=protocol)
            clusters[str(id_)] = to_json(cluster(id_, each, ports=options.ports, max_requests=most))
            if not each:
                empty.add(str(id_))
    copied = next((share.shadow.percent for share, each in shares if share.shadow and each), 0)
    host = virtual_host(
        route=object_.route,
        namespace=object_.namespace,
        gateway=object_.gateway,
        sending=to,
        copied_percent=copied,
    )
    counts = {share.workload: len(each) for share, each in shares}
    return ObjectConfig(
        key=object_.key,
        route=object_.route,
        generation=object_.generation,
        listener=to_json(listener(route=object_.route, port=object_.port, options=options.listener)),
        routes=to_json({"virtual_hosts": [host]}),
        clusters=clusters,
        empty=frozenset(empty),
        servers=to.weights,
        endpoints=sum(counts[workload] for workload, _ in to.weights),
        waits_for=to.waits_for,
    )
