"""What a gateway is to route: one frozen snapshot of the objects and of their servers, made from watches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from conch.api import names
from conch.api.gateway import Gateway
from conch.api.shadow import ShadowShare
from conch.gateway.clients import Client

ObjectKey = tuple[str, str]
"""(namespace, name) of a ModelDeployment."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """A ready server of a workload."""

    pod: str
    address: str
    """Its IP address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedShare:
    """A workload and what it is to get (`status.traffic[]`)."""

    workload: str
    weight: int
    """Percent; 0 for one that only finishes what it has."""
    host: str | None = None
    """The workload whose pods serve it, if not its own."""
    pods: frozenset[str] | None = None
    """Names of those that serve it; None for all of them."""
    draining: frozenset[str] = frozenset()
    """Names of pods that get nothing new."""
    shadow: ShadowShare | None = None
    """The copies of requests that it gets besides."""

    @property
    def home(self) -> str:
        """The workload whose Service lists its servers."""
        return self.host or self.workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedObject:
    """A ModelDeployment as far as gateways are concerned."""

    namespace: str
    name: str
    uid: str
    created: str
    """creationTimestamp: of two objects that claim one port, the older has it."""
    port: int
    generation: str
    """`status.gateway.generation`: repeated to the operator once Envoy does what it stands for."""
    gateway: Gateway
    shares: tuple[RoutedShare, ...]
    desired_replicas: int
    """With 0 nobody comes, so nothing is held, unless ..."""
    wakes: bool = False
    """... a request that is held brings a server up."""

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def route(self) -> str:
        """Name of its virtual host and listener, value of `x-conch-route`."""
        return names.route(self.namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is to be routed at one moment."""

    objects: Mapping[ObjectKey, RoutedObject] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[tuple[str, str], frozenset[Endpoint]] = field(default_factory=lambda: MappingProxyType({}))
    """(namespace, home) -> the ready servers there, those in `draining` included."""
    gateways: Mapping[ObjectKey, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many gateways share the object's requests, as its public Service lists them; 1 where none is listed."""
    clients: tuple[Client, ...] | None = None
    """Who is let in; None for everybody."""

    def shadowed(self, object_: RoutedObject) -> RoutedShare | None:
        """The share that gets copies of the object's requests and has a server for them, if there is one."""
        return next((share for share in object_.shares if share.shadow and self.servers(object_, share)), None)

    def servers(self, object_: RoutedObject, share: RoutedShare) -> tuple[Endpoint, ...]:
        """The servers of a share that may get something new, in a fixed order."""
        ready = self.endpoints.get((object_.namespace, share.home), frozenset())
        return tuple(
            sorted(
                endpoint
                for endpoint in ready
                if endpoint.pod not in share.draining and (share.pods is None or endpoint.pod in share.pods)
            )
        )
